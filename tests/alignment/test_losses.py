import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror_analysis.alignment import blockwise, info_nce, losses
from mirror_analysis.alignment.losses import LinearMap, linear_info_nce
from mirror_analysis.errors import DegenerateError, ShapeError


def embeddings(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=g, dtype=torch.float64)
    return x, x + torch.randn(*shape, generator=g, dtype=torch.float64)


def slow(x: torch.Tensor, y: torch.Tensor, temperature: float) -> float:
    """Both cross entropies of the cosines, term by term."""

    def logit(a: list[float], b: list[float]) -> float:
        product = sum(p * q for p, q in zip(a, b, strict=True))
        return product / math.hypot(*a) / math.hypot(*b) / temperature

    rows, columns, total = x.tolist(), y.tolist(), 0.0
    for i, (own, partner) in enumerate(zip(rows, columns, strict=True)):
        of_row = [math.exp(logit(own, other)) for other in columns]
        of_column = [math.exp(logit(other, partner)) for other in rows]
        total -= math.log(of_row[i] / sum(of_row)) / 2 + math.log(of_column[i] / sum(of_column)) / 2
    return total / len(rows)


@pytest.fixture(params=[0, 2**20], ids=["in tiles", "dense"])
def form(request, monkeypatch):
    """Either way of summing, at any batch."""
    monkeypatch.setattr(losses, "_DENSE", request.param)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_is_the_textbook_formula(temperature):
    x, y = embeddings(7, 4)
    value = float(info_nce(x, y, temperature=temperature))
    assert value == pytest.approx(slow(x, y, temperature), rel=1e-12)


@pytest.mark.usefixtures("form")
def test_is_log_batch_where_nothing_is_known():
    x, _ = embeddings(9, 4)
    same = torch.ones(9, 4, dtype=torch.float64)
    assert float(info_nce(same, same, temperature=0.1)) == pytest.approx(math.log(9))
    # An embedding of length 0 is as far from its partner as from any other row.
    assert float(info_nce(x, torch.zeros_like(x), temperature=0.1)) == pytest.approx(math.log(9))


@pytest.mark.usefixtures("form")
def test_has_its_closed_form_where_all_pairs_are_orthogonal():
    x = torch.eye(6, dtype=torch.float64)
    value = float(info_nce(x, x, temperature=0.5))
    assert value == pytest.approx(math.log1p(5 * math.exp(-2.0)))


@pytest.mark.usefixtures("form")
def test_gradients_are_those_of_finite_differences():
    x, y = (z.requires_grad_() for z in embeddings(2, 5, 3))
    assert torch.autograd.gradcheck(lambda a, b: info_nce(a, b, temperature=0.3), (x, y))


@pytest.mark.usefixtures("form")
def test_a_stack_of_problems_is_the_problems_one_by_one():
    x, y = embeddings(2, 3, 6, 4)
    stacked = info_nce(x, y, temperature=0.2)
    assert stacked.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            single = info_nce(x[i, j], y[i, j], temperature=0.2)
            torch.testing.assert_close(stacked[i, j], single)


@given(seed=st.integers(0, 10**6), batch=st.integers(2, 9))
@settings(deadline=None, max_examples=20)
def test_knows_directions_only_and_neither_order_nor_side(seed, batch):
    x, y = embeddings(batch, 4, seed=seed)
    g = torch.Generator().manual_seed(seed)
    value = float(info_nce(x, y, temperature=0.1))
    assert value >= 0.0
    lengths = [0.01 + 100 * torch.rand(batch, 1, generator=g).double() for _ in range(2)]
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=g).double()).Q
    order = torch.randperm(batch, generator=g)
    for changed in (
        (x * lengths[0], y * lengths[1]),
        (x @ rotation, y @ rotation),
        (x[order], y[order]),
        (y, x),
    ):
        assert float(info_nce(*changed, temperature=0.1)) == pytest.approx(value, rel=1e-9)


def test_depends_on_which_rows_are_partners_and_on_the_temperature():
    x, y = embeddings(8, 4)
    value = float(info_nce(x, y, temperature=0.1))
    assert float(info_nce(x, y.roll(1, 0), temperature=0.1)) > value + 1
    assert abs(float(info_nce(x, y, temperature=0.2)) - value) > 0.01


