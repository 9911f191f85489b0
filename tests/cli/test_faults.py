"""A fault of the user's is one line that says what to do, exit code 1, and nothing half written."""

import shutil

import msgspec
import pytest
import tiny_world as world

from mirror_analysis.episodes.arrays import MANIFEST, Record
from mirror_analysis.results import load_result


def written(folder):
    """What a command left in a folder, empty folders aside."""
    if not folder.exists():
        return []
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.fixture
def episodes(place, tmp_path):
    """A copy of the episodes that may be damaged."""
    shutil.copytree(place / "episodes", tmp_path / "episodes")
    return tmp_path / "episodes"


def compare(mirror, place, tmp_path, *more, a="watcher.safetensors", source=None, out="out"):
    return mirror("compare", place / a, place / "actor.safetensors", "--episodes",
                  source or place / "episodes", "--out", tmp_path / out, *more)  # fmt: skip


# -- checkpoints --------------------------------------------------------------------------------


def test_checkpoints_that_are_not_there(mirror, place, tmp_path):
    assert mirror("inspect", tmp_path / "no.safetensors").fault == (
        f"no checkpoint at {tmp_path}/no.safetensors; give a file or folder that is there, a name"
        " of `mirror list`, or a hub id such as facebook/dinov2-base"
    )
    found = mirror("inspect", "watcher-s1", "--include", place / "include").fault
    assert found.startswith("unknown checkpoint 'watcher-s1'; did you mean 'watcher-s0'?")
    assert "(a folder with" in mirror("inspect", place).fault
    assert "is of no known family; known are" in mirror("inspect", place / "file").fault
    fault = compare(mirror, place, tmp_path, a="no.safetensors").fault
    assert fault.startswith("no checkpoint at") and not written(tmp_path)


def test_weights_that_are_not_the_ones_recorded(mirror, tmp_path):
    include = world.include(tmp_path / "include")
    file = include / "checkpoints" / "weights" / "actor-s0.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    fault = mirror("inspect", "actor-s0", "--include", include).fault
    assert f"{file} has sha256" in fault and "restore the file" in fault
    checked = mirror("check", "actor-s0", "--include", include)
    assert checked.code == 1 and f"{file} has sha256" in checked.out


def test_weights_that_give_nan(mirror, place, tmp_path, small):
    fault = compare(mirror, place, tmp_path, a="broken.safetensors").fault
    assert fault.startswith("features of layer 'conv2' of broken hold NaN or infinity in")
    assert not [
        name for name in written(tmp_path) if name.endswith(("safetensors", "json.partial"))
    ]
    assert "out/result.json" not in written(tmp_path)


def test_a_layer_or_pooling_or_device_that_is_not_there(mirror, place, tmp_path):
    fault = compare(mirror, place, tmp_path, "--x-layer", "penultimat").fault
    assert fault.startswith("unknown layer of watcher 'penultimat'; did you mean 'penultimate'?")
    assert "'abacus' was asked for" in compare(mirror, place, tmp_path, "--device", "abacus").fault
    extract = ("extract", place / "actor.safetensors", "--episodes", place / "episodes", "--store",
               tmp_path / "store", "--pooling")  # fmt: skip
    assert mirror(*extract, "lats").fault.startswith("unknown pooling 'lats'; did you mean 'last'?")
    assert not written(tmp_path)


def test_a_model_in_the_wrong_place(mirror, place):
    fault = mirror("rollout", place / "watcher.safetensors").fault
    assert "is an observation model; a rollout needs an execution model" in fault
    fault = mirror("rollout", place / "actor.safetensors", "--tasks", "drawer-opne").fault
    assert fault.startswith("unknown task 'drawer-opne'; did you mean 'drawer-open'?")


# -- definitions --------------------------------------------------------------------------------


def test_definitions_that_do_not_fit(mirror, tmp_path):
    include = world.include(tmp_path / "include")
    file = include / "reports" / "tiny.toml"
    whole = file.read_text()
    run = ("run", "tiny", "--include", include, "--out", tmp_path / "out")
    file.write_text(whole.replace("\ndraws =", "\ndrwas ="))
    fault = mirror(*run).fault
    assert fault.startswith(
        f"{file}: key 'measures.drwas': unknown key 'drwas'; did you mean 'draw"
    )
    assert "drwas" in mirror("check", "tiny", "--include", include).out
    file.write_text("title = [")
    assert "cannot be read as TOML" in mirror(*run).fault
    file.write_text(whole.replace('y_layer = "vision"', 'y_layer = "vison"'))
    assert mirror(*run).fault.startswith("unknown layer of actor-s0 'vison'; did you mean 'vision'")
    file.write_text(whole.replace("tasks = []", 'tasks = ["drawer-opne"]'))
    assert mirror(*run).fault.startswith("unknown task 'drawer-opne'; did you mean 'drawer-open'?")
    assert not written(tmp_path / "out")


