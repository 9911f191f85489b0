import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror_analysis.alignment import info_nce, recall_at_k
from mirror_analysis.alignment.retrieval import (
    infonce_credit,
    recall_credit,
    recall_diagonal,
    task_ceiling,
)
from mirror_analysis.errors import DefinitionError, DegenerateError, ShapeError
from mirror_analysis.information import infonce


def table(count: int, seed: int = 0, *, ties: bool = False) -> np.ndarray:
    g = np.random.default_rng(seed)
    if ties:
        return g.integers(0, 3, (count, count)).astype(np.float64)
    return g.standard_normal((count, count)) + 1.5 * np.eye(count)


def by_enumeration(s: np.ndarray, k: int, gallery: int, within: np.ndarray) -> np.ndarray:
    """Every gallery of every query in both directions; tied places are taken alike often."""
    earned = np.zeros(len(s))
    for rows in (s, s.T):
        for query, scores in enumerate(rows):
            others = [j for j in range(len(s)) if j != query and within[j] == within[query]]
            size = min(gallery, len(others) + 1)
            found = []
            for drawn in itertools.combinations(others, size - 1):
                above = sum(scores[j] > scores[query] for j in drawn)
                places = range(above, above + sum(scores[j] == scores[query] for j in drawn) + 1)
                found.append(sum(place < k for place in places) / len(places))
            earned[query] += sum(found) / len(found) / 2
    return earned


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("k", "gallery"), [(1, 2), (1, 4), (2, 4), (3, 5), (2, 7), (1, 64)])
def test_is_the_mean_over_all_galleries(ties, k, gallery):
    for seed in range(3):
        s = table(7, seed, ties=ties)
        expected = by_enumeration(s, k, gallery, np.zeros(7))
        np.testing.assert_allclose(recall_diagonal(s, k=k, gallery=gallery), expected, atol=1e-12)
        assert recall_at_k(s, k=k, gallery=gallery) == pytest.approx(expected.mean())


@pytest.mark.parametrize("ties", [False, True])
def test_within_a_label_galleries_are_drawn_from_it_alone(ties):
    within = np.array(["a", "b", "a", "b", "a", "a", "b", "a"])
    s = table(8, 5, ties=ties)
    for k, gallery in ((1, 2), (1, 4), (2, 4), (2, 64)):
        expected = by_enumeration(s, k, gallery, within)
        got = recall_diagonal(s, k=k, gallery=gallery, within=within)
        np.testing.assert_allclose(got, expected, atol=1e-12)
        assert recall_at_k(s, k=k, gallery=gallery, within=within) == pytest.approx(got.mean())


def test_random_galleries_agree():
    s, g, hits = table(40, 3), np.random.default_rng(0), []
    for _ in range(3000):
        gallery = g.permutation(40)[:16]
        part = s[np.ix_(gallery, gallery)]
        own = part.diagonal()
        better = ((part > own[:, None]).sum(1), (part > own[None, :]).sum(0))
        hits.append(np.mean([place < 2 for place in better]))
    error = np.std(hits) / len(hits) ** 0.5
    assert recall_at_k(s, k=2, gallery=16) == pytest.approx(np.mean(hits), abs=4 * error)


@given(seed=st.integers(0, 10**6), ties=st.booleans(), grouped=st.booleans())
@settings(deadline=None, max_examples=20)
def test_the_diagonal_of_the_credits_is_what_each_row_earns(seed, ties, grouped):
    s = table(9, seed, ties=ties)
    within = np.arange(9) % 3 if grouped else None
    credit = recall_credit(s, k=2, gallery=4, within=within)
    own = recall_diagonal(s, k=2, gallery=4, within=within)
    np.testing.assert_allclose(credit.diagonal(), own, atol=1e-12)


@given(seed=st.integers(0, 10**6), ties=st.booleans())
@settings(deadline=None, max_examples=20)
def test_credits_of_a_permutation_are_those_of_permuted_columns(seed, ties):
    s, order = table(8, seed, ties=ties), np.random.default_rng(seed).permutation(8)
    rows = np.arange(8)
    credit = recall_credit(s, k=1, gallery=5)
    again = recall_diagonal(s[:, order], k=1, gallery=5)
    np.testing.assert_allclose(credit[rows, order], again, atol=1e-12)
    bound = infonce_credit(s, temperature=0.5)
    again = infonce_credit(s[:, order], temperature=0.5)
    np.testing.assert_allclose(bound[rows, order], again.diagonal(), atol=1e-12)


