"""The page on extending is true: its code runs and keeps the contract."""

import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from mirror_analysis.errors import UnknownNameError
from mirror_analysis.models import families, load_model
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.testing import check_model

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"


@pytest.fixture
def shown(monkeypatch):
    """The family of the page, entered in the table."""
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
    module = ModuleType("two_layer")
    exec(compile(code, str(PAGE), "exec"), module.__dict__)
    monkeypatch.setitem(families.FAMILIES, "two-layer", "two_layer")
    monkeypatch.setitem(__import__("sys").modules, "two_layer", module)
    return module


@pytest.fixture
def file(tmp_path):
    g = np.random.default_rng(0)
    shapes = {"w0": (5, 3), "b0": (5,), "w1": (2, 5), "b1": (2,)}
    path = tmp_path / "policy.zip"  # a name that lies
    with path.open("wb") as out:
        np.savez(out, **{name: g.standard_normal(shape) for name, shape in shapes.items()})
    return path


def test_the_family_of_the_page_is_recognised_loaded_and_sound(shown, file):
    model = load_model(file)
    assert model.facts["family"] == "two-layer"
    check_model(model)
    with np.load(file) as a:
        states = np.ones((4, 3), dtype=np.float32)
        expected = np.tanh(states @ a["w0"].T + a["b0"]) @ a["w1"].T + a["b1"]
    np.testing.assert_allclose(model.act({"states": states}), expected, rtol=1e-5, atol=1e-6)


def test_its_option_is_checked(shown, file):
    assert load_model(file, options={"activation": "ReLU"}).settings == {"activation": "ReLU"}
    with pytest.raises(UnknownNameError, match="unknown value of option activation 'Relu'"):
        shown.load(Checkpoint(file), name="x", options=Options(values={"activation": "Relu"}))


def test_it_takes_no_more_lines_than_it_says():
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 40
