"""Checkpoints and episodes of others, from the shell."""

import json

import numpy as np
import pytest
import torch
from sb3_zips import CASES, write_agent
from toys import toys

from mirror_analysis.episodes import load_episodes, write_lerobot
from mirror_analysis.models import families
from mirror_analysis.parallel import serial
from mirror_analysis.rollout.lockstep import End
from mirror_analysis.testing import made_up


@pytest.fixture
def agent(tmp_path):
    """An agent for the toy environment: two numbers in, one out."""
    shapes = {
        "mlp_extractor.policy_net.0.weight": (8, 2),
        "mlp_extractor.value_net.0.weight": (6, 2),
        "action_net.weight": (1, 7),
        "log_std": (1,),
    }
    weights = {name: torch.zeros(*shape) for name, shape in shapes.items()}
    weights["action_net.bias"] = torch.tensor([0.25])
    data = CASES["ppo"]["data"]
    seen = data["observation_space"] | {"_shape": [2], "low": "[-inf -inf]", "high": "[inf inf]"}
    done = data["action_space"] | {"_shape": [1], "low": "[-1.]", "high": "[1.]"}
    spaces = {"observation_space": seen, "action_space": done}
    return write_agent(tmp_path / "mover.zip", "ppo", weights=weights, data=spaces)


def test_inspect_says_whose_it_is_under_any_name(mirror, agent, tmp_path):
    lying = tmp_path / "photo.jpg"
    agent.rename(lying)
    found = json.loads(mirror("inspect", lying, "--json").out)
    assert (found["family"], found["algorithm"], found["role"]) == ("sb3", "PPO", "execution")
    assert found["inputs"] == "states [2]"
    assert [row["layer"] for row in found["layers"]] == ["hidden1", "hidden2", "action"]
    critic = json.loads(mirror("inspect", lying, "--set", "critic=yes", "--json").out)
    assert len(critic["layers"]) > 3


def test_settings_that_are_none_are_refused(mirror, agent):
    assert "unknown option of sb3 'frames'" in mirror("inspect", agent, "--set", "frames=3").fault
    assert "--set 'critic' is no setting" in mirror("inspect", agent, "--set", "critic").fault
    twice = mirror("inspect", agent, "--set", "critic=no", "--set", "critic=yes").fault
    assert twice == "--set gives 'critic' twice; give it once"
    assert (
        "'third' does not say which call" in mirror("inspect", agent, "--set", "calls=third").fault
    )


def test_families_and_sources_are_listed(mirror):
    found = json.loads(mirror("list", "families", "--json").out)["families"]
    assert [row["name"] for row in found] == list(families.FAMILIES)
    sources = {
        row["name"] for row in json.loads(mirror("list", "sources", "--json").out)["sources"]
    }
    assert {"metaworld", "gym", "lerobot", "rlbench", "rlds", "robomimic", "videos"} <= sources


def test_a_policy_acts_in_gymnasium(mirror, agent, tmp_path, monkeypatch):
    # Environments that are registered here are not known to other processes.
    monkeypatch.setattr("mirror_analysis.rollout.returns.processes", lambda workers: serial())
    with toys():
        words = ["--env", "ToyPlain-v0", "--episodes", 3, "--workers", 1]
        scores = json.loads(mirror("rollout", agent, *words, "--json").out)
        assert {s["measure"] for s in scores} == {"return", "success_rate"}
        shown = mirror("rollout", agent, *words).out
        assert "return" in shown and "environment" in shown
        out = tmp_path / "episodes"
        words = ["--policy", agent, "--camera", "render", "--per-task", 4, "--size", 8]
        words += ["--frames", 3, "--horizon", 5, "--workers", 1, "--out", out]
        text = mirror("episodes", "gym:ToyPlain-v0", *words).out
        assert "mover" in text and "camera:render" in text
        none = mirror("episodes", "gym:ToyPlain-v0", "--out", tmp_path / "none").fault
        assert "no policy that acts in ToyPlain-v0" in none
    found = load_episodes(str(out))
    assert [e.length for e in found] == [5] * 4 and found[0].stream("camera:render").shape[0] == 3
    store = tmp_path / "store"
    rows = json.loads(
        mirror("extract", agent, "--episodes", out, "--store", store, "--limit", 2, "--json").out
    )
    assert [row["rows"] for row in rows] == [2, 2, 2]


