import msgspec
import pytest
from synthetic_result import SIDES, X_LAYERS, Y_LAYERS, Maker, declared, small_result

from mirror_analysis.reporting.evidence import TRAINED, Evidence, Layers, comparison, measure
from mirror_analysis.results import Finding, Result, Score


def score(x: str, y: str, **fields: object) -> Score:
    return Score(**{"measure": "rsa", "value": 0.5, "x": x, "y": y, "n": 9, **fields})


@pytest.mark.parametrize(
    ("given", "key"),
    [
        (score("observation", "execution"), "trained-trained"),
        (score("observation", "execution-untrained", role="control"), "trained-untrained"),
        (score("observation-untrained", "execution", role="control"), "untrained-trained"),
        (
            score("observation-untrained", "execution-untrained", role="control"),
            "untrained-untrained",
        ),
        (score("observation", "state", role="reference"), "trained-state"),
        (score("time", "time", role="reference"), "time"),
        (score("a", "b", parameters={"comparison": "shuffled"}, role="reference"), "shuffled"),
    ],
)
def test_comparison_is_the_given_key_or_follows_from_the_names(given: Score, key: str) -> None:
    assert comparison(given) == key


def test_recall_has_the_name_of_its_k() -> None:
    assert measure(score("a", "b", measure="recall_at_k", parameters={"k": 5})) == "recall_at_5"
    assert measure(score("a", "b", measure="mutual_knn", parameters={"k": 5})) == "mutual_knn"


def test_declared_layers_come_from_the_definition_then_the_findings_then_the_scores() -> None:
    base = small_result()
    assert Evidence(base).layers == Layers("penultimate", "vision")
    bare = msgspec.structs.replace(base, definition={})
    assert Evidence(bare).layers == Layers("", "")
    found = [Finding("f", "s", True, base.scores[0])]
    assert Evidence(msgspec.structs.replace(bare, findings=found)).layers == Layers(
        "conv1", "conv1"
    )
    one = msgspec.structs.replace(bare, scores=base.scores[3:])
    assert Evidence(one).layers == Layers("penultimate", "vision")


def test_only_scores_of_the_declared_layers_are_compared(result: Result) -> None:
    evidence = Evidence(small_result())
    chosen = evidence.one(TRAINED, "linear_cka", "nuisance")
    assert chosen is not None
    assert (chosen.x_layer, chosen.y_layer) == ("penultimate", "vision")
    assert list(Evidence(result).comparisons) == list(SIDES)


def test_grid_is_complete_and_in_layer_order(result: Result) -> None:
    cells = Evidence(result).grid("svcca", "nuisance", "task")
    assert [(s.x_layer, s.y_layer) for s in cells] == [(x, y) for x in X_LAYERS for y in Y_LAYERS]


def test_conditions_leave_outcomes_out_and_start_with_the_headline(result: Result) -> None:
    assert Evidence(result).conditions == ["nuisance", "plain"]
    scores = [msgspec.structs.replace(s, condition="success (plain)") for s in result.scores[:3]]
    evidence = Evidence(msgspec.structs.replace(result, scores=[*result.scores, *scores]))
    assert evidence.conditions == ["nuisance", "plain"]
    assert evidence.views == ["", " (plain)"]


def test_best_control_is_the_one_the_study_named_or_the_largest(result: Result) -> None:
    named = Evidence(result).best_control("infonce", "nuisance")
    assert named is not None
    assert named[0] == "pixels-pixels"
    largest = Evidence(small_result()).best_control("linear_cka", "nuisance")
    assert largest is not None
    assert largest[0] == "trained-untrained"
    assert Evidence(small_result()).best_control("linear_cka", "plain") is None


def test_references_are_never_the_best_control() -> None:
    make, state = Maker(), SIDES["trained-state"]
    base = small_result()
    more = make.score("linear_cka", 0.9, state, condition="nuisance", **declared(state),
                      parameters={"comparison": "trained-state"})  # fmt: skip
    evidence = Evidence(msgspec.structs.replace(base, scores=[*base.scores, more]))
    best = evidence.best_control("linear_cka", "nuisance")
    assert best is not None
    assert best[0] == "trained-untrained"


def test_untrained_comparisons_are_the_same_under_every_seed_others_are_not(
    result: Result,
) -> None:
    evidence = Evidence(result)
    mean = evidence.one("pixels-pixels", "cknna", "nuisance")
    assert evidence.one("pixels-pixels", "cknna", "nuisance", seed=1) is mean
    own = evidence.one(TRAINED, "cknna", "nuisance", seed=1)
    assert own is not None
    assert own.seed == 1
    assert evidence.one(TRAINED, "cknna", "nuisance", seed=7) is None


def test_a_curve_comes_from_one_retrieval(result: Result) -> None:
    first = Evidence(result).recall(TRAINED, 1, "nuisance", "task")
    assert first is not None
    assert first.measure == "recall_at_k"


def test_scores_before_alignment_come_before_those_after() -> None:
    base = small_result()
    after = [msgspec.structs.replace(s, stage="after", value=0.99) for s in base.scores]
    evidence = Evidence(msgspec.structs.replace(base, scores=[*after, *base.scores]))
    chosen = evidence.one(TRAINED, "linear_cka", "nuisance")
    assert chosen is not None
    assert chosen.stage == "frozen"
