import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_episode import episode

from mirror_analysis.episodes import Episodes, Nuisance, apply_nuisance, draw, jitter
from mirror_analysis.episodes.nuisance import NuisanceDraw
from mirror_analysis.errors import DefinitionError, ShapeError

FRAMES = np.random.default_rng(0).integers(0, 256, (2, 8, 7, 3), dtype=np.uint8)
SAME = NuisanceDraw((1.0, 1.0, 1.0), 0.0, (0, 0))


def slow_jitter(frames, draw):
    """The definition, pixel by pixel."""
    out = np.empty_like(frames)
    _, height, width, _ = frames.shape
    for t, y, x, c in np.ndindex(frames.shape):
        source_y = min(max(y - draw.shift[0], 0), height - 1)
        source_x = min(max(x - draw.shift[1], 0), width - 1)
        value = draw.gain[c] * frames[t, source_y, source_x, c] + draw.offset
        out[t, y, x, c] = min(max(round(value), 0), 255)
    return out


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32))
def test_jitter_is_its_definition(seed):
    chosen = draw(Nuisance(seed=seed), "e", "A")
    assert np.array_equal(jitter(FRAMES, chosen), slow_jitter(FRAMES, chosen))


def test_no_nuisance_changes_nothing_and_the_argument_never():
    before = FRAMES.copy()
    assert np.array_equal(jitter(FRAMES, SAME), FRAMES)
    jitter(FRAMES, draw(Nuisance(), "e", "A"))
    assert np.array_equal(FRAMES, before)


def test_a_move_repeats_the_edge():
    moved = jitter(FRAMES, NuisanceDraw((1.0, 1.0, 1.0), 0.0, (2, 0)))
    assert np.array_equal(moved[:, 2:], FRAMES[:, :-2])
    assert np.array_equal(moved[:, :2], np.repeat(FRAMES[:, :1], 2, axis=1))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32), st.text(max_size=20))
def test_draws_stay_in_range_and_repeat(seed, name):
    nuisance = Nuisance(seed=seed)
    chosen = draw(nuisance, name, "A")
    assert chosen == draw(nuisance, name, "A")
    assert all(0.55 <= g <= 1.45 for g in chosen.gain)
    assert -40 <= chosen.offset <= 40
    assert all(-5 <= s <= 5 for s in chosen.shift)


def test_draws_of_cameras_episodes_and_seeds_are_independent():
    def numbers(camera, seed):
        chosen = [draw(Nuisance(seed=seed), f"e{i}", camera) for i in range(400)]
        return np.array([[*d.gain, d.offset, *d.shift] for d in chosen])

    a, b, c = numbers("A", 0), numbers("B", 0), numbers("A", 1)
    columns = np.concatenate([a, b, c], axis=1)
    correlation = np.corrcoef(columns.T) - np.eye(18)
    assert np.abs(correlation).max() < 0.2  # 4 standard errors at 400
    assert set(a[:, 4]) == set(range(-5, 6))
    assert a[:, 0].min() < 0.6 < 1.4 < a[:, 0].max()


def test_every_camera_of_every_episode_gets_its_own_and_order_does_not_matter():
    one, two = episode("a"), episode("b")  # the same pictures under two names
    plain = Episodes([one, two])
    seen = apply_nuisance(plain, Nuisance(seed=3))
    again = apply_nuisance(Episodes([two, one]), Nuisance(seed=3))
    assert np.array_equal(seen[0].frames("A"), again[1].frames("A"))
    assert not np.array_equal(seen[0].frames("A"), seen[1].frames("A"))
    assert np.array_equal(
        seen[0].frames("A"), jitter(one.frames("A"), draw(Nuisance(seed=3), "a", "A"))
    )
    assert np.array_equal(seen[0].states, one.states)


def test_the_fingerprint_tells_nuisances_apart():
    plain = Episodes([episode("a")])
    kinds = [
        plain,
        apply_nuisance(plain, Nuisance()),
        apply_nuisance(plain, Nuisance(seed=1)),
        apply_nuisance(plain, Nuisance(shift=4)),
    ]
    assert len({kind.fingerprint for kind in kinds}) == 4
    assert kinds[1].fingerprint == apply_nuisance(plain, Nuisance()).fingerprint


def test_disturbed_episodes_can_be_sent_to_another_process():
    seen = apply_nuisance(Episodes([episode("a")]), Nuisance())
    sent = pickle.loads(pickle.dumps(seen))
    assert sent.fingerprint == seen.fingerprint
    assert np.array_equal(sent[0].frames("B"), seen[0].frames("B"))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"gain": (1.2, 0.8)}, r"nuisance gain is \(1.2, 0.8\); needed low <= high"),
        ({"gain": (-0.5, 1.0)}, "nuisance gain starts at -0.5; needed 0 or more"),
        ({"offset": (1.0, 0.0)}, "nuisance offset is"),
        ({"shift": -1}, "nuisance shift is -1 pixels; needed 0 or more"),
    ],
)
def test_impossible_nuisances_are_refused(fields, text):
    with pytest.raises(DefinitionError, match=text):
        Nuisance(**fields)


def test_only_pictures_are_jittered():
    with pytest.raises(ShapeError, match=r"frames are uint8 \[2, 3\]; needed uint8 \[time"):
        jitter(np.zeros((2, 3), np.uint8), SAME)
