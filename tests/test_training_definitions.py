"""A study of training is closed, and what contradicts itself is refused in words."""

import re

import msgspec
import pytest
import tiny_world as world

from mirror_analysis import catalog
from mirror_analysis.catalog import StudyDefinition, TrainingStudyDefinition
from mirror_analysis.errors import DefinitionError

NAMES = ("explicit-alignment", "pairing-and-temperature")


@pytest.fixture(scope="module")
def study():
    return catalog.definition("reports", "explicit-alignment")


def text(name="explicit-alignment"):
    return (catalog.folder("reports") / f"{name}.toml").read_text()


def put(folder, changed, name="mine"):
    (folder / "reports").mkdir(exist_ok=True)
    path = folder / "reports" / f"{name}.toml"
    path.write_text(changed.replace('name = "explicit-alignment"', f'name = "{name}"'))
    return path


@pytest.mark.parametrize("name", NAMES)
def test_shipped_studies_of_training(name):
    made = catalog.definition("reports", name)
    assert isinstance(made, TrainingStudyDefinition)
    assert made.baseline == "independent" and made.trained_as("independent").align_weight == 0
    assert made.evaluation.headline == "instruction" and len(made.models.seeds) >= 5
    assert made.training.align_weight == 0.5 and made.training.temperature == 0.1
    assert made.demonstrations.per_task == 20 and made.evaluation.rollouts > 1
    small = catalog.quick(made)
    assert len(small.models.seeds) < 3 and len(small.episodes.tasks) == 3
    assert small.conditions == made.conditions and small.quick == {}


def test_what_the_two_studies_ask():
    first, second = (catalog.definition("reports", name) for name in NAMES)
    roles = {c.name: c.role for c in first.conditions}
    controls = {"shuffled", "untrained", "noise"}
    assert controls <= {n for n, role in roles.items() if role == "control"}
    for name, role in roles.items():
        target = first.trained_as(name).target
        assert (target == "partner") == (role != "control")
        assert target == name or name not in controls
    trained = {c.name: second.trained_as(c.name) for c in second.conditions if c.role == "aligned"}
    assert {(t.pairing, t.temperature) for t in trained.values()} == {
        ("episode", 0.1), ("instruction", 0.1), ("task", 0.1), ("instruction", 0.02),
        ("instruction", 0.2),
    }  # fmt: skip
    published = {p.condition: (p.recognition, p.success) for p in second.published}
    assert published["independent"] == (0.716, 0.853)
    assert published["instruction"] == (0.749, 0.888)
    assert published["instruction-0.2"] == (0.771, 0.870)


def test_a_condition_changes_only_what_it_says(study):
    table = msgspec.to_builtins(study.training)
    for condition in study.conditions:
        own = msgspec.to_builtins(study.trained_as(condition.name))
        changed = {key for key in table if own[key] != table[key]}
        said = {k for k in own if getattr(condition, k, None) is not None}
        assert changed <= said, condition.name
        assert all(own[key] == getattr(condition, key) for key in said)


def test_the_schema_is_chosen_by_its_keys():
    assert isinstance(catalog.definition("reports", "spontaneous-alignment"), StudyDefinition)
    assert set(NAMES) <= set(catalog.definitions("reports"))
    assert catalog.faults() == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("batch = 128", "batch = 1", r"key 'alignment\.batch' is 1: Expected `int` >= 2"),
        ("batch = 128", "bach = 36", r"key 'alignment\.bach': unknown key 'bach'; did you mean 'b"),
        ('target = "noise"', 'target = "nois"', r"key 'conditions\[6\]\.target' is 'nois': Invali"),
        ('target = "noise"', "epochs = 3", r"key 'conditions\[6\]\.epochs': unknown key 'epochs'"),
        ('title = "trained apart"\n', "", r"key 'conditions\[0\]\.title' is missing; add it"),
        ("recall = [1, 5]", "recall = [5]", r"section 'evaluation': recall lacks 1, on which"),
        ("recall = [1, 5]", "recall = [1, 65]", r"section 'evaluation': recall 65 exceeds the gal"),
        ('name = "noise"', 'name = "task"', r"2 conditions are named 'task'; needed names of"),
        ('role = "baseline"', 'role = "control"', r"0 conditions have the role baseline; needed"),
        ('headline = "instruction"', 'headline = "noise"', r"headline 'noise' is no aligned cond"),
        ("align_weight = 0.0", "align_weight = 0.1",
         r"condition 'independent' is baseline and has align_weight 0\.1; a baseline needs 0"),
        ("align_weight = 0.5", "align_weight = 0.0",
         r"condition 'episode' is aligned and has align_weight 0; a baseline needs 0, an aligned"),
        ('condition = "task"', 'condition = "tasc"', r"published numbers are of no condition 'tas"),
        ("success = 0.857", "success = 85.7", r"key 'published\[3\]\.success' is 85\.7: Expected"),
        ("seed = 303", "seed = 202", r"demonstrations have the seed 202 of the episodes that are"),
        ("epochs = 30", "epochs = 0", r"key 'quick\.training\.epochs' is 0: Expected `int` >= 1"),
    ],
)  # fmt: skip
def test_broken_studies_are_refused(tmp_path, old, new, message):
    assert text().count(old) == 1, old
    path = put(tmp_path, text().replace(old, new))
    with pytest.raises(DefinitionError, match=rf"^{re.escape(str(path))}: {message}"):
        catalog.definition("reports", "mine", [tmp_path])


def test_published_numbers_need_a_source(tmp_path):
    kept = text()
    start, end = kept.index("published_from"), kept.index("[models]")
    put(tmp_path, kept[:start] + kept[end:])
    with pytest.raises(DefinitionError, match="published numbers need published_from"):
        catalog.definition("reports", "mine", [tmp_path])


def test_unknown_probes_are_faults(tmp_path):
    path = put(tmp_path, text().replace("\nprobes = [", '\nprobes = ["tasc", ').replace(", ]", "]"))
    (fault,) = [f for f in catalog.faults([tmp_path]) if str(tmp_path) in f]
    assert fault.startswith(f"{path}: key 'evaluation.probes': unknown probe 'tasc'; did you mean")


def test_a_study_of_another_kind_may_stand_beside(tmp_path):
    include = world.include(tmp_path / "own")
    put(include, text())
    kinds = {name: type(made).__name__ for name, made in
             catalog.definitions("reports", [include]).items()}  # fmt: skip
    assert kinds["mine"] == "TrainingStudyDefinition" and kinds["tiny"] == "StudyDefinition"
