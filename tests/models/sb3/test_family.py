import numpy as np
import pytest
import torch
from drawn import drawn
from sb3_zips import CASES, REFERENCE, blob, observed, statistics, write_agent

from mirror_analysis.errors import (
    DefinitionError,
    FormatError,
    MissingFileError,
    ShapeError,
    StreamError,
    UnknownNameError,
)
from mirror_analysis.models import load_model
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.sb3 import family as sb3
from mirror_analysis.streams import resolve
from mirror_analysis.testing import check_model

TIMED = "ppo-relu-timed"
# One of each kind; those that see choices are not among them, since noise has none.
CONTRACT = ("ppo", "a2c-two-extractors", "a2c-choices", "ars-linear", "sac-sde", "td3", "tqc",
            "dqn-pictures", "qrdqn")  # fmt: skip


def loaded(path, *, name="agent", **options):
    return sb3.load(Checkpoint(path), name=name, options=Options(values=options))


def as_case(path, case, **options):
    """A case as the reference ran it: it gave the time itself."""
    return loaded(write_agent(path / "a.zip", case), **options)


class Wired:
    """An episode under the names a model gives its inputs."""

    def __init__(self, model, episode):
        self.episode = episode
        self.wires = resolve("model", model.needs, episode.streams)

    def __getattr__(self, name):
        return getattr(self.episode, name)

    def stream(self, name):
        return self.episode.stream(self.wires[name])


def outputs(model, episode):
    """What forward_batch gives, and what every layer gives in it."""
    found, handles = {}, []
    for name, module in model.taps().items():
        handles.append(
            module.register_forward_hook(
                lambda m, i, o, name=name: found.__setitem__(name, o.detach().numpy())
            )
        )
    with torch.inference_mode():
        actions = model.forward_batch([Wired(model, episode)])
    for handle in handles:
        handle.remove()
    return actions[0].numpy(), found


# -- equal to the reference -------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_actions_layers_and_values_are_those_of_stable_baselines(case, tmp_path):
    expected = CASES[case]
    judged = bool(expected["values"])
    options = {"critic": "yes"} if judged else {}
    model = as_case(tmp_path, case, **options)
    episode = observed(model)
    actions, layers = outputs(model, episode)
    wanted = np.array(expected["actions"], dtype=np.float64).reshape(len(actions), -1)
    np.testing.assert_allclose(actions, wanted, atol=1e-5)
    for name, values in expected["layers"].items():
        if name in layers:
            np.testing.assert_allclose(layers[name], values, atol=1e-5, err_msg=name)
    if judged:
        np.testing.assert_allclose(layers["value"], expected["values"], atol=1e-5)
    declared = {layer.name: layer.width for layer in model.layers()}
    assert list(declared) == list(layers)
    assert {name: values.shape[1] for name, values in layers.items()} == declared

    model.reset()
    for step in range(len(episode.steps)):  # two environments at once, step by step
        wires = resolve("model", model.needs, episode.streams)
        now = {n: np.stack([episode.stream(s)[step]] * 2) for n, s in wires.items()}
        done = model.act(now)
        np.testing.assert_allclose(done, np.stack([wanted[step]] * 2), atol=1e-5)
        assert done.dtype == np.float32


def test_every_case_has_layers_to_compare():
    assert len(CASES) == 21
    assert sum("hidden2" in case["layers"] for case in CASES.values()) >= 16
    assert sum("features" in case["layers"] for case in CASES.values()) >= 1


@pytest.mark.parametrize("case", CONTRACT)
def test_agents_keep_the_contract_of_models(case, tmp_path):
    check_model(as_case(tmp_path, case))


def test_layers_have_names_a_reader_knows(tmp_path):
    model = as_case(tmp_path, "sac-dictionary", critic="yes")
    assert [(x.name, x.width, x.kind) for x in model.layers()] == [
        ("conv1", 32, "convolution"), ("conv2", 64, "convolution"), ("conv3", 64, "convolution"),
        ("features", 6, "vector of a picture"), ("hidden1", 8, "hidden layer"),
        ("hidden2", 7, "hidden layer"), ("action", 2, "action"),
        ("value_conv1", 32, "convolution"), ("value_conv2", 64, "convolution"),
        ("value_conv3", 64, "convolution"), ("value_features", 6, "vector of a picture"),
        ("value1", 8, "critic"),
        ("value2", 7, "critic"), ("value", 1, "critic"),
    ]  # fmt: skip
    assert model.inputs == ("array:achieved_goal", "array:mode", "states", "camera")
    assert model.framewise and not as_case(tmp_path, "dqn-pictures").framewise