def test_credits_of_a_permutation_inside_labels():
    within = np.array([0, 0, 0, 1, 1, 1, 1])
    order = np.array([2, 0, 1, 4, 5, 6, 3])
    s = table(7, 2)
    credit = recall_credit(s, k=1, gallery=3, within=within)
    again = recall_diagonal(s[:, order], k=1, gallery=3, within=within)
    np.testing.assert_allclose(credit[np.arange(7), order], again, atol=1e-12)
    assert (credit[within[:, None] != within[None, :]] == 0.0).all()


@pytest.mark.parametrize(("k", "gallery", "chance"), [(1, 3, 1 / 3), (2, 4, 2 / 4), (2, 64, 2 / 5)])
@pytest.mark.parametrize("ties", [False, True])
def test_the_mean_over_all_permutations_is_chance_exactly(k, gallery, chance, ties):
    s = table(5, 1, ties=ties)
    every = [
        recall_at_k(s[:, list(order)], k=k, gallery=gallery)
        for order in itertools.permutations(range(5))
    ]
    assert np.mean(every) == pytest.approx(chance)
    assert recall_credit(s, k=k, gallery=gallery).mean() == pytest.approx(chance)


def test_nothing_known_gives_chance_and_everything_known_gives_one():
    for gallery in (8, 64, 100):
        chance = 3 / min(gallery, 70)
        assert recall_at_k(np.zeros((70, 70)), k=3, gallery=gallery) == pytest.approx(chance)
    assert recall_at_k(np.eye(70), gallery=64) == 1.0
    assert recall_at_k(-np.eye(70), gallery=64) == 0.0


@given(seed=st.integers(0, 10**6))
@settings(deadline=None, max_examples=20)
def test_only_the_order_of_similarities_counts(seed):
    s, order = table(8, seed), np.random.default_rng(seed).permutation(8)
    value = recall_at_k(s, k=2, gallery=5)
    for same in (np.exp(s), 3 * s - 7, s.T, s[np.ix_(order, order)]):
        assert recall_at_k(same, k=2, gallery=5) == pytest.approx(value)
    assert recall_at_k(s, k=3, gallery=5) >= value >= recall_at_k(s, k=2, gallery=6)


def test_who_knows_the_task_alone_reaches_its_ceiling():
    assert task_ceiling(np.repeat(np.arange(18), 16)) == pytest.approx(0.2768, abs=5e-5)
    assert task_ceiling(np.repeat(np.arange(36), 8)) == pytest.approx(0.4893, abs=5e-5)
    # Two of a kind in a gallery of everybody: one guess in two.
    assert task_ceiling(np.array(["a", "b", "a", "b"]), gallery=4) == pytest.approx(0.5)
    assert task_ceiling(np.arange(10)) == 1.0


def test_infonce_credits_are_the_bound():
    g = torch.Generator().manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(12, 5, generator=g).double(), dim=1)
    y = torch.nn.functional.normalize(x + torch.randn(12, 5, generator=g).double(), dim=1)
    cosines = (x @ y.T).numpy()
    bound = infonce_credit(cosines, temperature=0.2).diagonal().mean()
    loss = float(info_nce(x, y, temperature=0.2))
    assert bound == pytest.approx(math.log(12) - loss)
    assert bound == pytest.approx(infonce(cosines / 0.2))
    assert infonce_credit(np.zeros((6, 6)), temperature=0.1) == pytest.approx(0.0)


def test_what_has_no_recall_is_refused():
    s = table(6)
    with pytest.raises(ShapeError, match=r"similarity has shape \(6, 5\); needed \[sample, sampl"):
        recall_at_k(s[:, :5])
    with pytest.raises(ShapeError, match=r"similarity has shape \(6, 5\)"):
        infonce_credit(s[:, :5], temperature=0.1)
    with pytest.raises(ShapeError, match=r"within has shape \(5,\) but similarity \(6, 6\); neede"):
        recall_at_k(s, within=np.zeros(5))
    with pytest.raises(DegenerateError, match=r"no other row to be confused with \(1 rows\); give"):
        recall_at_k(s[:1, :1])
    with pytest.raises(DegenerateError, match=r"no other row .* \(6 rows\); give every group at l"):
        recall_credit(s, k=1, gallery=4, within=np.array([0, 0, 0, 0, 0, 1]))
    with pytest.raises(DegenerateError, match=r"no other row to be confused with \(0 rows\)"):
        recall_at_k(np.zeros((0, 0)))
    s[2, 3] = np.nan
    with pytest.raises(DegenerateError, match="similarity holds NaN or infinity; needed numbers"):
        recall_at_k(s)
    for k, gallery in ((0, 64), (1, 1)):
        with pytest.raises(
            DefinitionError, match=f"Recall@{k} in a gallery of {gallery}; needed k"
        ):
            recall_at_k(table(6), k=k, gallery=gallery)