def test_studies_and_kinds_and_folders_that_are_not_there(mirror, place, tmp_path):
    run = ("run", "tini", "--out", tmp_path / "out", "--include")
    assert mirror(*run, place / "include").fault.startswith("unknown report 'tini'; did you mean")
    assert f"{tmp_path}/no holds no definitions; needed" in mirror(*run, tmp_path / "no").fault
    assert mirror("list", "measrues").fault.startswith("unknown kind 'measrues'; did you mean 'mea")
    assert mirror("check", "sucess").fault.startswith("unknown definition 'sucess'; did you mean")
    assert not written(tmp_path)


# -- episodes -----------------------------------------------------------------------------------


def test_episodes_that_are_not_there_or_too_few(mirror, place, tmp_path):
    fault = compare(mirror, place, tmp_path, source=tmp_path / "no").fault
    assert fault.startswith(f"no episodes at {tmp_path}/no; give a file or folder that is there")
    assert "unknown episode reader 'rlsd'" in mirror("episodes", "rlsd:here").fault
    one = world.written(tmp_path / "one", [world.episode("push", 0)])
    fault = compare(mirror, place, tmp_path, source=one).fault
    assert fault.startswith("1 episodes give 0 to fit on and 1 to test on; needed at least 8")
    train = ("train", "observation", "--out", tmp_path / "x.safetensors", "--episodes")
    assert mirror(*train, one).fault.startswith("1 episodes of 1 instruction; needed at least two")
    assert not written(tmp_path / "out") and not (tmp_path / "x.safetensors").exists()


def test_episodes_without_a_camera(mirror, place, tmp_path):
    one_eyed = [world.episode(t, i, cameras=("A",)) for t in world.TASKS for i in range(8)]
    source = world.written(tmp_path / "episodes", one_eyed)
    fault = compare(mirror, place, tmp_path, source=source).fault
    assert "does not fit the episodes: no camera:B" in fault
    assert fault.endswith("--map 'camera:B=camera:A'")
    train = mirror("train", "execution", "--episodes", source, "--out", tmp_path / "x.safetensors")
    assert "have no camera 'B'" in train.fault
    extract = mirror("extract", place / "actor.safetensors", "--episodes", source, "--store",
                     tmp_path / "store")  # fmt: skip
    assert (
        "actor does not fit the episodes: no camera:B. It needs camera:B, states [39]"
        in extract.fault
    )
    assert not written(tmp_path / "out") and not (tmp_path / "x.safetensors").exists()


