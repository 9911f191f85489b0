import numpy as np
import oracles_motion
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror_analysis.errors import DegenerateError, DeviceError, ShapeError, UnknownNameError
from mirror_analysis.similarity.motion.dtw import dtw_distances
from mirror_analysis.similarity.motion.trajectories import POSE, Block, read, unpad

seeds = st.integers(0, 2**32 - 1)
few = settings(deadline=None, max_examples=15)


def rotations(seed, count):
    """Uniform unit quaternions w, x, y, z."""
    q = np.random.default_rng(seed).standard_normal((count, 4))
    return q / np.linalg.norm(q, axis=1, keepdims=True)


def rotation(representation):
    width = {"matrix": 9, "6d": 6, "axis_angle": 3, "euler_xyz": 3}.get(representation, 4)
    return Block("hand", slice(0, width), kind="rotation", representation=representation)


def angles(a, b, representation):
    """Angle of step i of a to step i of b."""
    x, y = (np.asarray(s)[:, None] for s in (a, b))
    return dtw_distances(x, y, blocks=[rotation(representation)]).diagonal().numpy()


def product(p, q):
    (a, b, c, d), (w, x, y, z) = p.T, q.T
    return np.stack(
        [
            a * w - b * x - c * y - d * z,
            a * x + b * w + c * z - d * y,
            a * y - b * z + c * w + d * x,
            a * z + b * y - c * x + d * w,
        ],
        axis=1,
    )


FORMS = {
    "quaternion_wxyz": lambda q, m: q,
    "quaternion_xyzw": lambda q, m: q[:, [1, 2, 3, 0]],
    "matrix": lambda q, m: m.reshape(len(m), 9),
    "6d": lambda q, m: m[:, :, :2].transpose(0, 2, 1).reshape(len(m), 6),
}


@pytest.mark.parametrize("representation", FORMS)
@few
@given(seed=seeds)
def test_angle_is_that_of_the_matrices(representation, seed):
    p, q = rotations(seed, 8), rotations(seed + 1, 8)
    m, n = (np.stack([oracles_motion.of_wxyz(v) for v in s]) for s in (p, q))
    expected = [oracles_motion.angle(a, b) for a, b in zip(m, n, strict=True)]
    form = FORMS[representation]
    np.testing.assert_allclose(angles(form(p, m), form(q, n), representation), expected, atol=1e-9)


@pytest.mark.parametrize("representation", ["euler_xyz", "axis_angle"])
@few
@given(seed=seeds)
def test_angle_of_three_numbers_is_that_of_the_matrices(representation, seed):
    a, b = np.random.default_rng(seed).uniform(-4, 4, (2, 8, 3))
    a[0] = 0
    make = {"euler_xyz": oracles_motion.of_euler, "axis_angle": oracles_motion.of_axis_angle}
    matrix = make[representation]
    expected = [oracles_motion.angle(matrix(u), matrix(v)) for u, v in zip(a, b, strict=True)]
    np.testing.assert_allclose(angles(a, b, representation), expected, atol=1e-9)


@few
@given(seed=seeds)
def test_angle_does_not_depend_on_the_frame_of_either_end(seed):
    p, q, fixed = rotations(seed, 8), rotations(seed + 1, 8), rotations(seed + 2, 1)
    before = angles(p, q, "quaternion_wxyz")
    for moved in ((product(fixed, p), product(fixed, q)), (product(p, fixed), product(q, fixed))):
        np.testing.assert_allclose(angles(*moved, "quaternion_wxyz"), before, atol=1e-9)
    # What it must not be the same under: another frame for one of the two only.
    assert np.abs(angles(product(p, fixed), q, "quaternion_wxyz") - before).max() > 1e-3


def test_a_quaternion_and_its_negative_are_one_rotation():
    q = rotations(0, 8)
    assert angles(q, -q, "quaternion_wxyz").max() == 0


def test_euler_angles_wrap_round():
    up, down = [[0.0, 0.0, np.pi - 0.01]], [[0.0, 0.0, -np.pi + 0.01]]
    np.testing.assert_allclose(angles(up, down, "euler_xyz"), 0.02, atol=1e-12)
    np.testing.assert_allclose(angles([[np.pi, 0, 0]], [[-np.pi, 0, 0]], "euler_xyz"), 0, atol=1e-9)
    # The same numbers as a vector are almost a full turn apart.
    assert float(dtw_distances([np.array(up)], [np.array(down)])) == pytest.approx(2 * np.pi - 0.02)


def test_small_and_half_turns_are_exact():
    for angle in (1e-12, 1e-8, 1e-4, 1.0, np.pi - 1e-8, np.pi):
        found = angles([[0.0, 0, 0]], [[angle, 0, 0]], "axis_angle")
        np.testing.assert_allclose(found, angle, rtol=1e-9)


