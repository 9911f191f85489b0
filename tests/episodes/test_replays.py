"""Replays of collected episodes, against the simulator driven by hand."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from scenes import episodes as synthetic

from mirror_analysis.episodes import Simulator, collect, metaworld
from mirror_analysis.episodes import replays as module
from mirror_analysis.episodes.attempts import Course
from mirror_analysis.episodes.replays import PHASES, _first_touch, replay
from mirror_analysis.errors import FormatError, StreamError

SMALL = {"successes": 4, "failures": 1, "seed": 3, "split": "fit", "frames": 9, "size": 8}
TWO = ("faucet-open", "handle-press")


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        # Pictures do not matter here.
        patch.setattr(metaworld, "Simulator", lambda task, **_: Simulator(task, cameras=()))
        return collect(tmp_path_factory.mktemp("collected"), tasks=TWO, workers=1, **SMALL)


@pytest.fixture(scope="module")
def replays(collected):
    told = []
    found = replay(collected, workers=1, progress=lambda *done: told.append(done))
    assert told == [(1, 2), (2, 2)]
    return found


@pytest.mark.parametrize(
    ("contact", "first"),
    [
        ([0, 0, 1, 0, 1], 2),
        ([1, 1, 0, 0, 1], 4),  # it starts with a touch, lets go, and touches again
        ([1, 1, 0, 0], 0),
        ([1, 1], 0),
        ([0, 0, 0], 3),
    ],
)
def test_the_first_touch_that_counts(contact, first):
    assert _first_touch(np.array(contact, dtype=bool)) == first


@pytest.mark.sim
def test_every_episode_is_replayed_frame_by_frame(collected, replays):
    assert list(replays) == [e.id for e in collected]
    for e in collected:
        found = replays[e.id]
        assert found.contact.shape == found.phase.shape == e.steps.shape
        order = [PHASES.index(phase) for phase in found.phase]
        assert order == sorted(order)
        # A success ends three steps after it is done, a failure never is.
        assert (found.phase[-1] == "done") == e.success
        assert not found.contact[found.phase == "reach"][1:].any()
    contacts = np.concatenate([found.contact for found in replays.values()])
    assert 0.1 < contacts.mean() < 0.9
    assert {phase for found in replays.values() for phase in found.phase} == set(PHASES)


@pytest.mark.sim
def test_an_episode_without_noise_is_the_expert_watched_by_hand(collected, replays):
    for task in TWO:
        e = next(e for e in collected.where(task=task, success=True) if e.labels["noise"] == 0)
        with Simulator(task, cameras=()) as simulator:
            observation, kept, successes = simulator.reset(e.labels["environment_seed"]), [], []
            for _ in range(e.length):
                kept.append(simulator.snapshot())
                observation, success = simulator.step(simulator.expert(observation))
                successes.append(success)
            touching = []
            for snapshot in kept:
                simulator.restore(snapshot)
                touching.append(simulator.touching)
        found = replays[e.id]
        assert found.contact.tolist() == [touching[step] for step in e.steps]
        first = successes.index(True) + 1  # the state after the first step that counts
        assert first == e.length - 3
        assert (found.phase == "done").tolist() == [step >= first for step in e.steps]


def two(collected):
    """An episode of either task."""
    return collected.take([0, len(collected) - 1])


def equal(found, expected):
    assert len(found) == 2
    for name, one in found.items():
        assert np.array_equal(one.contact, expected[name].contact)
        assert np.array_equal(one.phase, expected[name].phase)
        assert (one.contact.dtype, one.phase.dtype) == (bool, expected[name].phase.dtype)


@pytest.mark.sim
def test_work_and_outcome_can_be_sent_to_other_processes(collected, replays, monkeypatch):
    class Sent:
        def map(self, function, items, progress=None):
            there = [pickle.loads(pickle.dumps((function, item))) for item in items]
            return pickle.loads(pickle.dumps([function(item) for function, item in there]))

    asked = []
    monkeypatch.setattr(module, "processes", lambda workers: asked.append(workers) or Sent())
    equal(replay(two(collected), workers=2), replays)
    assert asked == [2]


@pytest.mark.sim
def test_what_is_kept_is_not_done_again(collected, replays, tmp_path, monkeypatch):
    some = two(collected)
    equal(replay(some, store=tmp_path, workers=1), replays)
    files = sorted(tmp_path.iterdir())
    assert len(files) == len(TWO)
    files[0].unlink()  # as after an interruption
    told = []
    again = replay(some, store=tmp_path, workers=1, progress=lambda *done: told.append(done))
    equal(again, replays)
    assert told == [(1, 1)]

    def refuse(job):
        raise AssertionError("replayed")

    monkeypatch.setattr(module, "_replay", refuse)
    equal(replay(some, store=tmp_path, workers=1), replays)
    changed = replace(some[0], states=some[0].states + np.float32(1e-6))
    with pytest.raises(AssertionError, match="replayed"):
        replay([changed], store=tmp_path, workers=1)
    for text in (b"{", b'{"contact":[[true]],"phase":[["reach"]]}', b'{"contact":[],"phase":[]}',
                 files[0].read_bytes().replace(b"reach", b"reech"), b"\xff"):  # fmt: skip
        files[0].write_bytes(text)
        with pytest.raises(FormatError, match=r"json is damaged; remove it, and it is made again"):
            replay(some, store=tmp_path, workers=1)


@pytest.mark.sim
@pytest.mark.parametrize(("length", "cut"), [(100, False), (150, True)])
def test_when_an_episode_is_done_is_told_by_its_length_unless_it_was_cut_off(
    length, cut, monkeypatch
):
    course = Course([], [np.zeros(4, np.float32)] * length, [], [], (0.0, 0.0))
    with Simulator("reach", cameras=()) as simulator:
        stepped = []
        monkeypatch.setattr(
            Simulator, "step", lambda *_: (np.zeros(39), stepped.append(0) or len(stepped) == 148)
        )
        assert module._done(simulator, course, 0) == (148 if cut else 97)
    assert bool(stepped) == cut


@pytest.mark.sim
@pytest.mark.parametrize("change", ["states", "seed", "noise", "length"])
def test_what_comes_out_otherwise_is_refused(collected, change):
    e = collected[0]
    labels = dict(e.labels)
    fields = {
        "states": {"states": e.states + np.float32(1e-3)},
        "seed": {"labels": labels | {"environment_seed": labels["environment_seed"] + 1}},
        "noise": {"labels": labels | {"noise": labels["noise"] + 0.2}},
        "length": {"length": e.length + 1},
    }[change]
    with pytest.raises(FormatError, match=rf"episode {e.id} does not come out of a replay as it"):
        replay([replace(e, **fields)], workers=1)


def test_other_episodes_are_refused():
    words = "episode episode 0 has no label 'environment_seed', so it cannot be replayed; needed"
    with pytest.raises(StreamError, match=words):
        replay(synthetic(2))