def test_pictures_of_another_size(mirror, place, tmp_path, small):
    large = [world.episode(t, i, size=48) for t in world.TASKS for i in range(8)]
    source = world.written(tmp_path / "episodes", large)
    fault = compare(mirror, place, tmp_path, source=source).fault
    assert "48 x 48 pixels" in fault and "64 x 64" in fault
    assert "out/result.json" not in written(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_file_of_episodes(mirror, place, episodes, tmp_path, share):
    file = episodes / "push-test-won-001.npz"
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    fault = compare(mirror, place, tmp_path, source=episodes).fault
    assert fault.startswith(f"{file} cannot be opened: ") and "needed a whole zip" in fault
    assert mirror("episodes", episodes).fault == fault
    file.unlink()
    assert "is not there; restore it" in mirror("episodes", episodes).fault
    assert not written(tmp_path / "out")


def test_rows_that_cannot_be_told_apart(mirror, place, episodes, tmp_path):
    manifest = episodes / MANIFEST
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(b"".join([*lines, lines[0]]))
    fault = compare(mirror, place, tmp_path, source=episodes).fault
    assert fault.startswith(f"line {len(lines) + 1} of {manifest} repeats the id push-fit-won-000")
    record = msgspec.json.decode(lines[0], type=Record)
    outside = msgspec.structs.replace(record, id="new", file="../x.npz")
    manifest.write_bytes(b"".join([*lines, msgspec.json.encode(outside), b"\n"]))
    assert "lies outside" in compare(mirror, place, tmp_path, source=episodes).fault
    assert not written(tmp_path / "out")


def test_collecting_what_is_not_there(mirror, tmp_path):
    fault = mirror("episodes", "metaworld", "--tasks", "drawer-opne", "--out", tmp_path / "o").fault
    assert fault.startswith("unknown task 'drawer-opne'; did you mean 'drawer-open'?")
    assert mirror("episodes", "metaworld").fault == (
        "no folder to collect into; give one with --out DIR"
    )
    split = mirror("episodes", "metaworld", "--split", "tset", "--out", tmp_path / "o").fault
    assert split.startswith("unknown split 'tset'; did you mean 'test'?")
    assert not (tmp_path / "o").exists()


# -- places -------------------------------------------------------------------------------------


def test_places_that_cannot_be_written(mirror, place, tmp_path, small):
    under = place / "file" / "deep"
    mend = "name a place that can be read and written"
    fault = compare(mirror, place, tmp_path, out=under).fault
    assert fault.startswith(f"{place}/file") and fault.endswith(f"Not a directory; {mend}")
    # No folder can be made in the folder of processes, not even by root.
    assert compare(mirror, place, tmp_path, out="/proc/out").fault.endswith(mend)
    run = mirror("run", "tiny", "--include", place / "include", "--out", under)
    assert run.fault.startswith(f"{place}/file") and run.fault.endswith(mend)
    extract = mirror("extract", place / "actor.safetensors", "--episodes", place / "episodes",
                     "--store", under)  # fmt: skip
    assert extract.fault.endswith(mend)
    report = mirror("report", place / "file", "--out", under)
    assert "is not a mirror-analysis result" in report.fault


def test_training_says_before_it_starts_that_it_cannot_write(mirror, place, tmp_path, monkeypatch):
    for name in ("train_observation", "train_execution"):
        monkeypatch.setattr(
            f"mirror_analysis.cli.making.{name}", lambda *a, **k: pytest.fail("trained for nothing")
        )
    train = ("train", "execution", "--episodes", place / "episodes", "--out")
    assert mirror(*train, tmp_path).fault.startswith(f"{tmp_path} is a folder; needed the name of")
    assert mirror(*train, place / "file" / "x.safetensors").fault.startswith(f"{place}/file: ")


# -- what was written before --------------------------------------------------------------------


def test_damaged_parts_and_results_are_made_again(mirror, place, tmp_path, small):
    words = ("run", "tiny", "--include", place / "include", "--out", tmp_path)
    assert mirror(*words).code == 0
    before = load_result(tmp_path)
    parts = sorted((tmp_path / "parts").iterdir())
    parts[0].write_bytes(b"\xff" + parts[0].read_bytes())
    parts[1].write_bytes(parts[1].read_bytes()[:50])
    (tmp_path / "result.json").write_text('{"study": "tiny"')
    assert "is not a mirror-analysis result" in mirror("report", tmp_path, "--out", tmp_path).fault
    again = mirror(*words)
    assert again.code == 0, again.err
    assert f"measuring, by part: {len(parts) - 2}/{len(parts)}" in again.err
    assert load_result(tmp_path).scores == before.scores
    for shard in (tmp_path / "features").rglob("*.safetensors"):
        shard.write_bytes(shard.read_bytes()[:-9])
    (tmp_path / "result.json").unlink()
    assert mirror(*words).code == 0
    assert load_result(tmp_path).scores == before.scores


def test_a_folder_of_something_else_is_not_written_into(mirror, place, tmp_path):
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "mine.txt").write_text("mine")
    fault = compare(mirror, place, tmp_path, out=".").fault
    assert fault.startswith(f"{tmp_path}/features is not a feature store but holds mine.txt")
    assert written(tmp_path) == ["features/mine.txt"]


def test_reports_of_what_is_not_a_result(mirror, tmp_path):
    fault = mirror("report", tmp_path, "--out", tmp_path).fault
    assert fault.startswith(
        f"no result at {tmp_path}/result.json; `mirror run STUDY --out DIR` writ"
    )
    (tmp_path / "result.json").write_text("[1]")
    assert "is not a mirror-analysis result: Expected `object`" in mirror(
        "report", tmp_path, "--out", tmp_path
    ).fault  # fmt: skip
    assert written(tmp_path) == ["result.json"]
