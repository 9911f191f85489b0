"""Which parts a study has, and by what a kept part is known."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import get_args

import msgspec
import pytest
import small_study as here
import tiny_world as world

from mirror_analysis.episodes import Episodes
from mirror_analysis.study.contrasts import PAIR, Source, contrasts
from mirror_analysis.study.plan import Piece, declared_layers, job, pieces, whole_grid

CONTRASTS = contrasts()
BY_KEY = {contrast.key: contrast for contrast in CONTRASTS}


def test_contrasts_are_told_apart_and_one_is_the_pair():
    assert len(BY_KEY) == len(CONTRASTS)
    assert [c.key for c in CONTRASTS if c.role == "pair"] == [PAIR]
    other = contrasts("pixels", "input")
    every = (*CONTRASTS, *other)
    assert {c.x for c in every} | {c.y for c in every} == set(get_args(Source))
    raw = {c.key for c in other} - {c.key for c in CONTRASTS}
    assert raw == {"trained-input", "pixels-input"}
    assert len({c.key for c in other}) == len(other) == len(CONTRASTS)


def test_what_both_are_given_is_no_control_where_it_is_the_same():
    for raw in ("pixels", "input"):
        keys = {c.key for c in contrasts(raw, raw, same_input=True)}
        assert f"{raw}-{raw}" not in keys and {f"trained-{raw}", f"{raw}-trained"} <= keys


def test_a_control_has_learned_at_most_one_side_and_is_told_nothing():
    for contrast in CONTRASTS:
        sides = {contrast.x, contrast.y}
        sees = sides <= {"trained", "untrained", "pixels"} and sides != {"trained"}
        assert (contrast.role == "control") == sees, contrast.key
        assert contrast.draws == ("untrained" in sides)
        assert not contrast.shuffle or (contrast.x, contrast.y) == ("trained", "trained")


def test_every_contrast_stands_in_both_conditions_for_every_seed_and_draw():
    definition = world.definition(models={"seeds": [0, 3], "untrained_draws": 2})
    planned = list(pieces(definition, CONTRASTS))
    assert len({piece.name for piece in planned}) == len(planned)
    found = Counter((p.kind, p.contrast.key, p.condition) for p in planned)
    for condition in ("plain", "nuisance"):
        for contrast in CONTRASTS:
            times = 2 * (2 if contrast.draws else 1)
            assert found["alignment", contrast.key, condition] == times
            similar = 0 if contrast.shuffle else times
            assert found["similarity", contrast.key, condition] == similar
    assert {p.seed for p in planned} == {0, 3}


def test_outcomes_are_asked_of_trained_and_untrained_pairs_where_there_are_failures():
    def asked(definition):
        return {
            (p.contrast.key, p.outcome, p.draw)
            for p in pieces(definition, CONTRASTS)
            if p.kind == "outcome"
        }

    both = {
        (key, end, 0) for key in (PAIR, "untrained-untrained") for end in ("success", "failure")
    }
    assert asked(world.definition(models={"untrained_draws": 2})) == both
    assert asked(world.definition(episodes={"test_failures": 0})) == set()


def test_grids_are_made_where_they_are_asked_for():
    definition = world.definition(
        measures={"alignment_grids": ["nuisance"], "grids": ["untrained-untrained"]},
        models={"untrained_draws": 2},
    )
    planned = list(pieces(definition, CONTRASTS))
    grids = [(p.contrast.key, p.condition) for p in planned if p.kind == "alignment grid"]
    assert grids == [(PAIR, "nuisance")]
    whole = {(p.contrast.key, p.draw) for p in planned if whole_grid(definition, p)}
    assert whole == {("untrained-untrained", 0)}


def test_only_networks_have_declared_layers():
    declared = {c.key: declared_layers(world.definition(), c) for c in CONTRASTS}
    assert declared[PAIR] == ("penultimate", "vision")
    assert declared["untrained-trained"] == ("penultimate", "vision")
    assert declared["pixels-trained"] == ("", "vision")
    assert declared["trained-state"] == ("penultimate", "")


def piece(kind="alignment", contrast=PAIR, **changes) -> Piece:
    return Piece(kind, BY_KEY[contrast], "plain", 0, 0, **changes)


@pytest.fixture(scope="module")
def few() -> Episodes:
    return world.episodes(fit=2, test=2, fit_failures=0, test_failures=1)


@pytest.fixture(scope="module")
def stuff(few: Episodes, tmp_path_factory: pytest.TempPathFactory):
    return here.material(few, tmp_path_factory.mktemp("plan"))


def test_a_failure_is_judged_on_failures_and_the_rest_as_asked(stuff, tmp_path):
    made = job(piece("outcome", outcome="failure"), stuff, world.definition(), tmp_path)
    assert made.rows == "failures"
    for kind, outcome in (("outcome", "success"), ("alignment", "")):
        asked = piece(kind, outcome=outcome)
        assert job(asked, stuff, world.definition(), tmp_path).rows == "successes"
        assert job(asked, stuff, world.definition(), tmp_path, rows="all").rows == "all"
    assert made.layers == ("penultimate", "vision")
    pixels = job(piece(contrast="pixels-pixels"), stuff, world.definition(), tmp_path)
    assert pixels.layers == ("pixels A", "pixels B")


def test_a_part_is_known_by_all_its_numbers_depend_on(stuff, few, tmp_path):
    def file(given=stuff, definition=None, asked=None, **changes) -> Path:
        return job(
            asked or piece(), given, definition or world.definition(), tmp_path, **changes
        ).file

    def material(chosen, part):
        return here.material(Episodes(chosen), tmp_path / part)

    same = file(material(list(few), "same"))
    assert same == file()
    relabelled = [
        replace(e, labels={"split": "test" if i < 2 else e.labels["split"]})
        for i, e in enumerate(few)
    ]
    quiet = msgspec.structs.replace(world.definition(), title="Other words")
    assert file(definition=quiet) == same
    others = {
        "draws": file(definition=world.definition(measures={"draws": 20})),
        "steps": file(definition=world.definition(alignment={"steps": 6})),
        "layer": file(definition=world.definition(models={"y_layer": "conv4"})),
        "rows": file(rows="all"),
        "contrast": file(asked=piece(contrast="shuffled")),
        "kind": file(asked=piece("similarity")),
        "condition": file(asked=replace(piece(), condition="nuisance")),
        "seed": file(asked=replace(piece(), seed=1)),
        "who is tested on": file(material(relabelled, "split")),
        "episodes": file(material(list(few)[1:], "fewer")),
    }
    assert len({same, *others.values()}) == len(others) + 1, others