# -- recognising ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "algorithm"),
    [("ppo", "PPO"), ("a2c-choices", "A2C"), ("trpo", "TRPO"), ("maskable", "MaskablePPO"),
     ("ars", "ARS"), ("sac", "SAC"), ("td3", "TD3"), ("ddpg", "DDPG"), ("tqc", "TQC"),
     ("dqn", "DQN"), ("qrdqn", "QR-DQN")],
)  # fmt: skip
def test_recognised_by_content_under_a_lying_name(case, algorithm, tmp_path):
    path = write_agent(tmp_path / "model.safetensors", case)
    assert sb3.recognise(Checkpoint(path)) == f"{algorithm} agent of Stable-Baselines3"
    model = load_model(path)
    assert model.name == "model" and model.facts["algorithm"] == algorithm
    assert model.facts["actions"].endswith("masked") == (algorithm == "MaskablePPO")
    assert model.facts["stable-baselines3"] == CASES[case]["version"]


def test_a_folder_with_one_agent_is_that_agent(tmp_path, monkeypatch):
    folder = tmp_path / "ppo-Walker"
    folder.mkdir()
    write_agent(folder / "ppo-Walker2d-v3.zip", "ppo")
    (folder / "other.zip").write_bytes(b"PK nothing")
    (folder / "vec_normalize.pkl").write_bytes(statistics(monkeypatch, moments()))
    assert sb3.recognise(Checkpoint(folder)) == "PPO agent of Stable-Baselines3"
    model = load_model(folder)
    assert model.name == "ppo-Walker" and model.settings["normalisation"] == "VecNormalize"
    write_agent(folder / "best_model.zip", "ppo")
    assert sb3.recognise(Checkpoint(folder)) == "2 agents of Stable-Baselines3"
    words = r"ppo-Walker holds 2 agents of Stable-Baselines3 \(best_model\.zip, ppo-W.*\); name one"
    with pytest.raises(FormatError, match=words):
        load_model(folder)
    assert sb3.recognise(Checkpoint(tmp_path)) is None


def test_other_files_are_not_recognised(tmp_path):
    path = tmp_path / "agent.zip"
    path.write_bytes(b"PK nothing")
    assert sb3.recognise(Checkpoint(path)) is None
    settings = write_agent(tmp_path / "b.zip", "ppo", data={"n_epochs": 1})
    damaged = settings.read_bytes().replace(b'{"n_epochs"', b'["n_epochs"')
    settings.write_bytes(damaged)
    assert sb3.recognise(Checkpoint(settings)) is None


# -- activation -------------------------------------------------------------------------------


def test_where_the_activation_is_known_from_is_said(tmp_path):
    path = tmp_path / "a.zip"
    assert loaded(write_agent(path, "ppo")).facts["activation"] == (
        "Tanh, the default of PPO; the zip says nothing else"
    )
    assert loaded(write_agent(path, "sac")).facts["activation"].startswith("ReLU, the default of")
    assert loaded(write_agent(path, TIMED)).facts["activation"] == "ReLU, as the zip says"
    assert loaded(path, activation="ELU").facts["activation"] == "ELU, as the option says"
    hidden = {"policy_kwargs": {":type:": "<class 'dict'>", ":serialized:": blob(
        {"activation_fn": torch.nn.GELU})}}  # fmt: skip
    model = loaded(write_agent(path, "ppo", data=hidden))
    assert model.facts["activation"] == "GELU, as the zip says"
    assert model.settings["activation"] == "GELU"
    damaged = {"policy_kwargs": {":serialized:": "?!"}}
    model = loaded(write_agent(path, "ppo", data=damaged))
    assert model.facts["activation"].startswith("Tanh, the default")
    with pytest.raises(UnknownNameError, match="unknown activation 'Relu'; did you mean 'ReLU'"):
        loaded(path, activation="Relu")


