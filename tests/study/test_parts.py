"""Parts are computed from the rows they should be, kept whole, and computed once."""

import pickle
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import tiny_world as world

from mirror_analysis.alignment.linear import AlignmentConfig
from mirror_analysis.alignment.scoring import RetrievalConfig, fit_pair, score_alignments
from mirror_analysis.errors import DegenerateError
from mirror_analysis.features import Index, Paired, split
from mirror_analysis.similarity.cka import linear_cka
from mirror_analysis.study import parts
from mirror_analysis.study.parts import Job, compute, fit_declared
from mirror_analysis.study.parts import test_rows as rows_judged

TASKS = ("pull", "push")


def paired(seed=0, fit=10, test=6) -> Paired:
    """Per task: fit episodes and test episodes, one in three a failure."""
    g = np.random.default_rng(seed)
    kind = [(t, s, i) for t in TASKS for s, n in (("fit", fit), ("test", test)) for i in range(n)]
    n = len(kind)
    labels = {
        "task": np.array([t for t, _, _ in kind]),
        "split": np.array([s for _, s, _ in kind]),
        "success": np.array([i % 3 != 2 for _, _, i in kind]),
    }
    episode = np.array([f"{t}-{s}-{i}" for t, s, i in kind])
    index = Index(episode, np.full(n, 9, dtype=np.int64), labels)
    latent = g.standard_normal((n, 4))
    x = {
        name: latent @ g.standard_normal((4, 5)) + 0.1 * g.standard_normal((n, 5)) for name in "ab"
    }
    y = {"c": latent @ g.standard_normal((4, 3)) + 0.1 * g.standard_normal((n, 3))}
    single = {
        side: {k: v.astype(np.float32) for k, v in s.items()} for side, s in (("x", x), ("y", y))
    }
    return Paired(single["x"], single["y"], index)


DATA = paired()
DEFINITION = world.definition(measures={"recall": [1, 2], "draws": 19})
CONFIG = AlignmentConfig(
    **{k: v for k, v in msgspec.to_builtins(DEFINITION.alignment).items() if k != "probe_seeds"}
)


def job(folder, kind="alignment", **changes) -> Job:
    fields = {"data": DATA, "layers": ("a", "c"), "definition": DEFINITION}
    return Job(kind, **(fields | {"file": folder / f"{kind}.part"} | changes))


def computed(folder, kind="alignment", **changes):
    return compute(
        {"it": job(folder, kind, **changes)}, workers=1, progress=lambda done, total: None
    )["it"]


def value(comparison, measure, x="a"):
    (score,) = [s for s in comparison.scores if (s.measure, s.x_layer) == (measure, x)]
    return score


# -- what is measured ---------------------------------------------------------------------------


def test_similarity_is_of_successful_test_rows_with_the_settings_of_the_study(tmp_path):
    part = computed(tmp_path, "similarity")
    won = (DATA.index.label("split") == "test") & DATA.index.label("success")
    score = value(part.overall, "linear_cka")
    assert score.value == pytest.approx(linear_cka(DATA.x["a"][won], DATA.y["c"][won]))
    assert score.n == won.sum() and score.null.draws == 19
    assert value(part.overall, "mutual_knn").parameters["k"] == 3
    assert {s.x_layer for s in part.overall.scores} == {"a"}
    assert {s.within for s in part.within.scores} == {"task"}
    assert len(part.overall.replicates["linear_cka", "a", "c"]) == DEFINITION.measures.folds
    everything = computed(tmp_path / "all", "similarity", rows="all")
    assert value(everything.overall, "linear_cka").n == 12


def test_a_whole_similarity_has_all_layers_and_corrects_for_them(tmp_path):
    part = computed(tmp_path, "similarity", whole=True)
    assert {s.x_layer for s in part.overall.scores} == {"a", "b"}
    assert all(s.p_max >= s.p_value - 0.051 for s in part.overall.scores)