def test_blocks_add_up_with_weights_and_scales():
    a, b = np.zeros((1, 7)), np.array([[3.0, 4.0, 0.0, 0.5, 0.0, 0.0, 0.25]])
    blocks = [
        Block("position", (0, 1, 2), unit="mm", weight=2, scale=10),
        Block("orientation", slice(3, 6), "rotation", "euler_xyz", weight=3, scale=0.5),
        Block("gripper", [6], weight=0.5),
    ]
    expected = 2 * 5 / 10 + 3 * 0.5 / 0.5 + 0.5 * 0.25
    assert float(dtw_distances([a], [b], blocks=blocks)) == pytest.approx(expected)
    squared = [Block("position", slice(0, 3), "squared", weight=2, scale=10)]
    assert float(dtw_distances([a], [b], blocks=squared)) == pytest.approx(2 * 25 / 100)
    assert float(dtw_distances([a], [b], blocks=blocks[2:])) == pytest.approx(0.125)


def test_a_block_says_what_it_is():
    assert [str(b) for b in POSE] == [
        "position [m]: vector, weight 1, scale 1",
        "orientation [rad]: rotation euler_xyz, weight 1, scale 1",
        "gripper [opening]: vector, weight 1, scale 1",
    ]
    assert str(Block("x", [0])) == "x [unit not stated]: vector, weight 1, scale 1"


def test_unpad_takes_declared_lengths():
    padded = np.zeros((2, 4, 3))
    padded[0, :3] = 1
    cut = unpad(padded, [3, 4])
    assert [len(t) for t in cut] == [3, 4]
    # A robot that holds still is not padding.
    assert len(unpad(torch.ones(1, 5, 2), [5])[0]) == 5
    with pytest.raises(ShapeError, match=r"shape \(2, 4, 3\) with 1 lengths; needed"):
        unpad(padded, [3])
    for length in (0, 5):
        with pytest.raises(ShapeError, match=rf"trajectory 1 has length {length}; needed 1 to 4"):
            unpad(padded, [3, length])


@pytest.mark.parametrize(
    ("trajectories", "error", "text"),
    [
        ([], ShapeError, "x has no trajectories; needed at least one"),
        ([np.zeros(7)], ShapeError, r"x\[0\] has shape \(7,\); needed \[time, dimension\]"),
        ([np.zeros((0, 7))], ShapeError, r"shape \(0, 7\); needed .* at least one step"),
        (
            [np.zeros((3, 7)), np.zeros((3, 6))],
            ShapeError,
            r"x\[1\] has 6 columns but x\[0\] has 7",
        ),
        ([np.array([["a"]])], ShapeError, r"x\[0\] is of type <U1; needed real numbers"),
        ([torch.zeros(2, 2, dtype=torch.complex64)], ShapeError, "complex64; needed real"),
        ([[[0.0], [np.nan]]], DegenerateError, r"x\[0\] holds NaN or infinity in 1 of 2 steps"),
        (
            [torch.zeros(2, 1), torch.zeros(2, 1, device="meta")],
            DeviceError,
            r"x\[0\] is on cpu but x\[1\] on meta; move",
        ),
    ],
)
def test_bad_trajectories_are_refused(trajectories, error, text):
    with pytest.raises(error, match=text):
        read([np.array(t) if isinstance(t, list) else t for t in trajectories], ())


@pytest.mark.parametrize(
    ("block", "error", "text"),
    [
        (Block("p", slice(5, 9)), ShapeError, "takes columns 5:9 .* needed columns from 0 to 3"),
        (Block("p", [1, 4]), ShapeError, r"takes columns \[1, 4\] of trajectories with 4"),
        (Block("p", [0], weight=0.0), DegenerateError, "'p' has weight 0.0; needed a finite"),
        (Block("p", [0], scale=float("inf")), DegenerateError, "'p' has scale inf; needed"),
        (Block("p", [0, 0]), ShapeError, "column 0 is in block 'p' and in block 'p'"),
        (
            Block("r", slice(0, 3), "rotation", "euler"),
            UnknownNameError,
            "unknown representation of rotations 'euler'; did you mean 'euler_xyz'",
        ),
        (
            Block("r", slice(0, 3), "rotation", "quaternion_wxyz"),
            ShapeError,
            "'r' has 3 columns; needed 4 for quaternion_wxyz",
        ),
        (
            Block("r", slice(0, 4), "rotation", "quaternion_wxyz"),
            DegenerateError,
            "block 'r' of x has a norm off by up to 1 in 2 of 2 steps; needed unit quaternions",
        ),
    ],
)
def test_bad_blocks_are_refused(block, error, text):
    with pytest.raises(error, match=text):
        read([np.zeros((2, 4))], [block])


def test_an_unknown_kind_is_refused():
    block = Block("p", [0])
    object.__setattr__(block, "kind", "rotations")
    with pytest.raises(
        UnknownNameError, match="kind of block 'rotations'; did you mean 'rotation'"
    ):
        read([np.zeros((2, 4))], [block])


def test_what_is_no_rotation_is_refused():
    mirror = np.diag([1.0, 1.0, -1.0]).reshape(1, 9)
    with pytest.raises(DegenerateError, match=r"is off by up to 2 .* rotation matrices, determin"):
        read([mirror], [rotation("matrix")])
    along = np.array([[1.0, 0, 0, 2.0, 0, 0]])
    with pytest.raises(DegenerateError, match=r"spans a plane off .* directions that are not par"):
        read([along], [rotation("6d")])