# -- normalisation ----------------------------------------------------------------------------


def moments():
    return drawn("mean", (5,)).astype(float), drawn("var scale", (5,)).astype(float)


def test_statistics_beside_the_zip_are_used_as_stable_baselines_does(tmp_path, monkeypatch):
    path = write_agent(tmp_path / "ppo_Walker.zip", "ppo")
    plain = loaded(path)
    assert plain.facts["normalisation"].startswith("none found; if it was trained with VecNorm")
    wanted = REFERENCE["normalised"]
    data = statistics(monkeypatch, moments(), clip_obs=wanted["clip_obs"])
    expected = plain.act({"states": np.array(wanted["values"], dtype=np.float32)})
    for place in ("ppo_Walker.vecnormalize.pkl", "vecnormalize.pkl", "vec_normalize.pkl",
                  "ppo_Walker/vecnormalize.pkl", "Walker/vecnormalize.pkl"):  # fmt: skip
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(data)
        model = loaded(path)
        got = model.act({"states": drawn("observation ", (4, 5))})
        np.testing.assert_allclose(got, expected, atol=1e-5)
        assert not np.allclose(got, plain.act({"states": drawn("observation ", (4, 5))}))
        assert model.facts["normalisation"] == f"VecNormalize, {place.rpartition('/')[2]}"
        assert model.settings["normalisation"] == "VecNormalize"
        assert model.weights_sha256 != plain.weights_sha256
        twin = model.untrained(0)
        assert torch.equal(twin.module.eyes.parts[0].mean, model.module.eyes.parts[0].mean)
        (tmp_path / place).rename(tmp_path / "elsewhere.pkl")
    chosen = loaded(path, normalise=str(tmp_path / "elsewhere.pkl"))
    np.testing.assert_allclose(
        chosen.act({"states": drawn("observation ", (4, 5))}), expected, atol=1e-5
    )
    (tmp_path / "vecnormalize.pkl").write_bytes(data)
    assert loaded(path, normalise="none").facts["normalisation"] == "none, as the option says"
    (tmp_path / "vecnormalize.pkl").write_bytes(statistics(monkeypatch, moments(), norm_obs=False))
    assert loaded(path).facts["normalisation"] == "none of what is seen, says vecnormalize.pkl"


def test_statistics_of_a_dictionary_are_taken_by_key(tmp_path, monkeypatch):
    path = write_agent(tmp_path / "a.zip", "sac-dictionary")
    mean = np.array([1.0, 2.0, 3.0, 4.0])
    data = statistics(monkeypatch, {"observation": (mean, mean)})
    (tmp_path / "a.vecnormalize.pkl").write_bytes(data)
    model = loaded(path)
    found = dict(zip(model.module.eyes.keys, model.module.eyes.parts, strict=True))
    assert found["observation"].mean.tolist() == mean.tolist()
    assert isinstance(found["achieved_goal"], torch.nn.Identity)


