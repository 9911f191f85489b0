"""TorchScript: programs that compute are loaded, those that open files are not."""

import os
import warnings
import zipfile

import pytest
import torch

from mirror_analysis.errors import FormatError, MissingFileError
from mirror_analysis.files.torchscript import check_program, load_torchscript

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Policy(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class Writes(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "ran")
        return x


class Maps(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_file("ran", True, 4)


def scripted(path, module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module).save(str(path))
    return path


def repacked(path, change):
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_a_module_is_loaded(tmp_path) -> None:
    module = Policy()
    loaded = load_torchscript(scripted(tmp_path / "x.pt", module))
    x = torch.ones(2, 3)
    assert torch.equal(loaded(x), module(x)) and not loaded.training


@pytest.mark.parametrize("module", [Writes(), Maps()], ids=["writes", "maps"])
def test_programs_that_open_files_are_refused(tmp_path, monkeypatch, module) -> None:
    monkeypatch.chdir(tmp_path)
    path = scripted(tmp_path / "x.pt", module)
    with pytest.raises(FormatError, match=r"uses .*(save|from_file).*; needed a program of plain"):
        load_torchscript(path)
    assert os.listdir(tmp_path) == ["x.pt"]


@pytest.mark.parametrize(
    ("line", "fine"),
    [
        ("_0 = torch.add(x, x)", True),
        ("_0 = ops.prim.data(x)", True),
        ("_0 = self.saved.weight", True),
        ('torch.save(x, "ran")', False),
        ('torch . \\\n  save(x, "ran")', False),
        ('x.save("ran")', False),
        ('t = torch\nt.save(x, "ran")', False),
        ("t = (torch)", False),
        ("o = ops", False),
        ('_0 = ops.image.read_file("x")', False),
        ('_0 = ops.mine.run("x")', False),
        ('_0 = ops.aten.from_file("x")', False),
        ("x = '''", False),
        ("  x\n y", False),
        ("\xff\xfe", True),
    ],
)
def test_programs_are_looked_through_word_by_word(line, fine) -> None:
    if fine:
        check_program(line.encode(), "x.py")
        return
    with pytest.raises(FormatError, match=r"x\.py (uses|is not a TorchScript program)"):
        check_program(line.encode(), "x.py")
    with pytest.raises(FormatError, match=r"x\.py is not a TorchScript program"):
        check_program(b"\xff\xfe", "x.py")


def test_lying_tensors_are_refused(tmp_path) -> None:
    path = scripted(tmp_path / "x.pt", Policy())

    def shorter(members) -> None:
        (name,) = [n for n in members if n.endswith("/data/0")]
        members[name] = members[name][:-4]

    with pytest.raises(FormatError, match=r"a storage of \d+ bytes where \d+ are there"):
        load_torchscript(repacked(path, shorter))


def test_damaged_and_other_files_are_refused(tmp_path) -> None:
    path = scripted(tmp_path / "x.pt", Policy())
    data = path.read_bytes()
    cut = tmp_path / "cut"
    for size in range(0, len(data), len(data) // 10):
        cut.write_bytes(data[:size])
        with pytest.raises(FormatError):
            load_torchscript(cut)
    torch.save({"a": torch.ones(1)}, cut)
    with pytest.raises(FormatError, match=r"is not a TorchScript file; needed one of torch\.jit"):
        load_torchscript(cut)
    with pytest.raises(MissingFileError, match="needed a TorchScript file"):
        load_torchscript(tmp_path)
    with pytest.raises(FormatError, match="needed a TorchScript file of at most 5"):
        load_torchscript(path, most=5)

    def nonsense(members) -> None:
        for name in members:
            if name.endswith(".py"):
                members[name] = b"nonsense here\n"

    with pytest.raises(FormatError, match="cannot be loaded as TorchScript"):
        load_torchscript(repacked(path, nonsense))


@pytest.mark.real_weights
def test_a_real_policy_is_loaded(shared) -> None:
    loaded = load_torchscript(shared / "weights" / "torchscript" / "g1_motion.pt")
    assert loaded(torch.zeros(1, 47)).shape == (1, 12)
