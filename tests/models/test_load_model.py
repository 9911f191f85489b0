import shutil

import pytest
import torch

from mirror_analysis.errors import (
    ChecksumError,
    DefinitionError,
    DeviceError,
    FormatError,
    MissingFileError,
    UnknownNameError,
)
from mirror_analysis.models import load_model
from mirror_analysis.models.families import FAMILIES, family
from mirror_analysis.models.model import ExecutionModel
from mirror_analysis.models.reference.family import ReferenceExecution, save
from mirror_analysis.models.reference.networks import ExecutionNetwork
from mirror_analysis.provenance import sha256_file

DEFINITION = """
name = "{name}"
summary = "A small policy."
role = "execution"
family = "reference"
file = "weights/{name}.safetensors"
sha256 = "{sha256}"
size_bytes = {size}
parameters = 7
seed = 0
license = "Apache-2.0"
source = "mirror train execution"
trained = 2026-11-05
commit = ""
data = "0f"
layers = ["conv1", "vision"]
inputs = ["camera:B", "states"]
camera = "B"

[metrics]
success_rate = 0.9
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A file of weights, and the model in it."""
    torch.manual_seed(0)
    model = ReferenceExecution(ExecutionNetwork().eval(), name="made", camera="B")
    path = tmp_path_factory.mktemp("made") / "policy.safetensors"
    save(model, path, provenance={})
    return path, model


@pytest.fixture
def own(tmp_path, made):
    """A catalogue of two policies, one of them with a dot in its name."""
    path, _ = made
    (tmp_path / "checkpoints" / "weights").mkdir(parents=True)
    for name in ("tiny-s0", "tiny-1.5"):
        shutil.copy(path, tmp_path / "checkpoints" / "weights" / f"{name}.safetensors")
        text = DEFINITION.format(name=name, sha256=sha256_file(path), size=path.stat().st_size)
        (tmp_path / "checkpoints" / f"{name}.toml").write_text(text)
    return tmp_path


@pytest.mark.parametrize("name", ["tiny-s0", "tiny-1.5"])
def test_a_name_of_the_catalogue(own, made, name):
    model = load_model(name, include=[own])
    assert isinstance(model, ExecutionModel)
    assert model.name == name
    assert model.weights_sha256 == made[1].weights_sha256


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_a_file_is_called_by_its_stem(made, kind):
    path, given = made
    model = load_model(kind(path))
    assert model.name == "policy"
    assert model.weights_sha256 == given.weights_sha256
    assert model.device.type == "cpu"


def test_a_file_beside_goes_before_a_name_but_a_folder_does_not(own, monkeypatch):
    monkeypatch.chdir(own)
    (own / "tiny-s0").mkdir()
    assert load_model("tiny-s0", include=[own]).name == "tiny-s0"
    (own / "tiny-s0").rmdir()
    (own / "tiny-s0").write_bytes(b"garbage")
    with pytest.raises(
        FormatError, match=r"tiny-s0 \(its bytes: \w+\) is of no known family; known"
    ):
        load_model("tiny-s0", include=[own])


def test_what_is_not_there_is_refused_as_what_it_looks_like(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    words = r"unknown checkpoint 'tiny-s1'; did you mean 'tiny-s0'\? \(known: .*tiny-1\.5, tiny-s0"
    with pytest.raises(UnknownNameError, match=words):
        load_model("tiny-s1", include=[own])
    for source in ("runs/policy", "policy.safetensors", str(tmp_path / "policy")):
        with pytest.raises(MissingFileError, match=f"no checkpoint at {source}; give a file or"):
            load_model(source, include=[own])
    words = r"\(a folder with checkpoints, runs\) is of no known family; known are "
    with pytest.raises(FormatError, match=words):
        load_model(own)


def test_changed_weights_of_the_catalogue_are_refused(own):
    weights = own / "checkpoints" / "weights" / "tiny-s0.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(ChecksumError, match=r"tiny-s0\.safetensors has sha256 \w{64} but"):
        load_model("tiny-s0", include=[own])


def test_a_device_that_is_not_there_is_refused_before_anything_is_read():
    with pytest.raises(DeviceError, match="device 'cuda:99' was asked for but is not there"):
        load_model("no-such-checkpoint", device="cuda:99")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_model_is_put_where_it_is_asked_for(made):
    assert load_model(made[0], device="cuda").device.type == "cuda"


@pytest.mark.parametrize("name", FAMILIES)
def test_families_say_what_they_read_and_which_options_they_take(name):
    module = family(name)
    assert module.SUMMARY and all(module.OPTIONS.values())
    assert callable(module.recognise) and callable(module.load)


def test_families_and_options_that_there_are_not_are_refused(made):
    with pytest.raises(UnknownNameError, match="unknown family of checkpoints 'referense'; did"):
        load_model(made[0], family="referense")
    with pytest.raises(UnknownNameError, match="unknown option of reference 'frames'"):
        load_model(made[0], options={"frames": "3"})
    with pytest.raises(DefinitionError, match="'third' does not say which call of a layer counts"):
        load_model(made[0], calls="third")


def test_the_package_gives_its_public_names_and_no_others():
    import mirror_analysis.models as models

    for name in models.__all__:
        assert getattr(models, name) is not None
    with pytest.raises(
        AttributeError, match=r"'mirror_analysis\.models' has no attribute 'nosuch'"
    ):
        _ = models.nosuch


def test_families_of_the_catalogue_are_families_that_there_are():
    from mirror_analysis import catalog

    known = catalog.definitions("checkpoints")
    assert len(known) > 50 and {made.family for made in known.values()} <= set(FAMILIES)
