import json

from mirror_analysis.models import load_model


def test_train_mirror_trains_writes_and_tells(mirror, place, tmp_path):
    out = tmp_path / "pair"
    words = ("train", "mirror", "--episodes", place / "episodes", "--out", out, "--epochs", 2,
             "--batch", 16, "--shown", 2, "--pairing", "task", "--json")  # fmt: skip
    shown = mirror(*words)
    assert shown.code == 0, shown.err
    found = json.loads(shown.out)
    assert found["out"] == str(out)
    assert [row["update"] for row in found["curve"]] == [2, 4]
    assert {"observation", "execution", "alignment", "align_weight"} < set(found["curve"][0])
    assert "training both models: 4/4" in shown.err
    assert load_model(out / "execution.safetensors").role == "execution"
    kept = json.loads((out / "run.json").read_text())
    assert kept["config"]["pairing"] == "task" and kept["config"]["batch"] == 16
    assert mirror(*words).fault.startswith(f"{out} holds a trained pair already")


def test_train_mirror_refuses_in_words(mirror, place, tmp_path):
    words = ("train", "mirror", "--episodes", place / "episodes", "--out", tmp_path / "pair")
    assert mirror(*words, "--pairing", "side").fault.startswith("Invalid enum value 'side'")
    fault = mirror(*words, "--temperature", 0).fault
    assert fault == "joint training temperature is 0.0; needed a number above 0"
    assert "fewer than a batch of 99" in mirror(*words, "--batch", 99).fault
    assert not (tmp_path / "pair" / "run.json").exists()


def test_train_of_what_there_is_not(mirror, place, tmp_path):
    shown = mirror("train", "actor", "--episodes", place / "episodes", "--out", tmp_path / "x")
    assert shown.code == 2 and "No such command 'actor'" in shown.err
