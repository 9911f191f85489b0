import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mirror_analysis.alignment import info_nce
from mirror_analysis.alignment.gathering import gather, global_info_nce, world

PROCESSES = 2
CASES = {
    "own rows": (torch.float64, False),
    "labels": (torch.float64, True),
    "float32": (torch.float32, False),
}
PROGRAM = """
import sys
import torch
from torch import distributed
import test_gathering as test
from mirror_analysis.alignment.gathering import gather, global_info_nce, world
from mirror_analysis.errors import ShapeError

rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=size)
found = {"world": tuple(world()), "gathered": gather(torch.arange(3) + 10 * rank)}
try:
    gather(torch.zeros(3 + rank, 2))
except ShapeError as error:
    found["uneven"] = str(error)
for name, case in test.CASES.items():
    x, y, labels, parameters = test.problem(*case)
    own = slice(rank * len(x) // size, (rank + 1) * len(x) // size)
    own_labels = None if labels is None else labels[own]
    loss = test.loss_of(global_info_nce, x[own], y[own], own_labels, parameters)
    gradients = torch.autograd.grad(loss, parameters)
    for gradient in gradients:
        distributed.all_reduce(gradient)
    found[name] = [loss.detach(), *(gradient / size for gradient in gradients)]
torch.save(found, f"{folder}/{rank}.pt")
distributed.destroy_process_group()
"""


def problem(dtype, labelled):
    """Features of the whole batch, its labels, two maps and a temperature."""
    g = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)

    x, y = draw(14, 5), draw(14, 4)
    parameters = [draw(5, 6), draw(4, 6), torch.tensor(0.2, dtype=dtype)]
    labels = torch.tensor([4, 0, 1, 1, 4, 2, 0, 0, 1, 3, 3, 3, 4, 5]) if labelled else None
    return x, y, labels, [parameter.requires_grad_() for parameter in parameters]


def loss_of(function, x, y, labels, parameters):
    x_map, y_map, temperature = parameters
    return function(x @ x_map, y @ y_map, temperature=temperature, positives=labels)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of two processes saw."""
    folder = tmp_path_factory.mktemp("processes")
    here = Path(__file__).parent
    paths = [str(here), str(here.parents[1]), os.environ.get("PYTHONPATH", "")]
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROGRAM, str(rank), str(PROCESSES), str(folder)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(PROCESSES)
    ]
    try:
        for process in started:
            _, errors = process.communicate(timeout=600)
            assert process.returncode == 0, errors
    finally:
        for process in started:  # a process whose partner has failed waits for it
            process.kill()
            process.communicate()
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


def test_a_process_knows_its_rank_and_has_the_rows_of_all(found):
    for rank, seen in enumerate(found):
        assert seen["world"] == (rank, PROCESSES)
        assert seen["gathered"].tolist() == [0, 1, 2, 10, 11, 12]


@pytest.mark.parametrize("name", CASES)
def test_the_averaged_gradient_is_that_of_one_process_with_the_whole_batch(name, found):
    x, y, labels, parameters = problem(*CASES[name])
    loss = loss_of(info_nce, x, y, labels, parameters)
    expected = [loss.detach(), *torch.autograd.grad(loss, parameters)]
    bound = 1e-12 if x.dtype == torch.float64 else 1e-6
    for seen in found:
        for ours, theirs in zip(seen[name], expected, strict=True):
            assert float((ours - theirs).abs().max()) < bound * float(theirs.abs().max())


def test_uneven_batches_are_refused_by_every_process(found):
    for seen in found:
        assert seen["uneven"] == (
            "the 2 processes hold shapes [3, 2], [4, 2]; needed equal ones, so drop the last rows"
            " of the larger"
        )


def test_a_process_alone_is_the_whole_world():
    assert tuple(world()) == (0, 1)
    x, y, labels, parameters = problem(torch.float64, True)
    assert gather(x) is x
    whole = loss_of(info_nce, x, y, labels, parameters)
    assert float((loss_of(global_info_nce, x, y, labels, parameters) - whole).detach()) == 0
