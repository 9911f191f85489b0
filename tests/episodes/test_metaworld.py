import shutil
from importlib.metadata import version
from itertools import product

import numpy as np
import pytest

from mirror_analysis.episodes import TASKS, collect, load_episodes
from mirror_analysis.episodes import metaworld as module
from mirror_analysis.episodes.arrays import ArraysWriter, Record
from mirror_analysis.episodes.attempts import (
    NOISE,
    Slot,
    failure_slots,
    slot_of,
    success_slots,
)
from mirror_analysis.episodes.metaworld import ATTEMPTS, SPLITS, environment_seed
from mirror_analysis.episodes.variants import PLAIN, VARIANTS, Variant
from mirror_analysis.errors import (
    ChecksumError,
    DefinitionError,
    DegenerateError,
    FormatError,
    StoreError,
    UnknownNameError,
)

SMALL = {"successes": 4, "failures": 3, "seed": 0, "split": "fit", "frames": 5, "size": 32}
TWO = ("handle-press", "coffee-button")


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    out = tmp_path_factory.mktemp("collected")
    steps = []
    episodes = collect(
        out, tasks=TWO, workers=1, progress=lambda *done: steps.append(done), **SMALL
    )
    assert steps == [(1, 2), (2, 2)]
    return out, episodes


def bytes_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def record(number, side, *, length=50, noise=0.2, success=True, twin=""):
    labels = {"side": side, "noise": noise, "twin": twin}
    return Record(str(number), "f", "0", "drawer-open", "i", success, length, labels)


