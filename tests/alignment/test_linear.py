import msgspec
import numpy as np
import pytest
import torch

from mirror_analysis.alignment import AlignmentConfig, LinearAlignment, recall_at_k
from mirror_analysis.alignment.linear import Curve
from mirror_analysis.errors import DefinitionError, FormatError, ShapeError
from mirror_analysis.files.safetensors import read_safetensors, write_safetensors


def alignment(x: int = 5, y: int = 3, width: int = 8, seed: int = 0) -> LinearAlignment:
    g = torch.Generator().manual_seed(seed)
    shapes = ((x, width), (width,), (y, width), (width,))
    return LinearAlignment(
        *(torch.randn(*shape, generator=g) for shape in shapes),
        config=AlignmentConfig(width=width, steps=40),
        curve=Curve([20, 40], [1.5, 1.25], [2.0, 2.25], 20),
    )


def rows(count: int, features: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, features))


def test_embeddings_are_affine_maps_on_the_unit_sphere():
    a, x, y = alignment(), rows(6, 5), rows(4, 3, seed=1)
    raw = x @ a.x_weight.double().numpy() + a.x_bias.double().numpy()
    expected_x = raw / np.sqrt((raw**2).sum(axis=1, keepdims=True))
    raw = y @ a.y_weight.double().numpy() + a.y_bias.double().numpy()
    expected_y = raw / np.sqrt((raw**2).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(a.embed_x(x).numpy(), expected_x, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(a.embed_y(y).numpy(), expected_y, rtol=1e-5, atol=1e-6)
    cosines = a.similarity(x, y)
    assert cosines.shape == (6, 4) and cosines.dtype == np.float64
    np.testing.assert_allclose(cosines, expected_x @ expected_y.T, atol=1e-6)
    assert np.abs(cosines).max() <= 1 + 1e-6


@pytest.mark.parametrize("count", [37, 64, 101])
def test_rows_that_are_all_alike_find_their_partners_by_chance(count):
    # Were equal rows told apart by rounding, a constant layer could score anything.
    a, y = alignment(width=300), rows(count, 3)
    constant = np.tile(rows(1, 5), (count, 1))
    for cosines in (a.similarity(constant, y), a.similarity(constant, y[:1].repeat(count, 0))):
        assert recall_at_k(cosines, k=3, gallery=32) == pytest.approx(3 / 32)


def test_what_is_saved_is_loaded_to_the_bit(tmp_path):
    made = alignment()
    made.save(tmp_path / "a.safetensors")
    read = LinearAlignment.load(tmp_path / "a.safetensors")
    for name in ("x_weight", "x_bias", "y_weight", "y_bias"):
        assert torch.equal(getattr(read, name), getattr(made, name))
    assert (read.config, read.curve) == (made.config, made.curve)
    x, y = rows(6, 5), rows(6, 3)
    assert np.array_equal(read.similarity(x, y), made.similarity(x, y))


def test_features_of_another_layer_are_refused():
    text = r"x has shape \(2, 4\); this alignment was fitted on \[sample, 5\], so give it the layer"
    with pytest.raises(ShapeError, match=text):
        alignment().embed_x(rows(2, 4))
    with pytest.raises(ShapeError, match=r"y has shape \(3,\); .* \[sample, 3\]"):
        alignment().embed_y(rows(2, 3)[0])


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"weight": torch.zeros(2), "bias": torch.zeros(1)})
    with pytest.raises(FormatError, match="is not an alignment: it holds bias, weight; needed x_w"):
        LinearAlignment.load(path)
    write_safetensors(path, {})
    with pytest.raises(FormatError, match="it holds nothing; needed x_weight, x_bias, y_weight"):
        LinearAlignment.load(path)


@pytest.mark.parametrize(
    ("tensors", "settings", "error", "text"),
    [
        ({"x_bias": torch.zeros(7)}, {}, FormatError, "its maps and biases do not fit each other"),
        ({"x_weight": torch.zeros(8)}, {}, FormatError, "its maps and biases do not fit"),
        ({}, {"config": None}, FormatError, r"is a damaged alignment \('config'\); fit it again"),
        ({}, {"curve": None}, FormatError, r"is a damaged alignment \('curve'\)"),
        ({}, {"curve": "{"}, FormatError, r"damaged alignment \(Input data was truncated\)"),
        ({}, {"config": '{"wide": 3}'}, FormatError, "contains unknown field `wide`"),
        ({}, {"config": '{"width": 0}'}, DefinitionError, "alignment width is 0; needed 1 or more"),
    ],
)
def test_a_damaged_alignment_is_refused(tmp_path, tensors, settings, error, text):
    path = tmp_path / "a.safetensors"
    alignment().save(path)
    good, header = read_safetensors(path)
    header = {k: v for k, v in (header | settings).items() if v is not None}
    write_safetensors(path, good | tensors, header)
    with pytest.raises(error, match=text):
        LinearAlignment.load(path)


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("temperature", 0.0, "temperature is 0.0; needed a number above 0"),
        ("temperature", float("nan"), "temperature is nan; needed a number above 0"),
        ("learning_rate", -1.0, "learning_rate is -1.0; needed a number above 0"),
        ("weight_decay", -0.1, "weight_decay is -0.1; needed 0 or more"),
        ("width", 0, "width is 0; needed 1 or more"),
        ("batch", 1, "batch is 1; needed 2 or more"),
        ("steps", 0, "steps is 0; needed 1 or more"),
        ("check_every", 0, "check_every is 0; needed 1 or more"),
        ("patience", 0, "patience is 0; needed 1 or more"),
    ],
)
def test_settings_with_which_nothing_can_be_fitted_are_refused(field, value, text):
    with pytest.raises(DefinitionError, match=f"alignment {text}"):
        msgspec.structs.replace(AlignmentConfig(), **{field: value})
