"""Checkpoints as robomimic writes them, with drawn weights, held to what the original gave."""

import functools
import hashlib
import json
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import drawn

from mirror_analysis.episodes.episode import Episode, Episodes
from mirror_analysis.errors import FormatError, ShapeError, UnknownNameError
from mirror_analysis.extraction import extract
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.robomimic.config import read_settings
from mirror_analysis.models.robomimic.family import load, recognise
from mirror_analysis.models.robomimic.networks import Policy
from mirror_analysis.testing import check_model

REFERENCE = json.loads((Path(__file__).parent / "robomimic.json").read_text(encoding="utf-8"))
CASES = REFERENCE["cases"]
EPISODES, TIME, STEPS = (REFERENCE[key] for key in ("episodes", "time", "steps"))
PLAIN, LSTM = "plain, normalised", "LSTM, mixture"
SIGHT, GRU = "mixture, sight", "GRU, open loop, two shallow sights"


@functools.cache
def weight(name, shape):
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    values = drawn(name, shape)
    return torch.from_numpy(values + 1 if name.endswith("weight") and len(shape) == 1 else values)


def published(name):
    """robomimic's name of a tensor of the network here, and the further names it has there."""
    parts = name.split(".")
    if name.startswith("nets.rnn.layers."):
        names = [f"nets.rnn.nets.{parts[5][:-1]}{parts[3]}"]
    else:
        names = [name]
    if ".obs_nets." in name and parts[7] in "01" and parts[7] != str(len(parts)):
        again = {"0": "backbone", "1": "pool"}[parts[7]]
        if not (again == "pool" and parts[8] in ("weight", "bias")):
            names.append(".".join([*parts[:6], again, *parts[8:]]))
    return [f"policy.{one}" for one in names]


def tensors(settings, memory, hidden):
    """Every tensor of the original, by its name there."""
    found = {}
    for name, tensor in Policy(settings, likeliest=True).state_dict().items():
        first, *more = published(name)
        if name.endswith(("temperature", "pos_x", "pos_y")):
            value = tensor
        else:
            value = weight(first, tuple(tensor.shape))
        found |= dict.fromkeys([first, *more], value)
        if memory and name.startswith(("nets.mlp.", "nets.decoder.")):
            part = "" if not hidden else {"mlp": "0.", "decoder": "1."}[name.split(".")[1]]
            rest = name.split(".", 2)[2]
            found[f"policy.nets.rnn.per_step_net.{part}{rest}"] = value
    return found


def described(case):
    """All of a checkpoint but its weights."""
    shapes = OrderedDict((key, list(shape)) for key, shape in case["shapes"].items())
    return {
        "config": json.dumps(case["config"], indent=4),
        "algo_name": "bc",
        "env_metadata": {"env_name": "Lift", "type": 1, "env_kwargs": {"horizon": None}},
        "shape_metadata": {"ac_dim": 2, "all_shapes": shapes, "all_obs_keys": list(shapes),
                           "use_images": False},
    }  # fmt: skip


def whole(case, name=""):
    found = described(case)
    algo = case["config"]["algo"]
    settings = read_settings(found, Path("case"))
    model = tensors(settings, algo["rnn"]["enabled"], algo["actor_layer_dims"])
    found["model"] = OrderedDict(model)
    if name == PLAIN:
        found["obs_normalization_stats"] = {
            key: {part: drawn(f"{key} {part}", (1, *shape)).tolist() for part in ("mean", "std")}
            for key, shape in case["shapes"].items()
        }
    return found


def written(path, checkpoint):
    torch.save(checkpoint, path)
    return path