def test_environment_seeds_are_disjoint():
    choices = list(product(TASKS, (0, 1, 7), SPLITS, (0, 1, ATTEMPTS // 2, ATTEMPTS - 1)))
    seeds = {environment_seed(t, seed=s, split=p, attempt=a) for t, s, p, a in choices}
    assert len(seeds) == len(choices)
    # Each collection of a task has the whole of one block of its own.
    blocks = {
        (t, s, p): environment_seed(t, seed=s, split=p, attempt=0)
        for t, s, p in product(TASKS, range(5), SPLITS)
    }
    assert sorted(blocks.values()) == list(range(0, len(blocks) * ATTEMPTS, ATTEMPTS))


def test_successes_are_balanced_over_sides_and_noise():
    slots = success_slots("window-close", 16)
    assert sorted((slot.side, slot.noise) for slot in slots) == sorted(
        (side, noise) for side in ("near", "far") for noise in NOISE for _ in range(2)
    )


def test_failures_match_successes():
    twins = [record(i, "left" if i < 5 else "right", length=40 + i) for i in range(8)]
    every = failure_slots(twins, 8, seed=0)
    assert sorted(slot.twin for slot in every) == sorted(twin.id for twin in twins)
    by_id = {twin.id: twin for twin in twins}
    for slot in every:
        twin = by_id[slot.twin]
        assert slot == Slot(str(twin.labels["side"]), 0.2, twin.length, twin.id)
    some = failure_slots(twins, 4, seed=0)
    assert [slot.side for slot in some].count("left") == 2
    assert len({slot.twin for slot in some}) == 4
    assert some != failure_slots(twins, 4, seed=1)
    assert len(failure_slots(twins, 20, seed=0)) == 20


def test_slots_are_found_again():
    failure = record(0, "left", length=33, success=False, twin="9")
    assert slot_of(failure) == Slot("left", 0.2, 33, "9")
    assert slot_of(record(1, "right")) == Slot("right", 0.2)


@pytest.mark.sim
def test_what_is_collected_is_as_asked(collected):
    out, episodes = collected
    assert load_episodes(str(out)).fingerprint == episodes.fingerprint
    for task in TWO:
        ours = episodes.where(task=task)
        successes, failures = ours.where(success=True), ours.where(success=False)
        assert (len(successes), len(failures)) == (4, 3)
        labels = successes.labels()
        assert sorted(labels["side"]) == ["left", "left", "right", "right"]
        assert (labels["error"] == 0).all()
        errors = failures.labels()["error"]
        assert ((errors >= 0.04) & (errors <= 0.16)).all()
        for e in ours:
            assert e.instruction == f"{TASKS[task].phrase} on the {e.labels['side']}"
            assert (e.labels["target_x"] < 0) == (e.labels["side"] == "left")
            assert len(e.steps) == 5 <= e.length <= 150
            assert (e.steps[0], e.steps[-1]) == (0, e.length - 1)
            assert np.allclose(e.timestamps, e.steps * 0.0125)
            assert e.states.shape == (5, 39)
            assert np.abs(e.actions).max() <= 1
            assert e.frames("A").shape == e.frames("B").shape == (5, 32, 32, 3)
            assert not np.array_equal(e.frames("A")[0], e.frames("A")[-1])


@pytest.mark.sim
def test_length_noise_and_side_do_not_tell_failure(collected):
    _, episodes = collected
    for e in episodes.where(success=False):
        (twin,) = [s for s in episodes if s.id == e.labels["twin"]]
        assert twin.success
        assert (e.length, e.instruction) == (twin.length, twin.instruction)
        assert e.labels["noise"] == twin.labels["noise"]
        assert e.labels["environment_seed"] != twin.labels["environment_seed"]
    twins = [e.labels["twin"] for e in episodes.where(success=False)]
    assert len(set(twins)) == len(twins)


@pytest.mark.sim
def test_actions_are_what_was_done_and_the_expert_is_clean(collected):
    _, episodes = collected
    for e in episodes:
        hindered = e.labels["noise"] > 0 or not e.success
        assert np.array_equal(e.actions, e.extras["expert_actions"]) != hindered


@pytest.mark.sim
def test_pictures_belong_to_the_states(collected):
    """In the first frame the cameras see what a simulator reset to the episode's seed shows."""
    from mirror_analysis.episodes import Simulator

    _, episodes = collected
    e = episodes[1]
    with Simulator(e.task, size=32) as simulator:
        observation = simulator.reset(e.labels["environment_seed"])
        assert np.array_equal(observation.astype(np.float32), e.states[0])
        for camera in "AB":
            assert np.array_equal(simulator.render(camera), e.frames(camera)[0])


@pytest.mark.sim
def test_the_same_arguments_give_the_same_bytes_with_any_workers(collected, tmp_path):
    out, episodes = collected
    again = collect(tmp_path, tasks=TWO, workers=2, **SMALL)
    assert again.fingerprint == episodes.fingerprint
    assert bytes_of(tmp_path) == bytes_of(out)


@pytest.mark.sim
def test_an_interrupted_collection_goes_on_where_it_stopped(collected, tmp_path, monkeypatch):
    out, _ = collected
    add, added = ArraysWriter.add, []

    def stop_at_five(self, episode):
        if len(added) == 5:
            raise KeyboardInterrupt
        added.append(episode.id)
        return add(self, episode)

    monkeypatch.setattr(ArraysWriter, "add", stop_at_five)
    with pytest.raises(KeyboardInterrupt):
        collect(tmp_path, tasks=TWO[:1], workers=1, **SMALL)
    assert not (tmp_path / "manifest.jsonl").exists()
    monkeypatch.setattr(ArraysWriter, "add", lambda s, e: added.append(e.id) or add(s, e))
    collect(tmp_path, tasks=TWO[:1], workers=1, **SMALL)
    assert len(added) == len(set(added)) == 7
    folder = f"{TWO[0]}-fit-0"
    assert bytes_of(tmp_path / folder) == bytes_of(out / folder)


@pytest.mark.sim
def test_damaged_files_are_made_again_and_others_left_alone(collected, tmp_path, monkeypatch):
    out, _ = collected
    shutil.copytree(out, tmp_path / "copy")
    damaged = sorted((tmp_path / "copy").rglob("*.npz"))
    damaged[0].unlink()
    damaged[6].write_bytes(b"nonsense")
    monkeypatch.setattr(ArraysWriter, "add", None)  # nothing is added
    collect(tmp_path / "copy", tasks=TWO, workers=1, **SMALL)
    assert bytes_of(tmp_path / "copy") == bytes_of(out)


@pytest.mark.sim
def test_a_file_that_comes_out_different_is_an_error(collected, tmp_path):
    out, _ = collected
    shutil.copytree(out, tmp_path / "copy")
    manifest = tmp_path / "copy" / "handle-press-fit-0" / "manifest.jsonl"
    manifest.write_text(manifest.read_text().replace('"sha256":"', '"sha256":"0', 1))
    with pytest.raises(ChecksumError, match=r"npz is damaged and does not come out as it was"):
        collect(tmp_path / "copy", tasks=TWO, workers=1, **SMALL)


@pytest.mark.sim
def test_other_collections_may_share_the_folder(collected, tmp_path):
    out, episodes = collected
    shutil.copytree(out, tmp_path / "copy")
    few = SMALL | {"split": "test", "successes": 1, "failures": 0}
    more = collect(tmp_path / "copy", tasks=TWO[:1], workers=1, **few)
    assert [e.labels["split"] for e in more] == ["test"]
    both = load_episodes(str(tmp_path / "copy"))
    assert [e.id for e in both] == [*(e.id for e in episodes), more[0].id]


@pytest.mark.sim
def test_another_look_gives_the_same_episodes_with_other_pictures(collected, tmp_path):
    task, variant = TWO[0], VARIANTS["table-dark"]
    few = SMALL | {"successes": 2, "failures": 1}
    plain = collect(tmp_path / "plain", tasks=[task], workers=1, **few)
    other = collect(tmp_path / "dark", tasks=[task], workers=1, variant=variant, **few)
    for here, there in zip(plain, other, strict=True):
        assert (here.id, here.length, here.labels) == (there.id, there.length, there.labels)
        assert np.array_equal(here.states, there.states)
        assert np.array_equal(here.actions, there.actions)
        for camera in "AB":
            assert here.frames(camera).mean() > there.frames(camera).mean() + 5
    assert plain.fingerprint != other.fingerprint
    written = (tmp_path / "dark" / f"{task}-fit-0" / "collection.json").read_text()
    assert ',"schema":1,"variant":{"azimuth":0.0,' in written
    words = r"collected with variant table \(0.35, 0.35, 0.45\), not none; ask for the same"
    with pytest.raises(StoreError, match=words):
        collect(tmp_path / "dark", tasks=[task], workers=1, **few)
    # An interrupted collection goes on under its look, and damaged files come out under it.
    (damaged,) = (tmp_path / "dark").rglob(f"{other[0].id}.npz")
    damaged.unlink()
    again = collect(tmp_path / "dark", tasks=[task], workers=1, variant=variant, **few)
    assert again.fingerprint == other.fingerprint


def test_the_plain_look_is_not_written_down(tmp_path):
    nothing = SMALL | {"successes": 0, "failures": 0}
    for variant in (None, PLAIN, Variant()):
        collect(tmp_path, tasks=TWO[:1], workers=1, variant=variant, **nothing)
    path = tmp_path / f"{TWO[0]}-fit-0" / "collection.json"
    versions = f'"metaworld":"{version("metaworld")}","mujoco":"{version("mujoco")}"'
    assert path.read_text() == (
        '{"successes":0,"failures":0,"seed":0,"split":"fit","frames":5,"size":32,'
        f'{versions},"schema":1}}\n'
    )


def test_a_folder_collected_otherwise_is_refused(tmp_path):
    folder = tmp_path / "handle-press-fit-0"

    def ask(**changes):
        return collect(tmp_path, tasks=TWO[:1], workers=1, **SMALL | changes)

    nothing = {"successes": 0, "failures": 0}
    assert len(ask(**nothing)) == 0
    with pytest.raises(StoreError, match="was collected with size 32, not 64; ask for the same"):
        ask(size=64, **nothing)
    (folder / "collection.json").write_text("{}")
    with pytest.raises(FormatError, match=r"collection.json cannot be read .*choose another"):
        ask(**nothing)
    (folder / "collection.json").unlink()
    (folder / "manifest.jsonl").write_bytes(
        b'{"id":"a","file":"a","sha256":"","task":"","instruction":"","success":true,"length":1}\n'
    )
    with pytest.raises(StoreError, match=r"holds episodes but no collection.json; choose another"):
        ask(**nothing)


@pytest.mark.sim
def test_a_task_that_does_not_give_enough_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TRIES", 2)
    monkeypatch.setattr(module.attempts, "ERROR", (0.0, 0.0))
    with pytest.raises(
        DegenerateError, match=r"handle-press gave 0 of 1 failures in 2 attempts; ask for fewer"
    ):
        few = SMALL | {"successes": 2, "failures": 1}
        collect(tmp_path, tasks=TWO[:1], workers=1, **few)


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"tasks": ("drawer",)}, UnknownNameError, "unknown task 'drawer'; did you mean 'drawer-"),
        ({"split": "train"}, UnknownNameError, "unknown split 'train'"),
        ({"frames": 1}, DefinitionError, "frames is 1; needed 2 or more"),
        ({"seed": -1}, DefinitionError, "seed is -1; needed 0 or more"),
        ({"seed": 3976}, DefinitionError, "seed is 3976; needed 3975 or less, since the"),
        ({"successes": 0}, DefinitionError, "3 failures but 0 successes asked for; each failure"),
    ],
)
def test_impossible_collections_are_refused(tmp_path, changes, error, text):
    with pytest.raises(error, match=text):
        collect(tmp_path, **SMALL | changes)
