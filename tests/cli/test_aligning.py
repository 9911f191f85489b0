"""Two checkpoints aligned from the shell, at tiny size."""

import shutil

import msgspec
import numpy as np
import pytest
import tiny_world as world

from mirror_analysis.alignment import AlignmentConfig, LinearAlignment, recall_at_k
from mirror_analysis.alignment.scoring import RetrievalConfig
from mirror_analysis.cli.aligning import _text
from mirror_analysis.episodes import Episodes
from mirror_analysis.errors import DegenerateError, FormatError, MissingFileError, UnknownNameError
from mirror_analysis.extraction import extract
from mirror_analysis.parallel import serial
from mirror_analysis.results import select
from mirror_analysis.study import aligning, alignment_parts
from mirror_analysis.study.aligning import AlignmentReport, align_checkpoints, load_report
from mirror_analysis.study.alignment_parts import ORDER, AlignmentPlan
from mirror_analysis.study.comparing import divided_episodes
from mirror_analysis.study.contrasts import PAIR

LAYERS = "penultimate,vision"
QUICK = ("--width", 8, "--steps", 20, "--seeds", 2, "--draws", 19, "--workers", 1)
PLAN = AlignmentPlan(
    "penultimate",
    "vision",
    whole=True,
    seeds=(0, 1),
    fit=AlignmentConfig(width=8, steps=20),
    judge=RetrievalConfig(recall=(1, 5), draws=19, folds=6),
)
BOTH = world.observation(0, "watcher"), world.execution(0, "actor")


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """No processes."""
    monkeypatch.setattr(aligning, "processes", lambda workers: serial())


