from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from mirror_analysis.errors import DegenerateError, UnknownNameError
from mirror_analysis.similarity import DEFAULT, MEASURES, load_measure
from mirror_analysis.similarity.cka import LinearCKA
from mirror_analysis.similarity.measures import Layer, Measure
from mirror_analysis.similarity.neighbors.aligned import CKNNA
from mirror_analysis.similarity.neighbors.sets import MutualKNN
from mirror_analysis.testing import check_measure


@pytest.mark.parametrize(
    "measure",
    [
        *MEASURES,
        LinearCKA(debiased=False),
        MutualKNN(5, centred=True),
        CKNNA(8, "elementwise", centred=True),
    ],
    ids=str,
)
def test_every_measure_keeps_the_contract(measure):
    check_measure(measure)


def test_the_table_is_sorted_and_names_what_it_loads():
    assert list(MEASURES) == sorted(MEASURES)
    assert set(DEFAULT) <= set(MEASURES)
    for name in MEASURES:
        assert load_measure(name).name == name
    with pytest.raises(UnknownNameError, match="unknown measure 'cka'"):
        load_measure("cka")


def test_what_is_derived_from_a_layer_is_made_once():
    layer = Layer("l", torch.arange(6.0, dtype=torch.float64).reshape(3, 2))
    made = []
    for _ in range(2):
        assert layer.derive("key", lambda: made.append(1) or "value") == "value"
    assert made == [1]
    assert float(layer.centred.abs().sum()) == 8


@dataclass(frozen=True)
class Cosine(Measure):
    """Cosine of the flattened layers cut to a common width: a measure easy to break."""

    name: ClassVar[str] = "cosine"
    lowest: ClassVar[float] = -1.0
    invariances: ClassVar[frozenset] = frozenset({"scale"})

    def prepare(self, layer):
        if len(layer) < 3 or not layer.centred.any():
            raise DegenerateError("too little")
        squares = layer.centred.square().sum(1)
        return (squares - squares.mean()) / (squares - squares.mean()).norm()

    def values(self, x, y):
        return torch.stack([torch.stack([a @ b for b in y]) for a in x])

    def null(self, x, y, permutations):
        return torch.stack([self.values(x, [b[p] for b in y]) for p in permutations])


def test_a_plug_in_that_keeps_the_contract_passes():
    check_measure(Cosine())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lowest": 0.9}, r"declares the range \[0.9, 1.0\]"),
        ({"invariances": frozenset({"linear"})}, "declares invariance to linear"),
        ({"chance": lambda self, samples: 0.5}, "declares chance 0.5 but the null mean is"),
        ({"null": lambda self, x, y, p: torch.zeros(len(p), 1)}, r"null has shape \(200, 1\)"),
        ({"null": lambda self, x, y, p: torch.zeros(len(p), 1, 1)}, "declares null of permuted"),
        ({"prepare": lambda self, layer: layer.centred.square().sum(1)}, "declares"),
        ({"values": lambda self, x, y: -Cosine.values(self, x, y)}, "with itself is -"),
        (
            {"values": lambda self, x, y: Cosine.values(self, x, y) * (1 + x[0][0])},
            "declares symmetry but",
        ),
        ({"values": lambda self, x, y: torch.full((1, 1), 0.5)}, "not above 0.5 with another"),
    ],
)
def test_a_plug_in_that_breaks_it_is_told_how(change, message):
    with pytest.raises(AssertionError, match=message):
        check_measure(type("Broken", (Cosine,), change)())


def test_a_plug_in_that_scores_a_constant_layer_is_refused():
    def prepare(self, layer):
        try:
            return Cosine.prepare(self, layer)
        except DegenerateError:
            return torch.zeros(len(layer), dtype=torch.float64)

    with pytest.raises(AssertionError, match=r"gave 0.0 for a constant layer; needed a Degen"):
        check_measure(type("Lenient", (Cosine,), {"prepare": prepare})())
