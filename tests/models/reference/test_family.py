import json

import numpy as np
import pytest
import torch
from scenes import episode, episodes

from mirror_analysis.episodes.episode import Episodes
from mirror_analysis.errors import FormatError, ShapeError
from mirror_analysis.extraction import extract
from mirror_analysis.files.safetensors import read_safetensors, write_safetensors
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.reference.family import (
    FORMAT,
    ReferenceExecution,
    ReferenceObservation,
    load,
    proprioception,
    save,
)
from mirror_analysis.models.reference.networks import ExecutionNetwork, ObservationNetwork

INSTRUCTIONS = ("push the cup", "pull the cup", "überholen")


def watcher(seed: int = 0) -> ReferenceObservation:
    torch.manual_seed(seed)
    network = ObservationNetwork(len(INSTRUCTIONS)).eval()
    return ReferenceObservation(network, name="watcher", camera="A", instructions=INSTRUCTIONS)


def actor(seed: int = 0) -> ReferenceExecution:
    torch.manual_seed(seed)
    network = ExecutionNetwork().eval()
    network.proprioception_mean.copy_(torch.linspace(-1, 1, 8))
    network.proprioception_scale.copy_(torch.linspace(0.5, 2, 8))
    return ReferenceExecution(network, name="actor", camera="B")


def output(model, data: Episodes) -> torch.Tensor:
    with torch.inference_mode():
        return model.forward_batch(list(data))


# -- layers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [watcher, actor])
@pytest.mark.parametrize("pooling", ["mean", "last", "mean/grid4"])
def test_every_layer_fires_and_is_what_it_declares(make, pooling):
    model, data = make(), episodes(3)
    features = extract(model, data, pooling=pooling)
    assert list(features) == [layer.name for layer in model.layers()] == list(model.taps())
    for layer in model.layers():
        cells = 16 if pooling == "mean/grid4" and "height" in layer.axes else 1
        assert features[layer.name].values.shape == (3, layer.width * cells)
        assert features[layer.name].values.std(axis=0).max() > 0