def test_a_policy_acts_under_another_look(mirror, place, agent, monkeypatch):
    def run(job):
        lost = {"plain": 0, "camera-side": 2, "nuisance": 1}[job.look.condition]
        return [
            [[End(seed % 4 >= lost + p, 9) for seed in job.seeds] for _ in job.tasks]
            for p in range(len(job.policies))
        ]

    monkeypatch.setattr("mirror_analysis.rollout.metaworld._run", run)
    monkeypatch.setattr("mirror_analysis.rollout.metaworld.processes", lambda workers: serial())
    actor = place / "actor.safetensors"
    words = ["rollout", actor, "--tasks", "drawer-open,door-open", "--episodes", 8]
    variant = ["--variant", "camera-side"]
    scores = json.loads(mirror(*words, *variant, "--json").out)
    assert [(s["value"], s["condition"]) for s in scores] == [(0.5, "camera-side")] * 3
    scores = json.loads(mirror(*words, "--nuisance", "--json").out)
    assert [(s["value"], s["condition"]) for s in scores] == [(0.75, "nuisance")] * 3
    scores = json.loads(mirror(*words, *variant, "--against", actor, "--json").out)
    assert [s["value"] for s in scores] == [0.5] * 3 + [0.25] * 3 + [0.25]
    assert {s["condition"] for s in scores} == {"camera-side"}
    head, *rows, gap, last = mirror(*words, *variant, "--drop").out.splitlines()
    assert head.split() == ["task", "plain", "camera-side", "episodes"] and not gap
    assert [row.split()[-3:] for row in rows] == [["1.000", "0.500", "8"]] * 2 + [
        ["1.000", "0.500", "16"]
    ]
    assert last.startswith("actor (plain) x actor (camera-side): 0.500 [")
    assert "nuisance" in mirror(*words, "--nuisance", "--drop").out

    both = mirror(*words, *variant, "--nuisance").fault
    assert both == "--nuisance and --variant camera-side are two conditions; leave one out"
    needs = "--drop compares one policy in Meta-World with and without --variant NAME or --nuis"
    assert mirror(*words, "--drop").fault.startswith(needs)
    assert mirror(*words, "--drop", *variant, "--against", actor).fault.startswith(needs)
    assert mirror(*words, "--drop", *variant, "--env", "ToyPlain-v0").fault.startswith(needs)
    for compared in (["--against", actor], ["--drop", *variant]):
        for other in (["--horizon", 5], ["--camera", "track"]):
            assert mirror(*words, *compared, *other).fault == (
                "--camera and --horizon belong to Gymnasium, --against and --drop to Meta-World;"
                " leave out the former"
            )
    with_env = mirror(*words, "--against", actor, "--env", "ToyPlain-v0").fault
    assert with_env == "--against compares in Meta-World; leave --env out"
    unknown = mirror(*words, "--variant", "camera-sid").fault
    assert unknown.startswith("unknown variant 'camera-sid'; did you mean 'camera-side'?")
    assert (
        "variants belong to Meta-World, not to ToyPlain-v0"
        in mirror("rollout", agent, "--env", "ToyPlain-v0", *variant).fault
    )


def test_streams_are_mapped_by_the_words_of_the_error(mirror, agent, tmp_path):
    from mirror_analysis.models.model import Input

    episodes = made_up([Input("array:joints", 2), Input("states", 5)], count=3)
    pytest.importorskip("av")
    write_lerobot(episodes, tmp_path / "data")
    words = ["extract", agent, "--episodes", tmp_path / "data", "--store", tmp_path / "store"]
    fault = mirror(*words).fault
    assert "states has 5 numbers where states has 2" in fault
    mend = fault.split("map them: --map ")[1].strip("'")
    assert mend == "states=array:joints"
    assert mirror(*words, "--map", mend).code == 0
    assert "is no pair; needed MODEL_INPUT=EPISODE_STREAM" in mirror(*words, "--map", "x").fault


def test_episodes_of_others_are_described_and_converted(mirror, tmp_path):
    from mirror_analysis.models.model import Input

    pytest.importorskip("av")
    episodes = made_up([Input("camera:top"), Input("states", 3)], count=3, frames=6)
    first, second = tmp_path / "first", tmp_path / "second"
    write_lerobot(episodes, first, codec="png")
    described = json.loads(mirror("episodes", first, "--json").out)
    assert described["streams"] == "camera:top, states [3], instruction"
    assert mirror("episodes", first, "--out", second, "--codec", "png", "--frames", 2).code == 0
    again = load_episodes(f"lerobot:{second}")
    assert [len(e.steps) for e in again] == [2, 2, 2]
    np.testing.assert_array_equal(
        again[1].stream("camera:top"), episodes[1].stream("camera:top")[[0, -1]]
    )
    assert "unknown episode reader 'lerobt'; did you" in mirror("episodes", "lerobt:x").fault
    (tmp_path / "empty").mkdir()
    assert (
        "is in no format of episodes that is known" in mirror("episodes", tmp_path / "empty").fault
    )


def test_words_out_of_files_move_no_cursor(mirror, tmp_path):
    pytest.importorskip("av")
    from dataclasses import replace

    from mirror_analysis.episodes import Episodes
    from mirror_analysis.models.model import Input

    odd = "open\x1b[2J the door\nand close it"
    made = made_up([Input("states", 3)], count=2)
    write_lerobot(Episodes([replace(e, task=odd, instruction=odd) for e in made]), tmp_path / "odd")
    shown = mirror("episodes", tmp_path / "odd").out
    assert "\x1b" not in shown and r"open\x1b[2J the door\nand close it" in shown
