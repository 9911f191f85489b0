"""Imports point down, heavy packages wait until they are needed, modules stay readable."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import mirror_analysis

PACKAGE = Path(mirror_analysis.__file__).parent

# Low to high; a module imports from its own part and from lower lines, never from its own line.
ORDER = (
    {"errors", "lazy", "notebook", "torchvision_shim", "writing"},
    {"provenance"},
    {"results"},
    {"definitions"},
    {"training_definitions"},
    {"files"},
    {"catalog", "features", "matrices", "parallel"},
    {"hub"},
    {"store"},
    {"inference"},
    {"episodes", "models", "similarity", "information"},
    {"comparison", "streams"},
    {"extraction", "alignment", "playing", "training"},
    {"controls", "recognition", "environments", "rollout", "mirroring"},
    {"probing"},
    {"generalisation"},
    {"reporting"},
    {"study"},
    {"audit"},
    {"cli", "testing"},
)
LEVEL = {part: level for level, line in enumerate(ORDER) for part in line}
REPORTING_SEES = {
    "reporting",
    "notebook",
    "lazy",
    "results",
    "catalog",
    "definitions",
    "training_definitions",
    "errors",
    "provenance",
    "writing",
}
HEAVY = {"torch", "pandas", "matplotlib", "mujoco", "umap", "sklearn", "numba"}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "_catalog" not in path.parts)


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_parts(source: str, package: tuple[str, ...]) -> set[str]:
    """Parts of the package that a module imports, anywhere in it."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names += [f"{stem}.{alias.name}" for alias in node.names]
    split = [name.split(".") for name in names]
    return {words[1] for words in split if words[0] == "mirror_analysis" and len(words) > 1}


def forbidden(part: str, imported: set[str]) -> set[str]:
    if part == "reporting":
        return imported - REPORTING_SEES
    return {other for other in imported if other != part and LEVEL[other] >= LEVEL[part]}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    part = part_of(path)
    if part == "__init__":
        pytest.skip("the lazy table may name everything")
    package = ("mirror_analysis", *path.relative_to(PACKAGE).parent.parts)
    # `from mirror_analysis import __version__` and public names are not parts.
    imported = imported_parts(path.read_text(encoding="utf-8"), package) - {"__version__"}
    unknown = ({part} | imported) - LEVEL.keys()
    assert not unknown, f"{sorted(unknown)} have no place in ORDER, or are not modules"
    wrong = forbidden(part, imported)
    assert not wrong, f"{path.name} may not import {sorted(wrong)}"


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("import mirror_analysis.cli", {"cli"}),
        ("from mirror_analysis.similarity.cka import linear_cka", {"similarity"}),
        ("from mirror_analysis import features, store", {"features", "store"}),
        ("def f():\n    from mirror_analysis.study import run_study", {"study"}),
        ("from ..models import hooks", {"models"}),
        ("from . import grid", {"similarity"}),
        ("import torch, numpy.linalg", set()),
    ],
)
def test_imported_parts_are_found(source, parts):
    assert imported_parts(source, ("mirror_analysis", "similarity")) == parts


def test_upward_and_sideways_imports_are_forbidden():
    assert forbidden("similarity", {"inference", "similarity", "results"}) == set()
    assert forbidden("inference", {"similarity"}) == {"similarity"}
    assert forbidden("episodes", {"models"}) == {"models"}
    assert forbidden("reporting", {"results", "features"}) == {"features"}


def loaded_by(*arguments: str) -> set[str]:
    code = (
        "import runpy, sys\n"
        "try:\n"
        "    exec(sys.argv.pop(1))\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "print('|'.join(['', *sorted(sys.modules)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split("|"))


PACKAGES = sorted({path.parent.name for path in MODULES if path.parent != PACKAGE})


def test_importing_loads_nothing_heavy():
    tops = [p for p in PACKAGES if (PACKAGE / p / "__init__.py").is_file()]
    lines = "\n".join(f"import mirror_analysis.{name}" for name in ["catalog", *tops])
    modules = loaded_by(f"import mirror_analysis\n{lines}")
    assert "mirror_analysis.catalog" in modules
    assert not modules & HEAVY


def test_help_loads_nothing_heavy():
    modules = loaded_by("from mirror_analysis.cli import main; main()", "--help")
    assert "mirror_analysis.cli" in modules
    assert not modules & HEAVY


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_have_an_idea_and_a_size(path):
    assert path.stem not in {"utils", "common", "core", "helpers", "manager"}
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 400, f"{path.name} has {lines} lines; divide it by idea"


def test_public_names_are_there():
    for name in mirror_analysis._PUBLIC:
        assert getattr(mirror_analysis, name).__name__ == name
    assert set(mirror_analysis.__all__) <= set(dir(mirror_analysis))
    with pytest.raises(AttributeError, match=r"has no attribute 'compair'"):
        _ = mirror_analysis.compair


@pytest.mark.parametrize(
    "path", [p for p in MODULES if p.name == "__init__.py"], ids=lambda p: p.parent.name
)
def test_no_public_name_is_that_of_a_module_beside_it(path):
    # Importing the module would put it where the public name was.
    package = ".".join(path.relative_to(PACKAGE.parent).parent.parts)
    public = getattr(importlib.import_module(package), "_PUBLIC", {})
    beside = {p.stem for p in path.parent.iterdir() if p.suffix == ".py" or p.is_dir()}
    assert not set(public) & beside
    for name in public:
        assert not isinstance(getattr(importlib.import_module(package), name), type(sys)), (
            f"{package}.{name} is a module"
        )
