import numpy as np
import pytest
import torch
from sb3_zips import CASES, write_agent
from toys import toys

from mirror_analysis import environments as module
from mirror_analysis.environments import collect_gym
from mirror_analysis.episodes.arrays import read_arrays
from mirror_analysis.errors import DefinitionError, FormatError, StoreError, StreamError
from mirror_analysis.parallel import serial
from mirror_analysis.playing import PolicySource

TOY = {"workers": 1, "frames": 3}


@pytest.fixture(autouse=True)
def registered():
    with toys():
        yield


@pytest.fixture
def agent(tmp_path):
    """An agent for the toy: two numbers in, one out."""
    weights = {name: torch.zeros(*shape) for name, shape in {
        "mlp_extractor.policy_net.0.weight": (8, 2), "mlp_extractor.value_net.0.weight": (6, 2),
        "action_net.weight": (1, 7), "log_std": (1,)}.items()}  # fmt: skip
    weights["action_net.bias"] = torch.tensor([0.25])
    data = CASES["ppo"]["data"]
    space = data["observation_space"] | {"_shape": [2], "low": "[-inf -inf]", "high": "[inf inf]"}
    box = data["action_space"] | {"_shape": [1], "low": "[-1.]", "high": "[1.]"}
    return write_agent(tmp_path / "mover.zip", "ppo", weights=weights,
                       data={"observation_space": space, "action_space": box})  # fmt: skip


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.npz")}


def test_what_policies_do_becomes_episodes(agent, tmp_path):
    out, told = tmp_path / "out", []
    episodes = collect_gym(
        "ToyPlain-v0", out, policies=[agent, "random"], episodes=6, camera="render", size=8,
        seed=3, progress=lambda *count: told.append(count), **TOY,
    )  # fmt: skip
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [e.id for e in episodes] == [
        f"ToyPlain-v0-{p}-3-{i:04d}" for p in ("mover", "random") for i in range(6)
    ]
    first, other = episodes[1], episodes[7]
    assert first.task == "mover" and other.task == "random"
    assert first.instruction == "ToyPlain-v0 as mover does it"
    np.testing.assert_allclose(first.actions, 0.25)
    assert first.steps.tolist() == [0, 2, 5] and first.length == 6
    np.testing.assert_allclose(first.timestamps, np.array([0, 2, 5]) * 0.05)
    assert [int(frame[3, 3, 0]) for frame in first.frames("render")] == [40, 60, 90]
    assert first.states[:, 1].tolist() == [0, 2, 5]
    places = first.states[0, 0] + 0.25 * np.arange(1, 7)
    np.testing.assert_allclose(first.extras["rewards"], places[[0, 2, 5]], atol=1e-6)
    assert first.labels["return"] == pytest.approx(places.sum(), abs=1e-5)
    assert first.labels["environment_seed"] == 30_001 == other.labels["environment_seed"]
    assert first.labels["judged"] is True and first.success is bool(places[-1] > 2)
    assert first.states[0, 0] == other.states[0, 0]  # the same start
    assert read_arrays(out, verify=True).fingerprint == episodes.fingerprint