def loaded(path, **options):
    return load(Checkpoint(path), name="policy", options=Options(values=options))


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Name of a case -> its file, under a name that lies."""
    folder = tmp_path_factory.mktemp("robomimic")

    @functools.cache
    def file(name):
        return written(folder / f"{name}.safetensors", whole(CASES[name], name))

    return file


def stream(key, shape, rows):
    if len(shape) == 3:
        g = np.random.default_rng(len(key))
        return g.integers(0, 256, (rows, *shape[1:], 3), dtype=np.uint8)
    return 3 * drawn(f"stream {key}", (rows, *shape))


@dataclass
class Seen:
    id: str
    streams: dict
    instruction = ""

    @property
    def length(self):
        return len(self.steps)

    @property
    def steps(self):
        return np.arange(len(next(iter(self.streams.values()))), dtype=np.int64)

    @property
    def timestamps(self):
        return self.steps / 10

    def stream(self, name):
        return self.streams[name]


def seen(case):
    rows = EPISODES * max(TIME, STEPS)
    return {
        ("array:" if len(shape) == 1 else "camera:") + key: stream(key, shape, rows)
        for key, shape in case["shapes"].items()
    }


def episodes(case, *, time=TIME, count=EPISODES):
    streams = seen(case)
    return [
        Seen(f"e{i}", {name: x[i * time : (i + 1) * time] for name, x in streams.items()})
        for i in range(count)
    ]


def off(found, expected):
    expected = np.array(expected).reshape(found.shape)
    return np.abs(np.asarray(found) - expected).max() / max(1, np.abs(expected).max())


@pytest.mark.parametrize("name", CASES)
def test_the_original_has_the_tensors_these_names_say(name):
    case = CASES[name]
    names = {key: list(t.shape) for key, t in whole(case)["model"].items()}
    listing = json.dumps(sorted(names.items())).encode()
    assert hashlib.sha256(listing).hexdigest() == case["names"], sorted(names)[:8]


@pytest.mark.parametrize("name", [name for name in CASES if "plan" in CASES[name]["expected"]])
def test_actions_are_those_of_the_original(files, name):
    model = loaded(files(name), choice="likeliest")
    with torch.inference_mode():
        actions = model.forward_batch(episodes(CASES[name])).numpy()
    assert actions.shape == (EPISODES, TIME, 2)
    assert off(actions.reshape(-1, 2), CASES[name]["expected"]["plan"]) < 1e-5


@pytest.mark.parametrize("name", [SIGHT, LSTM])
def test_mixtures_have_the_shares_of_the_original(files, name):
    model = loaded(files(name))
    said = {}
    model.taps()["logits"].register_forward_hook(lambda m, i, o: said.update(share=o.softmax(-1)))
    with torch.inference_mode():
        model.forward_batch(episodes(CASES[name]))
    assert off(said["share"].reshape(-1).numpy(), CASES[name]["expected"]["share"]) < 1e-5


@pytest.mark.parametrize("name", [name for name in CASES if "acted" in CASES[name]["expected"]])
def test_it_acts_as_the_original_does(files, name):
    model = loaded(files(name))
    streams = seen(CASES[name])
    for _ in range(2):
        actions = [
            model.act({n: x[np.arange(2) * STEPS + i] for n, x in streams.items()})
            for i in range(STEPS)
        ]
        assert off(np.stack(actions), CASES[name]["expected"]["acted"]) < 1e-5
        model.reset()


def test_what_is_remembered_over_time_is_what_is_remembered_step_by_step(files):
    model = loaded(files(GRU))
    one = episodes(CASES[GRU], time=STEPS)
    with torch.inference_mode():
        at_once = model.forward_batch(one).numpy()
    expected = np.array(CASES[GRU]["expected"]["acted"]).reshape(STEPS, 2, 2)
    assert off(at_once.transpose(1, 0, 2), expected) < 1e-5


def test_a_recurrent_policy_needs_a_reset_before_there_are_more_environments(files):
    model = loaded(files(LSTM))
    streams = seen(CASES[LSTM])
    model.act({name: x[:2] for name, x in streams.items()})
    with pytest.raises(ShapeError, match=r"acts in 3 environments but began in 2; call reset"):
        model.act({name: x[:3] for name, x in streams.items()})
    model.reset()
    assert model.act({name: x[:3] for name, x in streams.items()}).shape == (3, 2)


def test_a_draw_depends_on_the_episode_and_the_step_alone(files):
    case = CASES[LSTM]
    model, other = loaded(files(LSTM)), loaded(files(LSTM), seed="2")
    pair = episodes(case)
    with torch.inference_mode():
        both = model.forward_batch(pair)
        alone = model.forward_batch(pair[1:])
        again = other.forward_batch(pair)
        sure = loaded(files(LSTM), choice="likeliest").forward_batch(pair)
    assert torch.allclose(both[1:], alone, atol=1e-6)
    assert not torch.equal(both, again)
    # A draw is next to the mean of one of the modes, not always of the likeliest.
    assert ((both - sure).abs().amax(-1) > 0.01).any()


def test_modes_are_drawn_as_often_as_they_are_likely(files):
    policy = loaded(files(LSTM)).policy
    share = torch.tensor([0.2, 0.5, 0.3])
    said = {
        "mean": torch.tensor([[0.1, 0.1, 0.2, 0.2, 0.3, 0.3]]).atanh().expand(1000, -1),
        "scale": torch.zeros(1000, 6),
        "logits": share.log().expand(1000, -1),
    }
    chance = torch.cat([(torch.arange(1000) / 1000)[:, None], torch.zeros(1000, 2)], 1)
    drawn_ = policy._chosen(said, chance)[:, 0]
    counts = [(drawn_ - mean).abs().lt(1e-4).float().mean().item() for mean in (0.1, 0.2, 0.3)]
    assert np.allclose(counts, share, atol=2e-3)


def test_spreads_are_as_in_training_where_the_policy_says_so():
    case = json.loads(json.dumps(CASES["Gaussian"]))
    how = case["config"]["algo"]["gaussian"]
    how |= {"low_noise_eval": False, "init_std": 0.3, "min_std": 0.2}
    spread = Policy(read_settings(described(case), Path("x")), likeliest=False)._spread
    x = torch.tensor([-9.0, 0.0, 2.0])
    softplus = np.log1p(np.exp(2.0)) * 0.3 / np.log(2)
    assert np.allclose(spread(x), [0.2, 0.3, softplus])
    how["std_activation"] = "exp"
    spread = Policy(read_settings(described(case), Path("x")), likeliest=False)._spread
    assert np.allclose(spread(x), [0.2, 1.0, np.exp(2.0)])
    how["fixed_std"] = True
    spread = Policy(read_settings(described(case), Path("x")), likeliest=False)._spread
    assert np.allclose(spread(x), 0.3)
    case = json.loads(json.dumps(CASES[LSTM]))
    case["config"]["algo"]["gmm"] |= {"low_noise_eval": False, "min_std": 0.5}
    spread = Policy(read_settings(described(case), Path("x")), likeliest=False)._spread
    assert np.allclose(spread(torch.zeros(1)), np.log(2) + 0.5)


@pytest.mark.parametrize("name", [PLAIN, "Gaussian", LSTM])
def test_it_keeps_the_contract(files, name):
    model = loaded(files(name))
    check_model(model, frames=4)
    layers = [info.name for info in model.layers()]
    hidden = ["recurrent1", "recurrent2"] if name == LSTM else ["hidden1", "hidden2"]
    said = {PLAIN: [], "Gaussian": ["mean"], LSTM: ["mean", "logits"]}[name]
    assert layers == ["observation", *hidden, *said, "action"]
    assert model.framewise == (name != LSTM)


def test_layers_of_sight_run(files):
    model = loaded(files(GRU))
    case = CASES[GRU]
    some = [
        Episode.from_frames(
            {n[7:]: x for n, x in e.streams.items() if n.startswith("camera:")},
            id=e.id, task="t", instruction="", success=True, steps=e.steps, length=TIME,
            timestamps=e.timestamps, states=np.zeros((TIME, 0), np.float32),
            actions=np.zeros((TIME, 0), np.float32),
            extras={n[6:]: x for n, x in e.streams.items() if n.startswith("array:")},
        )
        for e in episodes(case)
    ]  # fmt: skip
    found = extract(model, Episodes(some))
    assert list(found)[:6] == [
        *(f"agentview_image.convolution{i}" for i in (1, 2, 3, 4)),
        "agentview_image.image",
        "robot0_eye_in_hand_image.convolution1",
    ]
    assert {name: f.values.shape[1] for name, f in found.items()} == {
        info.name: info.width for info in model.layers()
    }
    sight = loaded(files(SIGHT))
    assert [info.name.partition(".")[2] for info in sight.layers()][:6] == [
        "layer1", "layer2", "layer3", "layer4", "pooled", "image",
    ]  # fmt: skip


def test_the_facts_say_what_it_is(files):
    model = loaded(files(LSTM))
    assert recognise(Checkpoint(files(LSTM))) == "policy of robomimic"
    assert model.inputs == ("array:object", "array:robot0_eef_pos")
    assert [need.width for need in model.needs] == [4, 3]
    assert model.facts["trained on"] == "Lift"
    assert "LSTM of 2 x 10" in model.facts["architecture"]
    assert model.settings["memory"] == "3 stored frames"
    assert loaded(files(GRU)).inputs[0] == "camera:agentview_image"
    assert loaded(files(PLAIN)).facts["normalisation"].startswith("object, robot0_eef_pos")


def test_later_versions_keep_weights_deeper_and_actions_in_a_unit(tmp_path, files):
    checkpoint = whole(CASES[PLAIN])
    plain = written(tmp_path / "plain", checkpoint)
    checkpoint["model"] = {"nets": checkpoint["model"], "optimizers": {}, "lr_schedulers": {}}
    checkpoint["action_normalization_stats"] = {
        "actions": {"offset": np.array([[1.0, 2.0]]), "scale": np.array([[3.0, 4.0]])}
    }
    checkpoint["obs_normalization_stats"] = {
        "object": {"offset": np.zeros((1, 4)), "scale": np.ones((1, 4))}
    }
    new = loaded(written(tmp_path / "new", checkpoint))
    pair = episodes(CASES[PLAIN])
    with torch.inference_mode():
        before = loaded(plain).forward_batch(pair)
        after = new.forward_batch(pair)
    assert torch.allclose(after, before * torch.tensor([3.0, 4.0]) + torch.tensor([1.0, 2.0]))


def test_the_form_before_zips_is_read_too(tmp_path, files):
    path = tmp_path / "old.zip"
    torch.save(whole(CASES[PLAIN], PLAIN), path, _use_new_zipfile_serialization=False)
    assert recognise(Checkpoint(path)) == "policy of robomimic"
    assert loaded(path).weights_sha256 == loaded(files(PLAIN)).weights_sha256


def test_the_form_of_the_first_version_says_the_same():
    case = json.loads(json.dumps(CASES[SIGHT]))
    new = read_settings(described(case), Path("x"))
    observation = case["config"]["observation"]
    group = observation["modalities"]["obs"]
    group["image"] = group.pop("rgb")
    rgb = observation["encoder"]["rgb"]
    core = rgb["core_kwargs"]
    observation["encoder"] = {
        "visual_feature_dimension": core["feature_dimension"],
        "visual_core": core["backbone_class"],
        "visual_core_kwargs": core["backbone_kwargs"],
        "use_spatial_softmax": True,
        "spatial_softmax_kwargs": core["pool_kwargs"],
        "obs_randomizer_class": rgb["obs_randomizer_class"],
        "obs_randomizer_kwargs": rgb["obs_randomizer_kwargs"],
    }
    assert read_settings(described(case), Path("x")) == new


def changed(name, **changes):
    """A description with some of `algo` or `observation` otherwise."""
    case = json.loads(json.dumps(CASES[name]))
    for path, value in changes.items():
        *places, last = path.split("__")
        part = case["config"]
        for place in places:
            part = part[place]
        part[last] = value
    return described(case)


RGB = "observation__encoder__rgb__"


@pytest.mark.parametrize(
    ("description", "words"),
    [
        (described(CASES[PLAIN]) | {"algo_name": "iql"}, "algorithm 'iql'; needed bc"),
        (described(CASES[PLAIN]) | {"config": "{"}, "does not describe a policy"),
        (described(CASES[PLAIN]) | {"config": 3}, "does not describe a policy"),
        (described(CASES[PLAIN]) | {"shape_metadata": {}}, "missing required field `ac_dim`"),
        (changed(PLAIN, algo__vae={"enabled": True}), "is a variational autoencoder"),
        (changed(PLAIN, algo__transformer={"enabled": True}), "is a transformer of robomimic"),
        (changed(LSTM, algo__rnn__kwargs={"bidirectional": True}), "that is bidirectional"),
        (changed(PLAIN, algo__actor_layer_dims=[]), "neither hidden nor recurrent layers"),
        (
            changed(PLAIN, observation__modalities__goal={"low_dim": ["object"]}),
            "is given a goal to reach",
        ),
        (
            changed(PLAIN, observation__modalities__obs={"low_dim": ["gone"]}),
            "observations 'gone' of no shape",
        ),
        (
            changed(PLAIN, observation__modalities__obs={"depth": ["object"]}),
            "of the kind 'depth'; needed vectors",
        ),
        (
            changed(PLAIN, observation__encoder__low_dim={"core_class": "ScanCore"}),
            "through ScanCore",
        ),
        (changed(SIGHT, **{RGB + "core_class": "EyeCore"}), "through EyeCore; needed VisualCore"),
        (
            changed(SIGHT, **{RGB + "core_kwargs__backbone_class": "R3MConv"}),
            "Invalid enum value 'R3MConv'",
        ),
        (
            changed(SIGHT, **{RGB + "core_kwargs__pool_kwargs": {"output_variance": True}}),
            "that gives variances",
        ),
        (changed(SIGHT, **{RGB + "obs_randomizer_class": "Flip"}), "changed by 'Flip'"),
        (
            changed(SIGHT, **{RGB + "obs_randomizer_kwargs__crop_height": 99}),
            r"a crop of \(99, 36\) from pictures of \(40, 48\)",
        ),
    ],
)
def test_other_policies_are_refused_in_words(description, words):
    with pytest.raises(FormatError, match=words):
        read_settings(description, Path("a.pth"))


def test_pictures_are_three_channels():
    description = changed(SIGHT)
    description["shape_metadata"]["all_shapes"]["agentview_image"] = [1, 40, 48]
    with pytest.raises(FormatError, match=r"pictures of shape \(1, 40, 48\)"):
        read_settings(description, Path("a.pth"))


def test_damaged_files_are_refused_in_words(tmp_path, files):
    good = whole(CASES[PLAIN])

    def fault(**changes):
        with pytest.raises(FormatError) as caught:
            loaded(written(tmp_path / "bad.pth", {**good, **changes}))
        return str(caught.value)

    assert "has no weights under 'model'" in fault(model={"a": 1})
    weights = dict(good["model"])
    name = "policy.nets.mlp._model.0.weight"
    assert "lacks 'nets.mlp._model.0.weight'" in fault(
        model={n: t for n, t in weights.items() if n != name}
    )
    assert "has 'nets.more' besides" in fault(model=weights | {"policy.nets.more": torch.ones(1)})
    assert "of shape (16, 8) where" in fault(model=weights | {name: torch.ones(16, 8)})
    wrong = {"object": {"mean": [[0.0]], "std": [[1.0]]}}
    assert "statistics that do not fit its streams" in fault(obs_normalization_stats=wrong)
    wrong = {"object": {"mean": [[np.nan] * 4], "std": [[1.0] * 4]}}
    assert "(not finite)" in fault(obs_normalization_stats=wrong)
    with pytest.raises(FormatError, match="holds no dictionary"):
        loaded(written(tmp_path / "list.pth", [1, 2]))
    data = files(PLAIN).read_bytes()
    (tmp_path / "cut.pth").write_bytes(data[: len(data) // 2])
    with pytest.raises(FormatError):
        loaded(tmp_path / "cut.pth")
    assert recognise(Checkpoint(tmp_path / "cut.pth")) is None


def test_other_files_are_not_recognised(tmp_path):
    assert recognise(Checkpoint(written(tmp_path / "a.pth", {"model": {}}))) is None
    assert recognise(Checkpoint(tmp_path)) is None
    torch.save(described(CASES[PLAIN]), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert recognise(Checkpoint(tmp_path / "old.pth")) == "policy of robomimic"


def test_streams_of_another_shape_are_refused(files):
    model = loaded(files(GRU))
    streams = seen(CASES[GRU])
    with pytest.raises(ShapeError, match=r"array:object has the shape \(3,\) per frame"):
        model.act(streams | {"array:object": np.zeros((len(streams["array:object"]), 3))})
    small = streams | {"camera:agentview_image": np.zeros((14, 20, 24, 3), np.uint8)}
    with pytest.raises(ShapeError, match="20 x 24 pixels; policy was trained on 40 x 48"):
        model.act(small)
    assert loaded(files(GRU), resize="yes").act(small).shape == (14, 2)
    with pytest.raises(UnknownNameError, match="option choice"):
        loaded(files(GRU), choice="best")
