"""A claim holds, does not hold or is open as its interval says, and says its numbers."""

import pytest

from mirror_analysis.results import Interval, Score
from mirror_analysis.study.contrasts import PAIR
from mirror_analysis.study.findings import findings
from mirror_analysis.study.summary import UNTRAINED

NAMES = ["excess-recall", "excess-cka-within-task", "beyond-task", "excess-recall-plain",
         "success-against-failure"]  # fmt: skip


def score(measure, value, role, comparison, condition, *, low=None, high=None, within="", **more):
    interval = None if low is None else Interval(low, high)
    network = {"x_layer": "penultimate", "y_layer": "vision"} if comparison == PAIR else {}
    return Score(
        measure,
        value,
        x="observation",
        y="execution",
        n=40,
        interval=interval,
        role=role,
        condition=condition,
        within=within,
        parameters={"comparison": comparison, "gallery": 64, **more},
        **network,
    )


def scores(low=0.10, high=0.30):
    """Everything a study says, the differences of 0.2 with an interval from low to high."""
    made = []
    for measure, condition, within in (
        ("recall_at_1", "nuisance", ""),
        ("recall_at_1", "plain", ""),
        ("linear_cka", "nuisance", "task"),
    ):
        place = {"condition": condition, "within": within}
        made += [
            score(measure, 0.81, "pair", PAIR, **place),
            score(measure, 0.61, "control", "pixels-trained", **place),
            score(measure, 0.47, "control", UNTRAINED, **place),
            score(measure, 0.2, "difference", PAIR, low=low, high=high, against="best control",
                  best="pixels-trained", **place),
        ]  # fmt: skip
    place = {"condition": "nuisance"}
    made += [
        score("recall_at_1", 0.33, "reference", "shuffled within task", **place),
        score("recall_at_1", 0.48, "difference", PAIR, low=low, high=high,
              against="shuffled within task", **place),
    ]  # fmt: skip
    place = {"condition": "success-failure", "role": "difference"}
    for key, against, value in (
        (PAIR, "failure", 0.11), (UNTRAINED, "failure", 0.04), (PAIR, UNTRAINED, 0.07),
    ):  # fmt: skip
        made.append(
            score(
                "recall_at_1", value, comparison=key, against=against, low=low, high=high, **place
            )
        )
    return made


def test_every_claim_says_its_numbers():
    found = {f.name: f for f in findings(scores())}
    assert list(found) == NAMES
    said = {name: f.statement for name, f in found.items()}
    for words in ("0.81", "gallery of 40", "pixels-trained", "0.61", "+0.200 [+0.100, +0.300]"):
        assert words in said["excess-recall"]
    for words in ("0.81", "0.61", "pixels-trained", "task means removed", "+0.200"):
        assert words in said["excess-cka-within-task"]
    for words in ("0.33", "+0.480 [+0.100, +0.300]"):
        assert words in said["beyond-task"]
    for words in ("0.81", "0.47", "0.61", "+0.200"):
        assert words in said["excess-recall-plain"]
    for words in ("+0.110", "+0.040", "+0.070"):
        assert words in said["success-against-failure"]
    assert found["success-against-failure"].score.value == 0.07
    assert found["excess-recall"].score.parameters["against"] == "best control"


@pytest.mark.parametrize(
    ("low", "high", "holds"), [(0.1, 0.3, True), (-0.1, 0.3, None), (-0.3, -0.1, False)]
)
def test_a_claim_holds_where_its_interval_is_above_zero(low, high, holds):
    assert [f.holds for f in findings(scores(low, high))] == [holds] * len(NAMES)


def test_a_claim_without_an_interval_is_open():
    bare = findings(scores(low=None))
    assert [f.holds for f in bare] == [None] * len(NAMES)
    assert "The excess is –." in bare[0].statement


def test_a_claim_without_its_numbers_is_left_out():
    assert findings([]) == []
    won = [s for s in scores() if s.condition != "success-failure"]
    assert [f.name for f in findings(won)] == NAMES[:-1]
    unmixed = [s for s in scores() if s.parameters.get("against") != "shuffled within task"]
    assert "beyond-task" not in {f.name for f in findings(unmixed)}
    untold = [s for s in scores() if s.parameters["comparison"] != UNTRAINED]
    assert [f.name for f in findings(untold)] == NAMES[:3]


def test_numbers_of_one_seed_are_no_claim():
    import msgspec

    assert findings([msgspec.structs.replace(s, seed=0) for s in scores()]) == []


def test_one_view_is_not_called_two():
    assert "independent nuisance in the two views" in findings(scores())[0].statement
    shared = findings(scores(), nuisance="nuisance in the one view that both see")[0].statement
    assert "nuisance in the one view that both see" in shared and "independent" not in shared