@pytest.fixture
def words(place):
    names = [place / f"{name}.safetensors" for name in ("watcher", "actor")]
    return ("align", *names, "--episodes", place / "episodes", "--layers", LAYERS, *QUICK)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A folder and its report, made by the library."""
    out = tmp_path_factory.mktemp("done")
    chosen = world.episodes(fit=6, test=6, test_failures=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aligning, "processes", lambda workers: serial())
        return out, align_checkpoints(*BOTH, chosen, out=out, plan=PLAN), chosen


def one(report, **fields):
    (score,) = select(report.scores, x_layer="penultimate", y_layer="vision", **fields)
    return score


def test_before_and_after_stand_beside_their_controls(done):
    _, report, _ = done
    for key in aligning._CONTRASTS:
        for method in ORDER:
            for within in ("", "task"):
                place = {"comparison": key, "method": method, "within": within}
                scores = [
                    s
                    for s in select(report.scores, measure="recall_at_1", **place)
                    if s.role != "difference"
                    and (s.x_layer, s.y_layer) == ("penultimate", "vision")
                ]
                assert len(scores) == 1, place
                (score,) = scores
                assert score.stage == ("before" if method == "raw" else "after")
                if score.value is None:
                    assert method == "raw" and "are not comparable as they are" in score.undefined
                else:
                    assert score.null.draws == 19 and score.interval is not None
                    assert score.n == 12 and 0 < score.p_value <= 1
    roles = {s.parameters["comparison"]: s.role for s in report.scores if s.role != "difference"}
    assert roles == {
        PAIR: "pair",
        "trained-untrained": "control",
        "untrained-trained": "control",
        "untrained-untrained": "control",
        "shuffled within task": "reference",
    }
    assert one(report, comparison="untrained-trained", method="cca", measure="infonce").x == (
        "watcher (untrained)"
    )
    assert report.episodes == {"fit": 16, "validation": 4, "test": 12}


def test_numbers_are_those_of_the_maps_that_were_written(done):
    out, report, chosen = done
    test = Episodes([e for e in divided_episodes(chosen) if e.labels["split"] == "test"])
    x, y = (
        extract(model, test, layers=[layer])[layer].values
        for model, layer in zip(BOTH, ("penultimate", "vision"), strict=True)
    )
    for method, names in (("cca", ["cca"]), ("contrastive", ["contrastive-s0", "contrastive-s1"])):
        fits = [LinearAlignment.load(out / "fits" / f"{name}.safetensors") for name in names]
        assert {fit.method for fit in fits} == {method}
        recall = np.mean([recall_at_k(fit.similarity(x, y)) for fit in fits])
        score = [
            s
            for s in select(report.scores, measure="recall_at_1", method=method, within="")
            if s.role == "pair" and s.x_layer == "penultimate" and s.y_layer == "vision"
        ]
        assert score[0].value == pytest.approx(recall)
    best = min(fits, key=lambda fit: min(fit.curve.validation))
    assert LinearAlignment.load(out / "alignment.safetensors").digest == best.digest


def test_differences_are_paired_and_say_against_what(done):
    _, report, _ = done
    found = {
        s.parameters["against"].split(":")[0]: s
        for s in select(report.scores, role="difference", measure="recall_at_1", within="")
    }
    assert set(found) == {"best closed form", "best untrained twin", "shuffled within task"}
    pair = one(report, comparison=PAIR, method="contrastive", measure="recall_at_1", within="",
               role="pair")  # fmt: skip
    closed = [
        one(report, comparison=PAIR, method=m, measure="recall_at_1", within="", role="pair").value
        for m in ORDER[1:-1]
    ]
    score = found["best closed form"]
    assert score.value == pytest.approx(pair.value - max(closed))
    assert score.interval.low <= score.value <= score.interval.high
    assert score.null is None and score.p_value is None


def test_every_layer_pair_is_there_once_when_asked_for(done):
    _, report, _ = done
    grid = [
        s for s in select(report.scores, measure="recall_at_1", method="contrastive", role="pair")
        if s.within == ""
    ]  # fmt: skip
    layers = [[info.name for info in model.layers()] for model in BOTH]
    cells = [(s.x_layer, s.y_layer) for s in grid]
    assert sorted(cells) == sorted((a, b) for a in layers[0] for b in layers[1])
    assert all(s.p_max is not None for s in grid)


def test_what_is_written_is_whole_and_read_back(done, tmp_path):
    out, report, _ = done
    assert load_report(out) == report == load_report(out / "alignment.json")
    assert (out / "training.png").read_bytes().startswith(b"\x89PNG")
    lines = (out / "scores.csv").read_text().splitlines()
    assert len(lines) == len(report.scores) + 1 and "method" in lines[0]
    assert not list(out.rglob("*.partial"))
    assert isinstance(report, AlignmentReport) and len(report.frame) == len(report.scores)
    assert report.provenance.inputs["x"] == BOTH[0].weights_sha256
    with pytest.raises(MissingFileError, match=r"no report of an alignment at .*; `mirror align`"):
        load_report(tmp_path)
    (tmp_path / "alignment.json").write_text("{}")
    with pytest.raises(FormatError, match="is not a report of an alignment: "):
        load_report(tmp_path)


def test_finished_parts_are_not_computed_again_and_damaged_ones_are(done, tmp_path, monkeypatch):
    old, first, chosen = done
    out = tmp_path / "copy"
    shutil.copytree(old, out)
    best = LinearAlignment.load(out / "alignment.safetensors").digest
    stray = LinearAlignment.load(out / "fits" / "procrustes.safetensors")
    for file in ("alignment", "fits/contrastive-s0", "fits/of-another-plan"):
        stray.save(out / f"{file}.safetensors")
    counted = []
    run = alignment_parts.run
    monkeypatch.setattr(aligning, "run", lambda job: (counted.append(str(job)), run(job)))
    assert align_checkpoints(*BOTH, chosen, out=out, plan=PLAN).scores == first.scores
    assert counted == []
    assert LinearAlignment.load(out / "alignment.safetensors").digest == best
    assert {p.name for p in (out / "fits").iterdir()} == {p.name for p in (old / "fits").iterdir()}
    assert len(list((out / "parts").glob("*.part"))) == 6
    (damaged,) = (out / "parts").glob("*-grid.part")  # cut short, as if by a full disk
    kept = damaged.read_bytes()
    damaged.write_bytes(kept[:-9])
    (lost,) = (out / "parts").glob("*-fits/contrastive-s1.safetensors")
    lost.unlink()
    assert align_checkpoints(*BOTH, chosen, out=out, plan=PLAN).scores == first.scores
    assert counted == ["alignment of trained-trained"] * 2 and damaged.read_bytes() == kept
    # Another plan is another result: nothing of this one is taken for it.
    other = msgspec.structs.replace(PLAN, pairing="instruction")
    monkeypatch.setattr(aligning, "run", lambda job: pytest.fail("stop here", pytrace=False))
    with pytest.raises(BaseException, match="stop here"):
        align_checkpoints(*BOTH, chosen, out=out, plan=other)


def test_the_table_is_data_and_progress_is_not(mirror, words, tmp_path):
    words = [word for word in words if word not in ("--layers", LAYERS)]
    shown = mirror(*words, "--out", tmp_path, "--temperature", "learned:0.2")
    assert shown.code == 0, shown.err
    assert "watcher penultimate and actor hidden3: Recall@1 in a gallery of 12, 16" in shown.out
    lines = [line.split() for line in shown.out.splitlines()]
    assert ["trained-trained", "cca"] in [line[:2] for line in lines]
    assert "best closed form: " in shown.out and "best untrained twin: " in shown.out
    assert f"written to {tmp_path}" in shown.out and "layer pairs" not in shown.out
    assert "aligning, by pair of models: 5/5" in shown.err and "aligning" not in shown.out
    fit = LinearAlignment.load(tmp_path / "alignment.safetensors")
    assert fit.config.learn_temperature and fit.config.temperature == 0.2
    assert fit.temperature != 0.2 and fit.config.width == 8
    again = mirror(*words, "--out", tmp_path, "--temperature", "learned:0.2", "--json")
    report = msgspec.json.decode(again.out.encode(), type=AlignmentReport)
    assert report.scores == load_report(tmp_path).scores
    assert "aligning, by pair of models: 5/5" in again.err and "0/5" not in again.err


def test_other_layer_pairs_are_shown_with_the_p_over_all_of_them(done):
    text = _text(done[1])
    count = np.prod([len(model.layers()) for model in BOTH]) - 1
    assert f"best 10 of {count} other layer pairs, contrastive" in text and "p over all" in text


def test_faults_are_told_in_a_line_before_anything_is_written(mirror, words, tmp_path):
    out = tmp_path / "out"
    for extra, text in (
        (
            ("--layers", "penultimate"),
            "--layers 'penultimate' names no pair; needed LAYER_OF_A,LAY",
        ),
        (("--layers", "penultimate,"), "names no pair"),
        (("--layers", "penultimate,penultimate"), "unknown layer of actor 'penultimate'"),
        (("--temperature", "warm"), "--temperature 'warm' is none; needed a number, learned, or"),
        (("--temperature", "learned:x"), "--temperature 'learned:x' is none"),
        (("--temperature", "0"), "alignment temperature is 0.0; needed a number above 0"),
        (("--pairing", "colour"), "unknown pairing 'colour'"),
        (("--device", "tpu"), "device 'tpu' was asked for but is not there"),
    ):
        assert text in mirror(*words, "--out", out, *extra).fault
    assert not out.exists()


def test_plans_with_which_nothing_can_be_fitted_are_refused(tmp_path):
    chosen = world.episodes(fit=6, test=6, test_failures=0)
    with pytest.raises(DegenerateError, match="no seeds to fit with; needed at least one"):
        align_checkpoints(*BOTH, chosen, out=tmp_path, plan=AlignmentPlan(seeds=()))
    plan = AlignmentPlan(pairing="task")
    single = world.episodes(tasks=("push",), fit=12, test=8, test_failures=0)
    with pytest.raises(DegenerateError, match="all 24 episodes have the task push, so there is no"):
        align_checkpoints(*BOTH, single, out=tmp_path, plan=plan)
    with pytest.raises(UnknownNameError, match="unknown pairing 'tusk'; did you mean 'task'"):
        align_checkpoints(*BOTH, chosen, out=tmp_path, plan=AlignmentPlan(pairing="tusk"))
    assert not list(tmp_path.iterdir())