CONFIGS = {
    "ordered": "!!python/object/apply:collections.OrderedDict\n- - - n_envs\n    - 2\n"
    "  - - normalize\n    - true\n",
    "plain": "n_envs: 2\nnormalize: true\npolicy: MlpPolicy\n",
    "detailed": "normalize: \"{'norm_obs': True, 'norm_reward': False}\"\n",
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_missing_statistics_of_a_normalised_training_are_an_error(kind, tmp_path):
    path = write_agent(tmp_path / "ppo_X.zip", "ppo")
    (tmp_path / "ppo_X.config.yml").write_text(CONFIGS[kind])
    words = (
        r"ppo_X\.zip was trained on normalised input, says ppo_X\.config\.yml, but its statistics"
        r" are not beside it; put ppo_X\.vecnormalize\.pkl or vecnormalize\.pkl there, or name"
    )
    with pytest.raises(FormatError, match=words):
        loaded(path)
    assert loaded(path, normalise="none").settings["normalisation"] == "none"
    with pytest.raises(MissingFileError, match=r"nowhere\.pkl is not there; needed statistics"):
        loaded(path, normalise="nowhere.pkl")


@pytest.mark.parametrize(
    "text", ["normalize: false\n", "normalize: \"{'norm_obs': False}\"\n",
             "normalize_advantage: true\n"],
)  # fmt: skip
def test_a_training_that_did_not_normalise_says_so(text, tmp_path):
    path = write_agent(tmp_path / "a.zip", "ppo")
    (tmp_path / "config.yml").write_text(text)
    assert loaded(path).facts["normalisation"] == "none, says config.yml"
    assert loaded(path).facts["training"] == "config.yml"


def test_statistics_that_are_none_are_refused(tmp_path, monkeypatch):
    path = write_agent(tmp_path / "a.zip", "ppo")
    beside = tmp_path / "vecnormalize.pkl"
    three = np.ones(3), np.ones(3)
    for data, words in (
        (statistics(monkeypatch, three), r"statistics of 3 numbers where the observation has 5"),
        (blob(1).encode(), r"vecnormalize\.pkl is not|vecnormalize\.pkl"),
        (statistics(monkeypatch, (None, None)), r"has no mean and variance of what was seen"),
        (statistics(monkeypatch, moments(), clip_obs="a"), r"no usable epsilon and clip_obs"),
        (statistics(monkeypatch, moments(), clip_obs=-1.0), r"no usable epsilon and clip_obs"),
        (statistics(monkeypatch, (np.full(5, np.nan), np.ones(5))), r"holds NaN, infinity or a"),
    ):
        beside.write_bytes(data)
        with pytest.raises(FormatError, match=words):
            loaded(path)
    import pickle

    beside.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(FormatError, match=r"holds no VecNormalize; needed the file that its save"):
        loaded(path)
    beside.write_bytes(b"cposix\nsystem\n(S'touch run'\ntR.")
    with pytest.raises(FormatError, match=r"posix\.system"):
        loaded(path)
    assert not (tmp_path / "run").exists()


# -- time -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "steps"),
    [("env_wrapper: sb3_contrib.common.wrappers.TimeFeatureWrapper\nn_envs: 8\n", 1000),
     ("- - - env_wrapper\n    - sb3_contrib.common.wrappers.TimeFeatureWrapper\n  - - n\n", 1000),
     ("env_wrapper:\n  - utils.TimeFeatureWrapper:\n      max_steps: 50\n", 50)],
)  # fmt: skip
def test_the_time_that_is_left_is_added_where_the_training_had_it(text, steps, tmp_path):
    path = write_agent(tmp_path / "a.zip", TIMED)
    without = loaded(path)
    assert without.needs[0].width == 3 and "time" not in str(without.settings)
    (tmp_path / "config.yml").write_text(text)
    model = loaded(path)
    assert model.needs[0].width == 2
    assert model.settings["states time"] == f"1 - step / {steps}"
    states = drawn("observation ", (4, 3))[:, :2]
    left = 1.0 - np.arange(4) / steps
    expected = without.act({"states": np.c_[states, left].astype(np.float32)})
    actions, _ = outputs(model, observed(model))
    np.testing.assert_allclose(actions, expected, atol=1e-6)
    for _ in range(2):
        model.reset()
        got = [model.act({"states": row[None]})[0] for row in states]
        np.testing.assert_allclose(got, expected, atol=1e-6)
    assert loaded(path, time_feature="none").needs[0].width == 3
    assert loaded(path, time_feature="7").settings["states time"] == "1 - step / 7"
    with pytest.raises(DefinitionError, match="option time_feature is 'a'; needed a whole number"):
        loaded(path, time_feature="a")


def test_a_missing_time_feature_is_hinted_at(tmp_path):
    model = as_case(tmp_path, TIMED)
    with pytest.raises(StreamError, match=r"option time_feature=1000 adds to states of 2"):
        resolve("agent", model.needs, {"states": (2,)})


# -- before training --------------------------------------------------------------------------


