import numpy as np
import oracles
import pytest
import torch

from mirror_analysis.errors import DegenerateError, DeviceError, ShapeError
from mirror_analysis.inference import jackknife_interval
from mirror_analysis.similarity import linear_cka, streaming
from mirror_analysis.similarity.grid import grid
from mirror_analysis.similarity.streaming import stream_linear_cka


def data(seed=0, n=240, d=7, e=5):
    g = np.random.default_rng(seed)
    x = g.standard_normal((n, d)) * np.linspace(2, 0.3, d)
    return x, x[:, :1] + g.standard_normal((n, e))


def batches(x, y, *sizes):
    """Batches of these sizes, the last again and again."""
    start, number = 0, 0
    while start < len(x):
        size = sizes[min(number, len(sizes) - 1)]
        yield x[start : start + size], y[start : start + size]
        start, number = start + size, number + 1


@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize("sizes", [(240,), (1,), (2, 1, 50), (7,), (100,), (239, 1)])
def test_batches_do_not_matter(sizes, debiased):
    x, y = data()
    found = stream_linear_cka(batches(x, y, *sizes), debiased=debiased, folds=0)
    assert found.value == pytest.approx(linear_cka(x, y, debiased=debiased), abs=1e-11)
    assert (found.n, found.parameters, found.measure) == (240, {"debiased": debiased}, "linear_cka")
    assert found.interval is None


@pytest.mark.parametrize("shape", [(60, 200, 90), (60, 1, 1), (5, 2, 9)])
def test_wide_and_narrow_layers(shape):
    x, y = data(1, *shape)
    found = stream_linear_cka(batches(x, y, 7), folds=0)
    assert found.value == pytest.approx(linear_cka(x, y), abs=1e-10)


def test_the_published_value():
    found = stream_linear_cka(batches(*oracles.pair(1000, d=96, e=64, r=16), 90), folds=0)
    assert found.value == pytest.approx(linear_cka(*oracles.pair(1000, d=96, e=64, r=16)), abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "close"),
    [(torch.float16, 2e-6), (torch.bfloat16, 2e-6), (torch.float32, 1e-6), (torch.float64, 1e-12)],
)
@pytest.mark.parametrize("offset", [0, 1000])
def test_any_precision_and_offset(kind, close, offset):
    x, y = (torch.tensor(z).to(kind) for z in data(2))
    moved = x.to(kind if kind == torch.float64 else torch.float32) + offset
    found = stream_linear_cka(batches(moved, y, 32), folds=0).value
    assert found == pytest.approx(linear_cka(moved, y), abs=close)
    assert stream_linear_cka(batches(x, y.double(), 32), folds=0).value == pytest.approx(
        linear_cka(x, y), abs=close
    )


def test_batches_of_different_precision():
    x, y = data(3)
    x += 1000
    mixed = [
        (a.astype(np.float32) if i % 2 else a, b) for i, (a, b) in enumerate(batches(x, y, 40))
    ]
    assert stream_linear_cka(mixed).value == pytest.approx(linear_cka(x, y), abs=1e-6)


@pytest.mark.parametrize("scale", [1e-160, 1e-30, 1e30, 1e150])
def test_size_of_the_features_is_no_matter(scale):
    x, y = data(4)
    found = stream_linear_cka(batches(x * scale, y, 32), folds=4)
    expected = stream_linear_cka(batches(x, y, 32), folds=4)
    assert found.value == pytest.approx(expected.value, abs=1e-9)
    assert found.interval.low == pytest.approx(expected.interval.low, abs=1e-9)
    assert found.p_value == pytest.approx(expected.p_value, rel=1e-6)


@pytest.mark.parametrize("debiased", [True, False])
def test_the_interval_is_without_the_batches_of_each_fold(debiased):
    x, y = data(5)
    sizes = (30, 20, 41)
    found = stream_linear_cka(batches(x, y, *sizes), debiased=debiased, folds=3)
    fold = np.concatenate(
        [np.full(len(a), i % 3) for i, (a, _) in enumerate(batches(x, y, *sizes))]
    )
    without = [linear_cka(x[fold != k], y[fold != k], debiased=debiased) for k in range(3)]
    expected = jackknife_interval(found.value, without)
    assert found.interval.low == pytest.approx(expected.low, abs=1e-10)
    assert found.interval.high == pytest.approx(expected.high, abs=1e-10)


