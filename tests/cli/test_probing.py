"""`mirror probe`: layers beside their untrained twin, and faults in a line."""

import json

import pytest


@pytest.fixture
def probe(mirror, place):
    return lambda name, *words: mirror(
        "probe", name, place / "watcher.safetensors", "--episodes", place / "episodes",
        "--draws", 19, *words,
    )  # fmt: skip


def test_layers_are_told_beside_the_untrained_twin(probe, tmp_path):
    shown = probe("instruction", "--store", tmp_path / "store")
    assert shown.code == 0, shown.err
    lines = shown.out.splitlines()
    assert lines[1] == "probe_accuracy of 'instruction', 32 episodes held out in turn"
    head = lines[3].split("  ")
    assert head[0] == "layer" and "untrained" in lines[3] and "gain low" in lines[3]
    assert [line.split()[0] for line in lines[4:12]] == [
        "conv1", "conv2", "conv3", "conv4", "frame", "temporal", "penultimate", "instruction",
    ]  # fmt: skip
    assert any(line.startswith("best of 8 layers: ") for line in lines)
    assert "extracting watcher-untrained0: 32/32" in shown.err
    again = probe("instruction", "--store", tmp_path / "store")
    assert again.out == shown.out


def test_json_has_the_model_its_twin_and_their_differences(probe):
    shown = probe("instruction", "--json", "--held-out", "split")
    scores = json.loads(shown.out)
    assert [s.get("role", "pair") for s in scores] == (
        ["pair"] * 8 + ["control"] * 8 + ["difference"] * 8
    )
    assert scores[0]["x"] == "watcher" and scores[8]["x"] == "watcher-untrained0"
    assert scores[0]["n"] == 12 and scores[0]["parameters"]["held_out"] == "split"
    gain = scores[16]["value"]
    assert gain == pytest.approx(scores[0]["value"] - scores[8]["value"])
    alone = probe("instruction", "--json", "--held-out", "split", "--no-control")
    assert json.loads(alone.out) == scores[:8]


def test_steps_are_extracted_where_a_probe_needs_them(probe, tmp_path):
    folder = tmp_path / "probes"
    folder.mkdir()
    (folder / "action.toml").write_text(
        'name = "action"\nsummary = "What comes."\ntarget = ["action_0", "action_1"]\n'
        'kind = "regression"\nlayers = ["frame"]\nheld_out = "episode"\nestimator = "ridge"\n'
        'folds = 3\nlevel = "step"\n'
    )
    shown = probe("action", "--include", tmp_path, "--json", "--no-control")
    assert shown.code == 0, shown.err
    (score,) = json.loads(shown.out)
    assert (score["measure"], score["y"], score["n"]) == ("probe_r2", "action_0+action_1", 32)
    assert score["parameters"]["rows"] == 96


def test_faults(probe, mirror, place, tmp_path):
    assert probe("instructoin").fault.startswith(
        "unknown probe 'instructoin'; did you mean 'instruction'?"
    )
    assert probe("task", "--held-out", "task").fault.startswith(
        "2 groups are to be held out in turn; needed at least 3"
    )
    assert probe("task", "--held-out", "camera").fault.startswith("unknown held_out 'camera'")
    assert probe("goal-side").fault.startswith("unknown label 'side'")
    (tmp_path / "store.json").write_text("{}")
    shown = mirror("probe", "task", tmp_path, "--episodes", place / "episodes")
    assert shown.fault == (
        f"{tmp_path} is a feature store, which has no labels; name the checkpoint, the episodes,"
        f" and the store as --store {tmp_path}"
    )