def slow_labelled(x: torch.Tensor, y: torch.Tensor, labels: list[int], temperature: float) -> float:
    """Equation 2 of Khosla et al. (2020), anchor by anchor, in both directions."""
    x, y = (z / z.norm(dim=-1, keepdim=True) for z in (x, y))
    total = 0.0
    for anchors, others in ((x, y), (y, x)):
        for i, anchor in enumerate(anchors):
            logits = [float(anchor @ other) / temperature for other in others]
            partition = math.log(sum(math.exp(logit) for logit in logits))
            own = [logit for logit, other in zip(logits, labels, strict=True) if other == labels[i]]
            total += sum(partition - logit for logit in own) / len(own)
    return total / (2 * len(x))


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("labels", [[0] * 6, [0, 1, 2, 3, 4, 5], [7, -2, 7, 7, 5, -2]])
def test_labels_make_every_row_of_a_group_a_positive(labels):
    x, y = embeddings(6, 4)
    value = float(info_nce(x, y, temperature=0.2, positives=torch.tensor(labels)))
    assert value == pytest.approx(slow_labelled(x, y, labels, 0.2), rel=1e-12)


@pytest.mark.usefixtures("form")
def test_labels_of_their_own_for_every_problem():
    x, y = embeddings(2, 6, 4)
    labels = torch.tensor([[0, 1, 0, 1, 2, 2], [5, 5, 5, 5, 5, 3]])
    values = info_nce(x, y, temperature=0.2, positives=labels)
    for i in range(2):
        expected = slow_labelled(x[i], y[i], labels[i].tolist(), 0.2)
        assert float(values[i]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.usefixtures("form")
def test_a_label_is_needed_for_every_row():
    x, y = embeddings(6, 4)
    with pytest.raises(
        ShapeError, match=r"positives has shape \[5\] but a side \[6, 4\]; needed one integer label"
    ):
        info_nce(x, y, temperature=0.2, positives=torch.zeros(5, dtype=torch.long))


@pytest.mark.usefixtures("form")
def test_a_temperature_is_learned_one_for_all_or_one_for_each_problem():
    x, y = embeddings(2, 5, 3)
    for shape in ((), (2,)):
        temperature = torch.full(shape, 0.3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda t: info_nce(x, y, temperature=t), (temperature,))


def plain(x, y, temperature, positives=None):
    """The loss as it is usually written: unit vectors, logits, cross entropies."""
    logits = F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).mT / temperature
    labels = torch.arange(len(x)) if positives is None else positives
    same = (labels[:, None] == labels).to(logits.dtype)
    target = same / same.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("batch", [1, 2, 3, 65, 130])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-11)])
def test_tiles_give_the_plain_loss_and_its_gradients(dtype, bound, batch, labelled, monkeypatch):
    monkeypatch.setattr(losses, "_DENSE", 0)
    monkeypatch.setattr(blockwise, "_TILE", 1000)
    monkeypatch.setattr(blockwise, "_KEPT", 0)
    x, y = (z.to(dtype).requires_grad_() for z in embeddings(batch, 8))
    temperature = torch.tensor(0.05, dtype=dtype, requires_grad=True)
    labels = torch.arange(batch) % 5 if labelled else None
    ours = info_nce(x, y, temperature=temperature, positives=labels)
    exact = plain(x.double(), y.double(), temperature.double(), labels)
    assert float(ours.detach()) == pytest.approx(float(exact.detach()), rel=bound, abs=bound)
    wanted = (x, y, temperature)
    # A gradient that all but vanishes is a difference of terms as large as these.
    terms = 1 / batch, 1 / batch, 0.05 / 0.05**2
    gradients = torch.autograd.grad(ours, wanted), torch.autograd.grad(exact, wanted), terms
    for found, expected, term in zip(*gradients, strict=True):
        scale = max(float(expected.abs().max()), term)
        assert float((found - expected).abs().max()) < bound * scale


def linear_problem(batch, x_features, y_features, width, *problems, dtype=torch.float64):
    g = torch.Generator().manual_seed(batch)

    def draw(*shape):
        return torch.randn(*problems, *shape, generator=g, dtype=torch.float64).to(dtype)

    sides = []
    for features in (x_features, y_features):
        weight, bias = draw(features, width).requires_grad_(), draw(width).requires_grad_()
        sides.append((draw(batch, features), LinearMap(weight, bias)))
    return sides