def test_a_rest_without_a_value_gives_no_interval():
    x, y = data(6, n=103)
    found = stream_linear_cka([(x[:100], y[:100]), (x[100:], y[100:])])  # 3 rows left
    assert found.value == pytest.approx(linear_cka(x, y), abs=1e-11)
    assert found.interval is None
    one = np.zeros((60, 2))
    one[:20, 0] = np.arange(20)
    found = stream_linear_cka(batches(one, y[:60], 20))  # constant without the first batch
    assert found.value is not None and found.interval is None


def test_null_and_p_are_those_of_the_grid():
    for related in (0.0, 0.02):
        g = np.random.default_rng(7)
        x = g.standard_normal((3000, 8)) * np.linspace(3, 0.2, 8)
        y = related * x[:, :5] + g.standard_normal((3000, 5)) ** 3
        found = stream_linear_cka(batches(x, y, 256), folds=0)
        (cell,) = grid({"": x}, {"": y}, measures=["linear_cka"], folds=0, null="moments").scores
        assert found.null.mean == 0 and found.null.draws == 0
        assert found.null.sd == pytest.approx(cell.null.sd, rel=1e-9)
        assert found.p_value == pytest.approx(cell.p_value, abs=0.02)
    biased = stream_linear_cka(batches(x, y, 256), debiased=False)
    assert biased.null is None and biased.p_value is None


def test_one_batch_has_no_interval():
    x, y = data(8)
    found = stream_linear_cka([(x, y)])
    assert found.interval is None and found.null is not None


def test_a_generator_is_read_once_and_batch_by_batch():
    alive, most = 0, 0

    class Counted(np.ndarray):
        def __del__(self):
            nonlocal alive
            alive -= 1

    def endless():
        nonlocal alive, most
        g = np.random.default_rng(9)
        for _ in range(200):
            x = g.standard_normal((50, 4))
            counted = x.view(Counted)
            alive += 1
            most = max(most, alive)
            yield counted, x[:, :2] + g.standard_normal((50, 2))
            del x, counted

    found = stream_linear_cka(endless())
    assert found.n == 10_000
    assert most <= 3


def test_says_what_is_wrong(monkeypatch):
    x, y = data(10)
    for wrong in (-1, 1):
        with pytest.raises(DegenerateError, match=f"got folds {wrong}; needed 0, or at least 2"):
            stream_linear_cka([(x, y)], folds=wrong)
    with pytest.raises(DegenerateError, match="stream_linear_cka got no batches; needed at least"):
        stream_linear_cka([])
    with pytest.raises(ShapeError, match="batch 1 has 40 rows of x and 39 of y; needed equally ma"):
        stream_linear_cka([(x[:40], y[:40]), (x[:40], y[:39])])
    with pytest.raises(ShapeError, match="batch 1 has 0 rows of x and 0 of y"):
        stream_linear_cka([(x[:40], y[:40]), (x[:0], y[:0])])
    with pytest.raises(
        ShapeError, match="batch 1 has 7 and 4 features but those before had 7 and 5"
    ):
        stream_linear_cka([(x, y), (x, y[:, :4])])
    broken = x.copy()
    broken[3] = np.nan
    with pytest.raises(
        DegenerateError, match="x of batch 2 holds NaN or infinity in 1 of 240 rows"
    ):
        stream_linear_cka([(x, y), (x, y), (broken, y)])
    with pytest.raises(ShapeError, match=r"y of batch 0 has shape \(240,\); needed \[sample, feat"):
        stream_linear_cka([(x, y[:, 0])])
    for debiased, needed in ((True, 4), (False, 3)):
        few = needed - 1
        with pytest.raises(DegenerateError, match=f"got {few} samples; needed at least {needed}"):
            stream_linear_cka([(x[:few], y[:few])], debiased=debiased)
    for constant in (np.full((240, 3), 0.1), np.full((240, 3), 0.1, np.float32) * [1, 3, 7]):
        for kind in (np.float32, np.float64):
            with pytest.raises(DegenerateError, match="y has no spread over its 240 samples"):
                stream_linear_cka(batches(x, constant.astype(kind), 7))
    original = streaming.as_matrix

    def as_matrix(values, *, name):
        return original(values, name=name).to("meta" if name.startswith("y") else "cpu")

    monkeypatch.setattr(streaming, "as_matrix", as_matrix)
    with pytest.raises(DeviceError, match="x of batch 0 is on cpu but y on meta; move one to the"):
        stream_linear_cka([(x, y)])
