import dataclasses

import msgspec
import numpy as np
import pytest
import torch

from mirror_analysis.alignment import AlignmentConfig, LinearAlignment, recall_at_k
from mirror_analysis.alignment.linear import Curve, Solved
from mirror_analysis.errors import DefinitionError, FormatError, ShapeError, UnknownNameError
from mirror_analysis.features import FeatureKey, Features, Index
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


def test_what_a_closed_form_and_a_learned_temperature_are_is_kept(tmp_path):
    path = tmp_path / "a.safetensors"
    solved = Solved("cca", 0.2, 0.01, 8, [(0.01, 8, 1.5), (0.1, 4, 2.5)])
    dataclasses.replace(alignment(), config=solved, curve=None).save(path)
    read = LinearAlignment.load(path)
    assert (read.config, read.curve, read.method, read.temperature) == (solved, None, "cca", 0.2)
    learned = Curve([20, 40], [1.5, 1.25], [2.0, 1.75], 40, [0.3, 0.25])
    dataclasses.replace(alignment(), curve=learned).save(path)
    read = LinearAlignment.load(path)
    assert (read.curve, read.method, read.temperature) == (learned, "contrastive", 0.25)
    assert alignment().temperature == 0.1


def test_files_of_the_first_format_are_still_read(tmp_path):
    made, path = alignment(), tmp_path / "old.safetensors"
    names = ("x_weight", "x_bias", "y_weight", "y_bias")
    # To the letter what was written before there were versions.
    header = {
        "config": '{"width":8,"temperature":0.1,"learning_rate":0.001,"weight_decay":0.01,'
        '"batch":128,"steps":40,"check_every":20,"patience":5}',
        "curve": '{"step":[20,40],"fit":[1.5,1.25],"validation":[2.0,2.25],"chosen":20}',
    }
    write_safetensors(path, {name: getattr(made, name) for name in names}, header)
    read = LinearAlignment.load(path)
    assert (read.config, read.curve) == (made.config, made.curve)
    assert read.digest == made.digest != alignment(seed=1).digest
    write_safetensors(path, dict(read_safetensors(path)[0]), header | {"version": "9"})
    with pytest.raises(FormatError, match="is an alignment of version 9; this package reads up to"):
        LinearAlignment.load(path)


def test_features_are_taken_into_the_shared_space_with_their_rows():
    index = Index(np.array(["a", "b"]), np.array([3, 4]), {"task": np.array(["t", "t"])})
    key = FeatureKey("m", "0", "layer", "mean", "f", settings={"calls": "first"})
    made, values = alignment(), rows(2, 5).astype(np.float32)
    found = made.apply(Features(key, values, index), side="x")
    np.testing.assert_array_equal(found.values, made.embed_x(values).numpy())
    assert found.index is index and found.key.layer == "layer"
    assert found.key.settings["calls"] == "first" and found.key != key
    other = alignment(seed=1).apply(Features(key, values, index), side="x")
    assert other.key != found.key
    side = made.apply(Features(key, values[:, :3], index), side="y")
    np.testing.assert_array_equal(side.values, made.embed_y(values[:, :3]).numpy())
    with pytest.raises(ShapeError, match=r"y has shape \(2, 5\); this alignment was fitted on"):
        made.apply(Features(key, values, index), side="y")
    with pytest.raises(UnknownNameError, match=r"unknown side 'z' .*known: x, y"):
        made.apply(Features(key, values, index), side="z")


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
        ({}, {"solved": "{}"}, FormatError, "missing required field `method`"),
        (
            {},
            {"curve": '{"step":[],"fit":[],"validation":[],"chosen":5,"temperature":[0.1]}'},
            FormatError,
            "its curve lacks the chosen step",
        ),
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
        ("warmup", -1, "warmup is -1; needed 0 or more"),
        ("held_out", 0.0, "held_out is 0.0; needed a share between 0 and 1"),
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


def test_a_schedule_that_there_is_not_is_refused():
    with pytest.raises(UnknownNameError, match="unknown schedule 'cosin'; did you mean 'cosine'"):
        AlignmentConfig(schedule="cosin")