def test_untrained_weights_start_as_the_algorithm_starts(tmp_path):
    twin = as_case(tmp_path, "ppo", critic="yes").untrained(3)
    first = twin.module.actor.layers["hidden1"][0]
    np.testing.assert_allclose((first.weight.T @ first.weight).detach(), 2.0 * np.eye(5), atol=1e-5)
    last, value = twin.module.actor.layers["action"][0], twin.module.critic.layers["value"][0]
    np.testing.assert_allclose(torch.linalg.norm(last.weight, dim=1).detach(), 0.01, atol=1e-6)
    np.testing.assert_allclose(torch.linalg.norm(value.weight).detach(), 1.0, atol=1e-6)
    assert not last.bias.any() and not first.bias.any()
    off = {"policy_kwargs": {"ortho_init": False}}
    plain = loaded(write_agent(tmp_path / "b.zip", "ppo", data=off)).untrained(3)
    assert plain.module.actor.layers["hidden1"][0].bias.any()
    before = torch.random.get_rng_state()
    assert as_case(tmp_path, "sac").untrained(1).module.actor.layers["hidden1"][0].bias.any()
    assert torch.equal(before, torch.random.get_rng_state())


# -- pictures ---------------------------------------------------------------------------------


def test_pictures_of_another_size_are_shrunk_by_area(tmp_path):
    model = as_case(tmp_path, "ppo-pictures")
    wire = model.wires[0]
    frames = drawn("frames", (3, 72, 80, 3)) * 90 % 256
    frames = frames.astype(np.uint8)
    blocks = frames.reshape(3, 36, 2, 40, 2, 3).mean(axis=(2, 4)).round() / 255
    got = wire.rows(frames, np.arange(3))
    np.testing.assert_allclose(got, blocks.transpose(0, 3, 1, 2), atol=1 / 255)
    assert wire.need.note == "36 x 40, 2 at once"
    assert model.settings["camera pictures"].startswith("36 x 40, 2 at once, area interpolation")
    grey = as_case(tmp_path, "dqn-pictures").wires[0]
    red = np.zeros((1, 36, 36, 3), np.uint8)
    red[..., 0] = 200
    np.testing.assert_allclose(grey.rows(red, np.arange(1)), 60 / 255, atol=1e-6)
    raw = {"policy_kwargs": {"normalize_images": False}}
    plain = loaded(write_agent(tmp_path / "b.zip", "ppo-pictures", data=raw)).wires[0]
    assert plain.rows(frames, np.arange(3)).max() > 100


# -- faults -----------------------------------------------------------------------------------


def changed(case, part, **fields):
    return {part: CASES[case]["data"][part] | fields}