def assert_linear_is_plain(sides, bound, positives=None):
    (x, x_map), (y, y_map) = sides
    temperature = torch.tensor(0.05, dtype=x.dtype, requires_grad=True)
    wanted = [*x_map, *y_map, temperature, *(z for z in (x, y) if z.requires_grad)]
    ours = linear_info_nce(x, y, x_map, y_map, temperature=temperature, positives=positives)
    x_embedding, y_embedding = (
        z.double() @ weight.double() + bias.double()[..., None, :]
        for z, (weight, bias) in ((x, x_map), (y, y_map))
    )
    exact = info_nce(x_embedding, y_embedding, temperature=temperature, positives=positives)
    torch.testing.assert_close(ours.double(), exact.double(), rtol=bound, atol=bound)
    for found, expected in zip(
        torch.autograd.grad(ours.sum(), wanted),
        torch.autograd.grad(exact.sum(), wanted),
        strict=True,
    ):
        assert float((found - expected).abs().max()) < bound * float(expected.abs().max())


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("problems", [(), (3,)], ids=str)
@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("features", [(7, 4), (4, 7)], ids=str)
@pytest.mark.parametrize("factored", [False, True])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_linear_maps_in_either_form_give_the_loss_of_their_embeddings(
    dtype, bound, factored, features, labelled, problems, monkeypatch
):
    monkeypatch.setattr(losses, "_factored_is_cheaper", lambda *_: factored)
    monkeypatch.setattr(losses, "_ROWS", 16)
    labels = torch.arange(50) % 5 if labelled else None
    assert_linear_is_plain(linear_problem(50, *features, 20, *problems, dtype=dtype), bound, labels)


def test_features_that_are_trained_themselves_get_their_gradient(monkeypatch):
    monkeypatch.setattr(losses, "_factored_is_cheaper", lambda *_: True)
    sides = linear_problem(30, 7, 4, 20)
    sides[1][0].requires_grad_()
    assert_linear_is_plain(sides, 1e-10)


def test_the_form_is_the_one_with_fewer_operations(monkeypatch):
    monkeypatch.setattr(losses, "_DENSE", 0)
    made = []
    inner = losses.log_partitions
    monkeypatch.setattr(
        losses, "log_partitions", lambda left, *a, **k: made.append(left) or inner(left, *a, **k)
    )
    for batch, features, width in ((600, 20, 300), (40, 250, 300), (600, 300, 20)):
        (x, x_map), (y, y_map) = linear_problem(batch, features, features, width)
        linear_info_nce(x, y, x_map, y_map, temperature=0.1)
    assert [z.shape[-1] for z in made] == [21, 300, 20]


@pytest.mark.usefixtures("form")
def test_a_map_to_zero_has_cosines_of_zero(monkeypatch):
    monkeypatch.setattr(losses, "_factored_is_cheaper", lambda *_: True)
    (x, x_map), (y, _) = linear_problem(30, 7, 4, 20)
    zero = LinearMap(*(torch.zeros(*shape).double().requires_grad_() for shape in ((4, 20), (20,))))
    loss = linear_info_nce(x, y, x_map, zero, temperature=0.1)
    assert float(loss.detach()) == pytest.approx(math.log(30))
    for gradient in torch.autograd.grad(loss, [*x_map, *zero]):
        assert bool(torch.isfinite(gradient).all())


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(DegenerateError, match=r"the temperature is 0.0; needed a number above 0"):
        info_nce(*embeddings(6, 4), temperature=0.0)


@pytest.mark.usefixtures("form")
def test_half_precision_gives_a_float32_loss_near_the_exact_one():
    x, y = embeddings(200, 32)
    exact = float(info_nce(x, y, temperature=0.1))
    for dtype in (torch.bfloat16, torch.float16):
        loss = info_nce(x.to(dtype), y.to(dtype), temperature=0.1)
        assert loss.dtype == torch.float32
        assert float(loss) == pytest.approx(exact, rel=2e-3)
        with torch.autocast("cpu", dtype=dtype):
            under = info_nce(x.float(), y.float(), temperature=0.1)
        assert float(under) == pytest.approx(exact, rel=1e-6)
