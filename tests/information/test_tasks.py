import math

import numpy as np
import pytest
from scipy import integrate, stats

from mirror_analysis.errors import DegenerateError, ShapeError
from mirror_analysis.information import TASKS
from mirror_analysis.information.tasks import (
    additive_information,
    dense_covariance,
    gaussian_information,
    half_cube,
    normal_cdf,
    sparse_covariance,
    student_information,
    swiss_roll,
)

# As published by Czyz et al. 2023.
PUBLISHED = {
    "normal-bivariate-0.75": 0.413339,
    "normal-bivariate-0.75-half-cube": 0.413339,
    "normal-bivariate-0.75-normal-cdf": 0.413339,
    "normal-bivariate-0.75-swiss-roll": 0.413339,
    "normal-dense-2x2-0.5": 0.293893,
    "normal-dense-3x3-0.5": 0.413339,
    "normal-dense-5x5-0.5": 0.592812,
    "normal-dense-25x25-0.5": 1.292184,
    "normal-dense-50x50-0.5": 1.624265,
    "normal-sparse-2x2-2-pairs-0.8": 1.021651,
    "normal-sparse-3x3-2-pairs-0.8": 1.021651,
    "normal-sparse-5x5-2-pairs-0.8": 1.021651,
    "normal-sparse-25x25-2-pairs-0.8": 1.021651,
    "normal-sparse-25x25-2-pairs-0.8-half-cube": 1.021651,
    "student-identity-1x1-dof1": 0.224171,
    "student-identity-2x2-dof1": 0.431946,
    "student-identity-2x2-dof2": 0.193147,
    "student-identity-3x3-dof2": 0.290922,
    "student-identity-3x3-dof3": 0.178712,
    "student-identity-5x5-dof2": 0.448151,
    "student-identity-5x5-dof2-asinh": 0.448151,
    "student-identity-5x5-dof3": 0.298544,
    "uniform-additive-0.1": 1.709438,
    "uniform-additive-0.75": 0.333333,
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_exact_values_are_the_published_ones(name):
    assert TASKS[name].exact == pytest.approx(PUBLISHED[name], abs=6e-7)


def test_the_table_is_sorted_and_knows_its_names():
    assert list(TASKS) == sorted(TASKS)
    assert all(task.name == name for name, task in TASKS.items())


@pytest.mark.parametrize("name", sorted(TASKS))
def test_samples_come_from_the_seed_alone(name):
    task = TASKS[name]
    x, y = task.sample(50, 3)
    assert len(x) == len(y) == 50 and x.dtype == y.dtype == np.float64
    assert np.isfinite(x).all() and np.isfinite(y).all()
    again, other = task.sample(50, 3), task.sample(50, 4)
    assert np.array_equal(again[0], x) and np.array_equal(again[1], y)
    assert not np.array_equal(other[0], x)


@pytest.mark.parametrize("name", [n for n in sorted(PUBLISHED) if n.startswith("normal-dense")])
def test_normal_samples_have_the_covariance_they_claim(name):
    x, y = TASKS[name].sample(20000, 0)
    both = np.hstack([x, y])
    assert np.cov(both.T) == pytest.approx(dense_covariance(both.shape[1], 0.5), abs=0.06)


def test_sparse_samples_correlate_in_two_pairs_only():
    x, y = TASKS["normal-sparse-5x5-2-pairs-0.8"].sample(20000, 0)
    both = np.hstack([x, y])
    assert np.cov(both.T) == pytest.approx(sparse_covariance(5, 5, [0.8, 0.8]), abs=0.04)


def test_student_samples_share_their_tails_only():
    x, y = TASKS["student-identity-3x3-dof3"].sample(20000, 0)
    for column in np.hstack([x, y]).T:
        assert stats.kstest(column, "t", args=(3,)).pvalue > 1e-4
    assert abs(stats.spearmanr(x[:, 0], y[:, 0]).statistic) < 0.03
    assert stats.spearmanr(np.abs(x[:, 0]), np.abs(y[:, 0])).statistic > 0.05


def test_student_information_is_that_of_the_densities():
    # I = E log t2(x, y) / (t1(x) t1(y)), by quadrature with heavy tails brought in by x = tan u.
    joint = stats.multivariate_t(shape=np.eye(2), df=3)

    def inside(v, u):
        point = [math.tan(u), math.tan(v)]
        density = joint.pdf(point)
        ratio = density / (stats.t.pdf(point[0], 3) * stats.t.pdf(point[1], 3))
        return density * math.log(ratio) / (math.cos(u) * math.cos(v)) ** 2

    # The density is even in both, so a quarter of the plane says all.
    found, _ = integrate.dblquad(inside, 0, 1.5, 0, 1.5, epsabs=1e-3, epsrel=1e-2)
    assert 4 * found == pytest.approx(student_information(np.eye(2), 1, 3), abs=0.004)


def test_many_degrees_of_freedom_are_normal():
    covariance = dense_covariance(4, 0.5)
    normal = gaussian_information(covariance, 2)
    assert student_information(covariance, 2, 1e5) == pytest.approx(normal, abs=1e-3)
    assert student_information(covariance, 2, 2) > normal + 0.1


@pytest.mark.parametrize("epsilon", [0.1, 0.5, 0.75, 3.0])
def test_additive_information_is_a_difference_of_entropies(epsilon):
    # Density of y, a trapezium, on a fine grid.
    y = np.linspace(-epsilon, 1 + epsilon, 200001)
    high, low = np.minimum(1, y + epsilon), np.maximum(0, y - epsilon)
    density = np.clip(high - low, 1e-300, None) / (2 * epsilon)
    entropy = -(density * np.log(density)).sum() * (y[1] - y[0])
    expected = entropy - math.log(2 * epsilon)
    assert additive_information(epsilon) == pytest.approx(expected, abs=1e-4)


def test_transformations_can_be_undone():
    values = np.linspace(-3, 3, 41)[:, None]
    assert np.abs(half_cube(values)) ** (2 / 3) * np.sign(values) == pytest.approx(values)
    assert stats.norm.ppf(normal_cdf(values)) == pytest.approx(values)
    roll = swiss_roll(values)
    assert roll.shape == (41, 2)
    # The distance from the centre of the roll is its angle.
    angle = np.hypot(*roll.T) * 21
    assert angle == pytest.approx(1.5 * math.pi * (1 + 2 * stats.norm.cdf(values[:, 0])))


def test_says_what_is_wrong():
    with pytest.raises(DegenerateError, match=r"uniform-additive-0.1 was asked for 0 pairs"):
        TASKS["uniform-additive-0.1"].sample(0, 0)
    with pytest.raises(ShapeError, match=r"covariance has shape \(2, 3\); needed a square"):
        gaussian_information(np.zeros((2, 3)), 1)
    with pytest.raises(ShapeError, match="x has 2 of 2 variables; needed at least one of each"):
        gaussian_information(np.eye(2), 2)
    with pytest.raises(DegenerateError, match="not positive definite, so its information is inf"):
        gaussian_information(dense_covariance(2, 1.0), 1)
    with pytest.raises(DegenerateError, match="freedom is 0; needed a number above 0"):
        student_information(np.eye(2), 1, 0)
    with pytest.raises(DegenerateError, match="epsilon is -1; needed a number above 0"):
        additive_information(-1)