def test_an_interrupted_collection_goes_on_and_mends_what_is_damaged(agent, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = {"policies": [agent], "camera": "render", "size": 8, **TOY}
    episodes = collect_gym("ToyPlain-v0", whole, episodes=7, **options)
    collect_gym("ToyPlain-v0", parts, episodes=2, **options)
    kept = contents(parts)
    again = collect_gym("ToyPlain-v0", parts, episodes=7, **options)
    assert contents(parts) == contents(whole) and kept.items() <= contents(parts).items()
    assert again.fingerprint == episodes.fingerprint
    damaged = next(parts.rglob("*0003.npz"))
    damaged.write_bytes(b"nothing")
    collect_gym("ToyPlain-v0", parts, episodes=7, **options)
    assert contents(parts) == contents(whole)
    with pytest.raises(StoreError, match="was collected with frames 3, not 4; ask for the same"):
        collect_gym("ToyPlain-v0", parts, episodes=7, **options | {"frames": 4})
    write_agent(agent, "ppo")  # another one, that sees five numbers
    with pytest.raises(StreamError, match="does not fit"):
        collect_gym("ToyPlain-v0", tmp_path / "c", episodes=1, **options)
    settings = next(parts.rglob("collection.json"))
    settings.write_text("{}")
    with pytest.raises(FormatError, match=r"collection\.json cannot be read .*; choose another"):
        collect_gym("ToyPlain-v0", parts, episodes=1, policies=[agent], **TOY)


def test_a_file_that_does_not_come_out_as_it_was_is_an_error(tmp_path, monkeypatch):
    options = {"policies": ["random"], "episodes": 1, **TOY}
    collect_gym("ToyPlain-v0", tmp_path, **options)
    damaged = next(tmp_path.rglob("*.npz"))
    damaged.write_bytes(b"nothing")
    monkeypatch.setattr(module, "_SEEDS", 9_999_999)
    real = module.play
    monkeypatch.setattr(module, "play", lambda *a, seed, **k: real(*a, seed=seed + 1, **k))
    with pytest.raises(StoreError, match=r"npz is damaged and does not come out as it was; coll"):
        collect_gym("ToyPlain-v0", tmp_path, **options)


def test_observations_of_every_kind_are_kept(tmp_path):
    (told,) = collect_gym("ToyDictionary-v0", tmp_path / "a", episodes=1, **TOY)
    assert told.streams == {
        "camera:view": (), "states": (2,), "actions": (1,), "instruction": (),
        "array:rewards": (1,), "array:goal": (3,),
    }  # fmt: skip
    assert [int(f[0, 0, 0]) for f in told.frames("view")] == [0, 2, 5]
    assert set(np.unique(told.actions)) <= {0.0, 1.0, 2.0}
    (seen,) = collect_gym("ToyPicture-v0", tmp_path / "b", episodes=1, **TOY)
    assert seen.cameras == ("observation",) and seen.states.shape == (3, 0)
    assert seen.success is True and seen.labels["judged"] is False
    (short,) = collect_gym("ToyPlain-v0", tmp_path / "c", episodes=1, horizon=2, workers=1)
    assert short.steps.tolist() == [0, 1] and short.length == 2 and short.cameras == ()


@pytest.mark.sim
def test_workers_collect_the_same(tmp_path):
    options = {"episodes": 6, "camera": "track", "size": 32, "frames": 3, "horizon": 5}
    one = collect_gym("HalfCheetah-v5", tmp_path / "one", workers=1, **options)
    two = collect_gym("HalfCheetah-v5", tmp_path / "two", workers=2, **options)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert one.fingerprint == two.fingerprint and len(two) == 6
    assert one[0].frames("track").shape == (3, 32, 32, 3)


def test_settings_out_of_range_are_refused(agent, tmp_path, monkeypatch):
    for wrong, words in (
        ({"episodes": 0}, "episodes is 0; needed 1 to 10000"),
        ({"frames": 1}, "frames is 1; needed 2 to 1000000"),
        ({"size": 0}, "size is 0; needed 1 to 4096"),
        ({"seed": -1}, "seed is -1; needed 0 to 200000"),
        ({"policies": []}, "no policy that acts in ToyPlain-v0; name files, or 'random'"),
        ({"horizon": 0}, "horizon is 0; needed 1 to"),
        ({"policies": [agent, PolicySource(str(agent))]}, "two policies are named mover; give th"),
    ):
        with pytest.raises(DefinitionError, match=words):
            collect_gym("ToyPlain-v0", tmp_path / "out", **TOY | wrong)
    monkeypatch.setattr(module, "processes", lambda workers: serial())
    with pytest.raises(FormatError, match="'os:Toy-v0' imports the module os; name it with --tr"):
        collect_gym("os:Toy-v0", tmp_path / "out", episodes=1)
    trusted = PolicySource("random", trust=("toys:ToyPlain-v0",))
    (one,) = collect_gym("toys:ToyPlain-v0", tmp_path / "t", policies=[trusted], episodes=1, **TOY)
    assert one.id == "ToyPlain-v0-random-0-0000"