def test_agents_that_are_not_read_are_refused_in_words(tmp_path):
    path = tmp_path / "a.zip"
    recurrent = changed("ppo", "policy_class", __module__="sb3_contrib.common.recurrent.policies")
    own = {"features_extractor.net.0.weight": torch.ones(5, 5)}
    wide = {"mlp_extractor.policy_net.2.weight": torch.ones(7, 9)}
    flat = {"action_net.weight": torch.ones(7)}
    bias = {"action_net.bias": torch.ones(3)}
    more = {"action_net.weight": torch.ones(4, 7), "action_net.bias": torch.ones(4)}
    kernel = {"pi_features_extractor.cnn.2.weight": torch.ones(64, 32, 5, 5)}
    linear = {"pi_features_extractor.linear.0.weight": torch.ones(9, 65)}
    box, dictionary = "<class 'gymnasium.spaces.box.Box'>", "<class 'gymnasium.spaces.dict.Dict'>"
    for case, given, words in (
        ("ppo", {"data": recurrent}, r"is an agent of RecurrentPPO; read are PPO, A2C"),
        ("ppo", {"weights": own}, r"features extractor of its own \(features_extractor\.net"),
        ("ppo", {"weights": wide}, r"a layer of a\.zip takes 9 numbers where 8 come"),
        ("ppo", {"weights": {"action_net.weight": None}}, r"there is no weight 'action_net\.w"),
        ("ppo", {"weights": flat}, r"action_net\.weight has shape \[7\]; needed \[output, input"),
        ("ppo", {"weights": bias}, r"action_net\.bias has shape \[3\]; needed \[2\]"),
        ("ppo", {"weights": more}, r"gives 4 numbers where its actions need 2"),
        ("ppo-pictures", {"weights": kernel}, r"cnn\.2 has weights \[64, 32, 5, 5\]; needed the"),
        ("ppo-pictures", {"weights": linear}, r"linear\.0 takes 65 numbers where the convolutions"),
        ("ppo-pictures", {"data": changed("ppo-pictures", "observation_space", _shape=[5])},
         r"convolutions for an observation of shape \[5\]"),
        ("ppo", {"data": changed("ppo", "action_space", low="[-1.]")}, r"but says 1 low ends"),
        ("ppo", {"data": changed("ppo", "action_space", **{":type:": "<class 'a.Odd'>"})},
         r"acts in a Odd space; needed a Box, Discrete"),
        ("ppo", {"data": changed("ppo", "observation_space", **{":type:": "<class 'a.Tuple'>"})},
         r"sees a Tuple space; needed a Box"),
        ("ppo", {"data": changed("ppo", "observation_space", **{":type:": dictionary})},
         r"sees a dictionary whose parts it does not name in words"),
        ("sac-dictionary", {"data": changed("sac-dictionary", "observation_space",
                                            spaces="{'a': MultiDiscrete([2 3])}")},
         r"the observation 'a' is a MultiDiscrete that is not read"),
        ("dqn", {"data": changed("dqn", "action_space", n="many")}, r"how many choices there are"),
        ("ppo", {"data": {"n_epochs": 1, "observation_space": {":type:": box}}}, r"sees a Box"),
    ):  # fmt: skip
        write_agent(path, case, **given)
        with pytest.raises(FormatError, match=words):
            loaded(path)
    write_agent(path, "ars")
    with pytest.raises(DefinitionError, match=r"critic is yes but a\.zip, of ARS, has no critic"):
        loaded(path, critic="yes")
    unknown = {k: v for k, v in CASES["a2c-choices"]["data"].items() if k != "gae_lambda"}
    import json
    import zipfile

    from sb3_zips import saved

    for settings, weights, words in (
        (unknown, {}, r"is an agent of an unknown algorithm"),
        (CASES["ppo"]["data"], [1], r"policy\.pth of .*b\.zip does not hold tensors by name"),
    ):
        with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
            archive.writestr("data", json.dumps(settings))
            archive.writestr("policy.pth", saved(weights))
        with pytest.raises(FormatError, match=words):
            loaded(tmp_path / "b.zip")


def test_choices_outside_their_range_are_refused(tmp_path):
    model = as_case(tmp_path, "a2c-places")
    with pytest.raises(ShapeError, match=r"states holds choices outside 0 to 5; map another"):
        model.act({"states": np.array([[6.0]], np.float32)})


def test_older_readable_forms_of_spaces_are_read():
    from mirror_analysis.models.sb3.spaces import observations

    space = {":type:": "<class 'gym.spaces.dict.Dict'>", "spaces": (
        "OrderedDict([('achieved_goal', Box(-inf, inf, (3,), float32)), ('flags', MultiBinary(4)),"
        " ('picture', Box(0, 255, (1, 36, 40), uint8)), ('place', Discrete(5))])"
    )}  # fmt: skip
    found = {seen.key: (seen.shape, seen.width) for seen in observations(space, "a")}
    assert found == {
        "achieved_goal": ((3,), 3),
        "flags": ((4,), 4),
        "picture": ((1, 36, 40), 1440),
        "place": ((), 5),
    }


# -- real -------------------------------------------------------------------------------------


@pytest.mark.real_weights
def test_every_published_agent_loads_and_acts(shared):
    paths = sorted((shared / "weights" / "sb3").glob("*.zip"))
    assert len(paths) == 24
    for path in paths:
        model = load_model(path)
        assert model.facts["algorithm"].lower() == path.stem.partition("_")[0]
        width = model.needs[0].width or 0
        action = model.act({"states": np.zeros((3, width), np.float32)})
        assert action.shape == (3, model.done.width) and np.abs(action).max() <= 1.0
        seen = torch.from_numpy(0.01 * drawn("seen", (3, model.wires[0].seen.width)))
        assert model.module({"": seen}).isfinite().all()
        assert torch.unique(model.module({"": seen}), dim=0).shape[0] == 3
        normalised = path.with_suffix(".vecnormalize.pkl").is_file()
        assert model.settings["normalisation"] == ("VecNormalize" if normalised else "none")
    assert load_model(shared / "weights/sb3/ppo_Walker2d-v3.zip").needs[0].width == 17
