"""The kernels on a GPU where there is one, otherwise by Triton's interpreter, in its own process.

Triton reads its mode where it is imported, and others may have imported it before.
"""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch

from mirror_analysis.alignment import blockwise, info_nce, losses

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
installed = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)


@pytest.fixture
def kernels(monkeypatch):
    if not ON_GPU and not INTERPRETED:
        pytest.skip("no CUDA device; run by the interpreter in a process of its own")
    from mirror_analysis.alignment import triton_kernels

    if not ON_GPU:
        for name, size in (("_ROW_TILE", 32), ("_COLUMN_TILE", 16), ("_RANK_TILE", 16)):
            monkeypatch.setattr(triton_kernels, name, size)
    return triton_kernels


@installed
@pytest.mark.skipif(ON_GPU or INTERPRETED, reason="the tests below run here")
def test_the_interpreter_runs_the_tests_below():
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", __file__],
        env=environment | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert found.returncode == 0, found.stdout[-4000:] + found.stderr[-2000:]
    assert " passed" in found.stdout or "[100%]" in found.stdout


def factors(dtype, rows, columns, rank, *problems, spread=1.0):
    g = torch.Generator().manual_seed(rows)

    def draw(*shape):
        return torch.randn(*problems, *shape, generator=g)

    # No scale so near 0 that the gradient by it is a small difference.
    scales = draw(rows).abs() + 0.5, draw(columns).abs() + 0.5
    made = (draw(rows, rank) * spread / rank**0.5).to(dtype), draw(columns, rank).to(dtype), *scales
    return tuple(z.to(DEVICE).requires_grad_() for z in made)


def dense(inputs, weights):
    left, right, left_scale, right_scale = (z.double() for z in inputs)
    logits = left_scale[..., :, None] * (left @ right.mT) * right_scale[..., None, :]
    sums = logits.logsumexp(dim=-1), logits.logsumexp(dim=-2)
    total = sum((w * z).sum() for w, z in zip(weights, sums, strict=True))
    return *sums, *torch.autograd.grad(total, inputs)


CASES = {
    "one tile": (5, 7, 3),  # and one launch; the others take one for every tile of rows
    "odd": (150, 140, 70) if ON_GPU else (70, 50, 35),
    "problems": (40, 35, 20, 2),
}
BOUNDS = {torch.float32: (1e-5, 1e-5), torch.float16: (1e-5, 2e-3)}
if ON_GPU:  # the interpreter multiplies the bits of bfloat16
    BOUNDS[torch.bfloat16] = (1e-5, 2e-2)


@installed
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
def test_kernels_give_the_dense_sums_and_gradients(dtype, case, kernels, monkeypatch):
    if case != "one tile":
        monkeypatch.setattr(kernels, "_STRIP", 1)
    for spread in (1.0, 100.0):
        inputs = factors(dtype, *CASES[case], spread=spread)
        # As small as those of a large batch: float16 must not lose them.
        weights = [torch.rand_like(scale) / 1e5 for scale in inputs[2:]]
        expected = dense(inputs, weights)
        given = [z.detach() for z in inputs]
        bounds = [spread * BOUNDS[dtype][0]] * 2 + [
            max(BOUNDS[dtype][1], spread * BOUNDS[torch.float32][1])
        ] * 4
        product = kernels.TritonProduct(*given)
        sums = product.log_partitions()
        pairs = [(z, w.reshape(z.shape)) for z, w in zip(sums, weights, strict=True)]
        for needed in ((True, True, True, True), (True, False, True, True)):
            found = (
                *(z.view_as(w) for z, w in zip(sums, weights, strict=True)),
                *product.gradients(*pairs, needed),
            )
            for ours, theirs, bound, asked in zip(
                found, expected, bounds, (True, True, *needed), strict=True
            ):
                assert (ours is not None) == asked
                if ours is not None:
                    worst = float((ours.detach() - theirs.detach()).abs().max())
                    limits = torch.finfo(ours.dtype)
                    rounding = limits.tiny * limits.eps
                    assert worst <= bound * float(theirs.detach().abs().max()) + rounding


@installed
def test_the_loss_runs_through_the_kernels(kernels, monkeypatch):
    monkeypatch.setattr(losses, "_DENSE", 0)
    x, y, *_ = factors(torch.float32, 50, 50, 20)
    expected = info_nce(x.double(), y.double(), temperature=0.05)
    of_expected = torch.autograd.grad(expected, (x, y))
    if not ON_GPU:
        monkeypatch.setattr(blockwise, "_product", lambda *z, kept=None: kernels.TritonProduct(*z))
    loss = info_nce(x, y, temperature=0.05)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    for ours, theirs in zip(torch.autograd.grad(loss, (x, y)), of_expected, strict=True):
        assert float((ours - theirs).abs().max()) < 1e-5 * float(theirs.abs().max())


@installed
@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="no CUDA device")
def test_tensors_on_a_gpu_take_the_kernels_and_little_memory(kernels):
    x, y = (torch.randn(2**15, 256, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    assert isinstance(blockwise._product(x, y, x[:, 0], y[:, 0]), kernels.TritonProduct)
    x.requires_grad_()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    info_nce(x, y, temperature=0.1).backward()
    assert torch.cuda.max_memory_allocated() - before < 2**15 * 2**15