def test_the_last_layers_are_the_outputs():
    data = episodes(3)
    logits = extract(watcher(), data)["instruction"].values
    np.testing.assert_allclose(logits, output(watcher(), data), rtol=1e-4, atol=1e-5)
    actions = output(actor(), data)
    assert actions.shape == (3, 3, 4)
    last = extract(actor(), data, pooling="last")["action"].values
    np.testing.assert_allclose(last, actions[:, -1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("make", "camera"), [(watcher, "A"), (actor, "B")])
def test_each_model_sees_its_own_camera_alone(make, camera):
    one, blind = episodes(1), episodes(1, cameras=(camera,))
    assert f"camera:{camera}" in make().inputs
    black = {c: one[0].frames(c) if c == camera else one[0].frames(c) * 0 for c in ("A", "B")}
    torch.testing.assert_close(output(make(), episodes(1, frames=black)), output(make(), one))
    assert len(blind) == 1 and output(make(), blind).shape[0] == 1
    dark = {c: one[0].frames(c) * 0 for c in ("A", "B")}
    assert not torch.allclose(output(make(), episodes(1, frames=dark)), output(make(), one))


def test_up_to_vision_the_policy_knows_pixels_only():
    data = episodes(2)
    moved = episodes(2, states=np.full((3, 39), 0.3, np.float32))
    still, changed = extract(actor(), data), extract(actor(), moved)
    for name in ("conv1", "conv4", "vision"):
        assert np.array_equal(still[name].values, changed[name].values)
    for name in ("hidden1", "hidden2", "hidden3", "action"):
        assert np.abs(still[name].values - changed[name].values).max() > 1e-3
    assert extract(watcher(), data)["instruction"].values == pytest.approx(
        extract(watcher(), moved)["instruction"].values
    )


def test_what_is_felt_is_the_hand_now_and_before():
    states = np.arange(2 * 39, dtype=np.float32).reshape(2, 39)
    felt = proprioception(states, needed_by="nobody")
    assert felt.tolist() == [[*r[:4], *r[18:22]] for r in states.tolist()]
    # Neither objects nor the goal reach the policy.
    one = episode(0)
    other = one.states.copy()
    other[:, [*range(4, 18), *range(22, 39)]] += 1.0
    changed = output(actor(), Episodes([episode(0, states=other)]))
    torch.testing.assert_close(changed, output(actor(), Episodes([one])), rtol=0, atol=0)


def test_acting_is_the_forward_pass_of_the_moment_bounded():
    data, model = episodes(3), actor()
    with torch.no_grad():
        model.module.action.weight.mul_(40)
    planned = output(model, data)[:, 1]
    frames = np.stack([one.frames("B")[1] for one in data])
    states = np.stack([one.states[1] for one in data])
    done = model.act({"camera:B": frames, "camera:A": frames * 0, "states": states})
    assert done.dtype == np.float32
    np.testing.assert_allclose(done, planned.clamp(-1, 1), rtol=1e-4, atol=1e-5)
    assert float(planned.abs().max()) > 1 and np.abs(done).max() == 1.0
    assert model.reset() is None


# -- untrained twins --------------------------------------------------------------------------


@pytest.mark.parametrize("make", [watcher, actor])
def test_an_untrained_twin_is_new_deterministic_and_drawn_aside(make):
    model = make()
    state = torch.get_rng_state()
    twin = model.untrained(3)
    assert torch.equal(torch.get_rng_state(), state)
    assert twin.name == f"{model.name}-untrained3" and type(twin) is type(model)
    assert twin.inputs == model.inputs and twin.layers() == model.layers()
    assert not twin.module.training
    assert twin.weights_sha256 == make(9).untrained(3).weights_sha256
    assert len({m.weights_sha256 for m in (model, twin, model.untrained(4))}) == 3
    for name, parameter in model.module.named_parameters():
        other = dict(twin.module.named_parameters())[name]
        constant = bool((parameter == parameter.flatten()[0]).all())  # zeros and ones at the start
        assert torch.equal(parameter, other) == constant, name


def test_an_untrained_policy_keeps_the_scale_of_its_proprioception():
    model, twin = actor(), actor().untrained(0)
    for name in ("proprioception_mean", "proprioception_scale"):
        assert torch.equal(getattr(twin.module, name), getattr(model.module, name))
    assert watcher().untrained(0).instructions == INSTRUCTIONS


# -- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [watcher, actor])
def test_what_is_saved_is_loaded_to_the_bit(tmp_path, make):
    model, path = make(), tmp_path / "model.safetensors"
    save(model, path, provenance={"made": "by a test"})
    read = load(Checkpoint(path), name="again", options=Options())
    assert type(read) is type(model)
    assert (read.name, read.camera, read.inputs) == ("again", model.camera, model.inputs)
    assert read.weights_sha256 == model.weights_sha256
    assert not read.module.training
    assert torch.equal(output(read, episodes(2)), output(model, episodes(2)))
    if isinstance(model, ReferenceObservation):
        assert read.instructions == INSTRUCTIONS
    header = read_safetensors(path)[1]
    assert header["made"] == "by a test" and header["format"] == FORMAT


def test_other_bytes_and_other_files_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save(actor(), path, provenance={})
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(FormatError, match=r"is damaged: its tensors need \d+ bytes but"):
        load(Checkpoint(path), name="x", options=Options())
    path.write_bytes(b"garbage, and not a little of it")
    with pytest.raises(FormatError, match="is not a whole safetensors file"):
        load(Checkpoint(path), name="x", options=Options())
    write_safetensors(path, {"weight": torch.zeros(2)}, {"format": "pt"})
    words = "has the format 'pt'; needed 'mirror-analysis reference 1', which `mirror train` writes"
    with pytest.raises(FormatError, match=words):
        load(Checkpoint(path), name="x", options=Options())


@pytest.mark.parametrize(
    ("tensors", "header", "words"),
    [
        ({}, {"role": "director"}, "its role is 'director'; needed observation or execution"),
        ({}, {"role": None}, r"is damaged \('role'\); train it again or copy it anew"),
        ({}, {"camera": None}, r"is damaged \('camera'\)"),
        ({}, {"instructions": None}, r"is damaged \('instructions'\)"),
        ({}, {"instructions": "[1"}, r"is damaged \(Expecting"),
        ({}, {"instructions": "5"}, r"is damaged \('int' object is not iterable\)"),
        ({}, {"instructions": json.dumps(["a"])}, r"is damaged \(size mismatch for instruction"),
        ({"frame.1.bias": torch.zeros(3)}, {}, r"is damaged \(size mismatch for frame.1.bias"),
        ({"more": torch.zeros(3)}, {}, r'is damaged \(Unexpected key.s. in state_dict: "more"'),
        ({"frame.1.bias": None}, {}, r'is damaged \(Missing key.s. in state_dict: "frame.1.bias"'),
    ],
)
def test_a_damaged_model_is_refused_in_one_line(tmp_path, tensors, header, words):
    path = tmp_path / "model.safetensors"
    save(watcher(), path, provenance={})
    good, settings = read_safetensors(path)
    changed = {k: v for k, v in (good | tensors).items() if v is not None}
    settings = {k: v for k, v in (settings | header).items() if v is not None}
    write_safetensors(path, changed, settings)
    with pytest.raises(FormatError, match=words) as caught:
        load(Checkpoint(path), name="x", options=Options())
    assert "\n" not in str(caught.value)


# -- other episodes ---------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "camera"), [(watcher, "A"), (actor, "B")])
def test_pictures_of_another_size_are_refused(make, camera):
    words = f"camera {camera} has frames of 32 x 32 pixels; the reference pair needs 64 x 64, so"
    with pytest.raises(ShapeError, match=words):
        make().forward_batch([episode(0), episode(1, size=32)])


def test_a_policy_refuses_other_pictures_and_states():
    small, states = np.zeros((2, 32, 32, 3), np.uint8), np.zeros((2, 39), np.float32)
    with pytest.raises(ShapeError, match="camera B has frames of 32 x 32 pixels"):
        actor().act({"camera:B": small, "states": states})
    words = "states have 7 numbers; actor needs the 39 of Meta-World, so give it episodes of that"
    with pytest.raises(ShapeError, match=words):
        actor().act({"camera:B": np.zeros((2, 64, 64, 3), np.uint8), "states": states[:, :7]})
    with pytest.raises(ShapeError, match=words):
        actor().forward_batch([episode(0, states=np.zeros((3, 7), np.float32))])