def test_alignment_is_fitted_on_fit_rows_and_judged_on_test_rows(tmp_path):
    part = computed(tmp_path)
    won = DATA.take(DATA.index.label("success").astype(bool))
    divided = split(won)
    fits = fit_pair(divided, ("a", "c"), alignment=CONFIG, seeds=[0])
    config = RetrievalConfig(recall=(1, 2), gallery=8, draws=19, folds=4)
    for half, within in ((part.overall, None), (part.within, "task")):
        direct = score_alignments(
            fits, divided.test, layers=("a", "c"), config=config, within=within
        )
        assert [s.value for s in half.scores] == [s.value for s in direct.scores]
        assert half.replicates == direct.replicates
    assert fit_declared(job(tmp_path)).curve == fits[0].curve


def test_a_grid_of_alignments_has_every_layer_and_recall_at_1_alone(tmp_path):
    part = computed(tmp_path, "alignment grid")
    assert part.within is None
    assert {(s.measure, s.x_layer) for s in part.overall.scores} == {
        (measure, layer) for measure in ("recall_at_1", "infonce") for layer in "ab"
    }


def test_an_outcome_is_fitted_on_both_and_judged_on_one(tmp_path):
    data = paired(test=12)
    lost = computed(tmp_path, "outcome", rows="failures", data=data)
    assert {s.n for s in lost.overall.scores} == {8}
    judged = rows_judged(job(tmp_path, "outcome", rows="failures", data=data))
    assert judged.index.episode.tolist() == [
        f"{task}-test-{i}" for task in TASKS for i in (2, 5, 8, 11)
    ]
    fit = data.index.label("split") == "fit"
    only_lost = data.take(~fit | ~data.index.label("success").astype(bool))
    # The same rows are judged, so what differs is what was fitted on.
    narrow = computed(tmp_path / "narrow", "outcome", rows="failures", data=only_lost)
    assert value(narrow.overall, "infonce").value != value(lost.overall, "infonce").value


# -- shuffled pairs -----------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", ["all", "task"])
def test_shuffling_deals_out_whatever_is_not_tested_on(shuffle):
    words = np.where(DATA.index.label("split") == "fit", "validation", "test")
    labels = {**DATA.index.labels, "split": words}
    for data in (DATA, replace(DATA, index=replace(DATA.index, labels=labels))):
        mixed = parts.shuffled_pairs(data, shuffle)
        test = data.index.label("split") == "test"
        task = data.index.label("task")
        np.testing.assert_array_equal(mixed.x["a"], data.x["a"])
        np.testing.assert_array_equal(mixed.y["c"][test], data.y["c"][test])
        came_from = [
            int(np.flatnonzero((data.y["c"] == row).all(axis=1))[0]) for row in mixed.y["c"]
        ]
        assert sorted(came_from) == list(range(len(data)))
        moved = np.array(came_from) != np.arange(len(data))
        assert moved[~test].mean() > 0.6
        stays = (task[came_from] == task).all()
        assert stays == (shuffle == "task")


def test_a_shuffled_fit_finds_nothing_the_pairs_had(tmp_path):
    longer = msgspec.structs.replace(
        DEFINITION, alignment=msgspec.structs.replace(DEFINITION.alignment, steps=60, patience=9)
    )
    data = paired(fit=30, test=12)
    recalls = [
        value(
            computed(tmp_path / s, data=data, definition=longer, shuffle=s).overall, "recall_at_1"
        )
        for s in ("", "all")
    ]
    assert recalls[0].value > 0.6 > 0.35 > recalls[1].value


# -- what cannot be measured --------------------------------------------------------------------


@pytest.mark.parametrize("side", ["x", "y"])
def test_nothing_is_fitted_on_a_constant_layer(tmp_path, side):
    layer = "a" if side == "x" else "c"
    still = {**getattr(DATA, side), layer: np.full((len(DATA), 3), 0.1, dtype=np.float32)}
    part = computed(tmp_path, data=replace(DATA, **{side: still}))
    measures = [(s.measure, s.within) for half in (part.overall, part.within) for s in half.scores]
    assert measures == [
        ("recall_at_1", ""), ("recall_at_2", ""), ("infonce", ""),
        ("recall_at_1", "task"), ("recall_at_2", "task"),
    ]  # fmt: skip
    for score in (*part.overall.scores, *part.within.scores):
        assert score.value is None and score.n == 8
        assert score.undefined.startswith(f"{layer} is constant over the ")
    assert not part.overall.replicates


def test_too_few_episodes_are_named_with_the_part_and_not_with_its_arrays(tmp_path):
    few = DATA.take(DATA.index.label("split") == "fit")
    with pytest.raises(DegenerateError, match=r"labelled test.* \(item alignment of a and c\)$"):
        computed(tmp_path, data=few)
    assert list(tmp_path.iterdir()) == []


# -- keeping ------------------------------------------------------------------------------------


def jobs(folder):
    return {kind: job(folder, kind) for kind in ("similarity", "alignment")}


def test_what_is_kept_is_read_and_not_computed(tmp_path, monkeypatch):
    told = []
    first = compute(jobs(tmp_path), workers=1, progress=lambda *steps: told.append(steps))
    assert told == [(0, 2), (1, 2), (2, 2)]
    files = sorted(tmp_path.iterdir())
    assert [f.name for f in files] == ["alignment.part", "similarity.part"]
    monkeypatch.setattr(parts, "run", lambda job: pytest.fail("computed again"))
    told.clear()
    second = compute(jobs(tmp_path), workers=1, progress=lambda *steps: told.append(steps))
    assert told == [(2, 2)]
    assert second == first


@pytest.mark.parametrize("damage", [b"", b"\x82\xa7overall", b"\x81\xa2\xff\xfe\x01", None])
def test_a_damaged_part_is_computed_again(tmp_path, damage):
    first = compute(jobs(tmp_path), workers=1, progress=lambda *steps: None)
    file = tmp_path / "alignment.part"
    whole = file.read_bytes()
    file.write_bytes(whole[:-40] if damage is None else damage)
    other = (tmp_path / "similarity.part").stat().st_mtime_ns
    second = compute(jobs(tmp_path), workers=1, progress=lambda *steps: None)
    assert second == first
    assert file.read_bytes() == whole
    assert (tmp_path / "similarity.part").stat().st_mtime_ns == other


def test_an_interrupted_run_keeps_the_parts_it_finished(tmp_path, monkeypatch):
    real = parts.run

    def stopped(job):
        if job.kind == "similarity":
            raise KeyboardInterrupt
        real(job)

    monkeypatch.setattr(parts, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        compute(jobs(tmp_path), workers=1, progress=lambda *steps: None)
    assert [f.name for f in tmp_path.iterdir()] == ["alignment.part"]
    kept = (tmp_path / "alignment.part").stat().st_mtime_ns
    monkeypatch.setattr(parts, "run", real)
    compute(jobs(tmp_path), workers=1, progress=lambda *steps: None)
    assert (tmp_path / "alignment.part").stat().st_mtime_ns == kept


def test_the_longest_parts_come_first(tmp_path, monkeypatch):
    order, real = [], parts.run
    monkeypatch.setattr(parts, "run", lambda job: (order.append(job), real(job)))
    made = {kind: job(tmp_path, kind) for kind in ("similarity", "alignment", "alignment grid")}
    made["whole"] = job(tmp_path, "similarity", whole=True, file=tmp_path / "whole.part")
    compute(made, workers=1, progress=lambda *steps: None)
    assert [j.kind for j in order[:2]] == ["alignment grid", "alignment"]
    assert [j.whole for j in order[2:]] == [True, False]


def test_a_name_depends_on_every_word():
    base = parts.fingerprint("a", 1, b"x")
    assert base == parts.fingerprint("a", 1, b"x") and len(base) == 24
    assert len({base, parts.fingerprint("a", 2, b"x"), parts.fingerprint("a1", b"x")}) == 3
    assert parts.fingerprint("ab", "c") != parts.fingerprint("a", "bc")


def test_other_code_has_other_names(monkeypatch):
    base = parts.fingerprint("a")
    monkeypatch.setattr(parts, "_source", lambda: "other code")
    assert parts.fingerprint("a") != base


def test_jobs_can_be_sent_to_a_process(tmp_path):
    back = pickle.loads(pickle.dumps(job(tmp_path)))
    assert back.layers == ("a", "c") and str(back) == "alignment of a and c"
