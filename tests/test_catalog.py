"""Definitions are read whole or refused with file, key and mend; nothing is skipped."""

import hashlib
from pathlib import Path

import pytest

from mirror_analysis import catalog
from mirror_analysis.catalog import (
    CheckpointDefinition,
    ProbeDefinition,
    PublicCheckpoint,
    StudyDefinition,
)
from mirror_analysis.errors import (
    ChecksumError,
    DefinitionError,
    MissingFileError,
    UnknownNameError,
)

ROOT = Path(catalog.__file__).parent.parent
STUDY = """
name = "mine"
title = "Mine"
summary = "A study."
question = "Do they agree?"

[models]
x = "tiny"
y = "tiny"
seeds = [0, 1]
x_layer = "penultimate"
y_layer = "conv1"
untrained_draws = 3

[episodes]
source = "metaworld"
tasks = []
fit_successes = 20
fit_failures = 10
test_successes = 16
test_failures = 16
frames = 16
size = 64
seed_fit = 101
seed_test = 202

[nuisance]
gain_low = 0.55
gain_high = 1.45
offset_low = -40.0
offset_high = 40.0
shift = 5
seed = 7

[alignment]
width = 1024
temperature = 0.1
learning_rate = 1e-3
weight_decay = 1e-2
batch = 128
steps = 300
patience = 5
probe_seeds = [0, 1, 2, 3, 4]

[measures]
names = ["linear_cka", "mutual_knn"]
k = 10
variance = 0.99
draws = 999
folds = 32
gallery = 64
recall = [1, 2, 3, 5, 10, 20, 32]
grids = ["trained-trained"]
alignment_grids = ["nuisance"]

[maps]
methods = ["tsne", "umap"]
perplexity = 30.0
neighbors = 15

[quick.models]
seeds = [0]
untrained_draws = 1

[quick.alignment]
probe_seeds = [0]

[quick.measures]
draws = 199
"""
PROBE = """
name = "grip"
summary = "Whether the gripper is closed."
target = "grip"
kind = "classification"
layers = ["conv1", "conv2"]
held_out = "task"
estimator = "knn"
folds = 4
"""
WEIGHTS = b"weights"
CHECKPOINT = f"""
name = "tiny-s0"
summary = "A small model."
role = "observation"
family = "reference"
file = "weights/tiny-s0.safetensors"
sha256 = "{hashlib.sha256(WEIGHTS).hexdigest()}"
size_bytes = {len(WEIGHTS)}
parameters = 7
seed = 0
license = "Apache-2.0"
source = "mirror train tiny"
trained = 2026-11-05
commit = ""
data = "0f"
layers = ["conv1", "penultimate"]
inputs = ["camera:A"]
camera = "A"

[metrics]
task_accuracy = 0.9
"""
PUBLIC = """
name = "far"
summary = "A model of others."
role = "observation"
family = "transformers"
hub = "me/far"
revision = "0123456789abcdef0123456789abcdef01234567"
license = "MIT"
license_source = "https://example.org/me/far"
reference = "https://example.org/paper"
inputs = ["camera"]
checked = ["id: https://example.org/me/far"]

[[files]]
path = "model.safetensors"
size_bytes = 7
"""

PROBES = [
    "contact", "goal-side", "instruction", "next-action", "object-position", "phase", "success",
    "task",
]  # fmt: skip


def put(root, kind, name, text):
    path = root / kind / f"{name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def own(tmp_path):
    """A folder of own definitions, all well."""
    put(tmp_path, "probes", "grip", PROBE)
    for seed in (0, 1):
        put(
            tmp_path, "checkpoints", f"tiny-s{seed}", CHECKPOINT.replace("tiny-s0", f"tiny-s{seed}")
        )
        weights = tmp_path / "checkpoints" / "weights" / f"tiny-s{seed}.safetensors"
        weights.parent.mkdir(exist_ok=True)
        weights.write_bytes(WEIGHTS)
    put(tmp_path, "reports", "mine", STUDY)
    return tmp_path


def test_shipped_catalogue_is_well():
    assert catalog.faults() == []


def test_shipped_definitions_are_typed_and_sorted():
    probes = catalog.definitions("probes")
    assert list(probes) == PROBES
    assert all(isinstance(value, ProbeDefinition) for value in probes.values())
    study = catalog.definition("reports", "spontaneous-alignment")
    assert isinstance(study, StudyDefinition)
    assert (study.models.x, study.models.y) == ("reference-observation", "reference-execution")


def test_folders_of_a_checkout_and_of_an_installation(tmp_path, monkeypatch):
    assert catalog.folder("probes") == ROOT / "probes"
    monkeypatch.setattr(catalog, "_PACKAGE", tmp_path / "mirror_analysis")
    installed = tmp_path / "mirror_analysis" / "_catalog" / "probes"
    installed.mkdir(parents=True)
    assert catalog.folder("probes") == installed
    with pytest.raises(MissingFileError, match=r"^no catalogue folder .*reports; install mirror"):
        catalog.folder("reports")
    assert catalog.faults() == [
        f"no catalogue folder {tmp_path / 'checkpoints'}; install mirror-analysis again"
    ]


def test_unknown_kinds_and_names(own):
    message = r"^unknown kind of definition 'probe'; did you mean 'probes'\?"
    for ask in (catalog.folder, catalog.definitions, lambda kind: catalog.read(kind, Path("x"))):
        with pytest.raises(UnknownNameError, match=message):
            ask("probe")
    with pytest.raises(UnknownNameError, match=r"^unknown probe 'gripp'; did you mean 'grip'\?"):
        catalog.definition("probes", "gripp", [own])


def test_own_definitions_join_the_shipped(own):
    assert set(catalog.definitions("probes", [own])) == {"grip", *PROBES}
    probe = catalog.definition("probes", "grip", [own])
    assert (probe.layers, probe.folds) == (["conv1", "conv2"], 4)
    checkpoint = catalog.definition("checkpoints", "tiny-s1", [own])
    assert isinstance(checkpoint, CheckpointDefinition)
    assert checkpoint.trained.isoformat() == "2026-11-05"
    assert checkpoint.metrics == {"task_accuracy": 0.9}


def test_names_do_not_need_their_files_in_order(own):
    put(own, "probes", "broken", "name = ")
    assert catalog.names("probes", [own]) == sorted(["broken", "grip", *PROBES])
    with pytest.raises(UnknownNameError, match=r"^unknown kind of definition 'probe'"):
        catalog.names("probe")


def own_faults(own):
    return [fault for fault in catalog.faults([own]) if str(own) in fault]


def test_own_definitions_are_well(own):
    assert own_faults(own) == []


def test_folder_without_definitions(tmp_path):
    with pytest.raises(
        MissingFileError, match=r"holds no definitions; needed .*/probes, .* of the"
    ):
        catalog.definitions("probes", [tmp_path])


def test_shipped_name_is_taken(own):
    put(own, "probes", "task", PROBE.replace("grip", "task"))
    message = r"probes/task\.toml: the name 'task' is taken by .*; rename the file and its key"
    with pytest.raises(DefinitionError, match=message):
        catalog.definitions("probes", [own])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("folds = 4", "fold = 4", r"key 'fold': unknown key 'fold'; did you mean 'folds'\?"),
        ("folds = 4", "folds = 4.5", r"key 'folds' is 4\.5: Expected `int`, got `float`; mend the"),
        ("folds = 4", "folds = 1", r"key 'folds' is 1: Expected `int` >= 2; mend the value"),
        ("folds = 4", "", r"key 'folds' is missing; add it"),
        ('"knn"', '"svm"', r"key 'estimator' is 'svm': Invalid enum value 'svm'"),
        ('"knn"', '"ridge"', r"estimator 'ridge' does not do classification; mend the values"),
        ('["conv1", "conv2"]', "[]", r"key 'layers' is \[\]: Expected `array` of length >= 1"),
        ('"grip"\ns', '"Grip"\ns', r"key 'name' is 'Grip': Expected `str` matching regex"),
        ('"grip"\ns', '"grap"\ns', r"key 'name' is 'grap'; needed 'grip', the file's name"),
        ("folds = 4", "folds = ", r"cannot be read as TOML: .*; mend the file"),
    ],
)
def test_broken_probe_is_refused(own, old, new, message):
    assert old in PROBE
    path = put(own, "probes", "grip", PROBE.replace(old, new))
    with pytest.raises(DefinitionError, match=rf"^{path}: {message}"):
        catalog.definitions("probes", [own])
    found = own_faults(own)
    assert found and all(fault.startswith(f"{path}: ") for fault in found)


def test_bytes_that_are_not_text(own):
    (own / "probes" / "grip.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(DefinitionError, match="cannot be read as TOML: 'utf-8' codec"):
        catalog.definition("probes", "grip", [own])


def test_a_broken_neighbour_does_not_stop_one_definition(own):
    put(own, "probes", "broken", "name = ")
    assert catalog.definition("probes", "grip", [own]).name == "grip"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("k = 10", "k = 0", r"key 'measures\.k' is 0: Expected `int` >= 1; mend the value"),
        ("batch = 128", "batch = 128\nmomentum = 1", r"key 'alignment\.momentum': unknown key 'mo"),
        ("size = 64", "", r"key 'episodes\.size' is missing; add it"),
        ("seed_test = 202", "seed_test = 101", r"section 'episodes': seed_fit and seed_test are b"),
        ("20, 32]", "20, 65]", r"section 'measures': recall 65 exceeds the gallery of 64; mend"),
        ("[1, 2, 3, 5,", "[2, 3, 5,", r"section 'measures': recall lacks 1, on which the findin"),
        (
            '["nuisance"]',
            '["dark"]',
            r"key 'measures\.alignment_grids' is \['dark'\]: Inv",
        ),
        ("gain_low = 0.55", "gain_low = 2.0", r"section 'nuisance': gain_low and offset_low must"),
        ("offset_high = 40.0", "offset_high = -41.0", r"section 'nuisance': gain_low and offset_l"),
        ("temperature = 0.1", "temperature = 0.0", r"key 'alignment\.temperature' is 0\.0: Expect"),
        ('"umap"]', '"pca"]', r"key 'maps\.methods' is .*: Invalid enum value 'pca'"),
        ("[quick.models]", "[quick.model]", r"key 'quick\.model': unknown key 'model'; did you m"),
        ("draws = 199", "draw = 199", r"key 'quick\.measures\.draw': unknown key 'draw'; did you"),
        ("draws = 199", "draws = 1", r"key 'quick\.measures\.draws' is 1: Expected `int` >= 19"),
        ("draws = 199", "gallery = 8", r"section 'quick\.measures': recall 32 exceeds the galler"),
        ("[quick.measures]", "[quick.title]", r"key 'quick\.title' is .*: Expected `str`, got `o"),
    ],
)
def test_broken_study_is_refused(own, old, new, message):
    text = (own / "reports" / "mine.toml").read_text()
    assert text.count(old) == 1
    path = put(own, "reports", "mine", text.replace(old, new))
    with pytest.raises(DefinitionError, match=rf"^{path}: {message}"):
        catalog.definition("reports", "mine", [own])


def test_first_problem_counts_the_others_and_faults_list_all(own):
    path = put(own, "probes", "grip", PROBE.replace("folds = 4", "").replace("knn", "svm"))
    with pytest.raises(DefinitionError, match=r"and 1 more; `mirror check` lists all\)$"):
        catalog.definition("probes", "grip", [own])
    put(own, "checkpoints", "tiny-s1", "size_bytes = -1")
    found = own_faults(own)
    assert sum(fault.startswith(f"{path}: ") for fault in found) == 2
    assert any("key 'size_bytes' is -1" in fault for fault in found)


def test_quick_replaces_some_values_and_keeps_the_others(own):
    study = catalog.definition("reports", "mine", [own])
    small = catalog.quick(study)
    assert small.models.seeds == [0]
    assert (small.measures.draws, study.measures.draws) == (199, 999)
    assert (small.measures.names, small.models.x) == (study.measures.names, study.models.x)
    assert small.quick == {}
    assert catalog.quick(small) == small
    assert study.models.checkpoints() == ["tiny-s0", "tiny-s1"] * 2


def test_quick_values_made_in_memory_are_checked(own):
    study = catalog.definition("reports", "mine", [own])
    broken = type(study)(
        **{name: getattr(study, name) for name in study.__struct_fields__ if name != "quick"},
        quick={"maps": {"neighbors": 1}},
    )
    message = r"^study 'mine': key 'quick\.maps\.neighbors' is 1: Expected"
    with pytest.raises(DefinitionError, match=message):
        catalog.quick(broken)


def test_weights_are_found_and_compared(own):
    path = catalog.weights("tiny-s0", [own])
    assert path == own / "checkpoints" / "weights" / "tiny-s0.safetensors"
    path.write_bytes(b"Weights")
    with pytest.raises(
        ChecksumError, match=r"s0\.safetensors has sha256 \w{64} but .*s0\.toml say"
    ):
        catalog.weights("tiny-s0", [own])
    (fault,) = own_faults(own)
    assert "has sha256" in fault
    path.unlink()
    with pytest.raises(MissingFileError, match=r"^no weights .*tiny-s0\.safetensors, which .*toml"):
        catalog.weights("tiny-s0", [own])


def test_weights_that_are_not_bundled(own):
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    text = CHECKPOINT.replace("weights/tiny-s0.safetensors", "").replace(digest, "")
    put(own, "checkpoints", "tiny-s0", text)
    assert own_faults(own) == []
    with pytest.raises(MissingFileError, match=r"are not bundled; make them: mirror train tiny$"):
        catalog.weights("tiny-s0", [own])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("weights/tiny", "../tiny", r"file '\.\./tiny-s0\.safetensors' must lie in the folder of"),
        ("weights/tiny", "/tiny", r"file '/tiny-s0\.safetensors' must lie in the folder of"),
        ("weights/tiny-s0.safetensors", "", r"file and sha256 must both be given or both be empt"),
    ],
)
def test_weights_lie_beside_their_definition(own, old, new, message):
    put(own, "checkpoints", "tiny-s0", CHECKPOINT.replace(old, new))
    with pytest.raises(DefinitionError, match=rf"tiny-s0\.toml: {message}"):
        catalog.definition("checkpoints", "tiny-s0", [own])


def test_studies_of_unknown_checkpoints_and_layers_are_faults(own):
    path = own / "reports" / "mine.toml"
    text = path.read_text()
    path.write_text(text.replace("seeds = [0, 1]\nx", "seeds = [0, 2]\nx"))
    assert own_faults(own) == [
        f"{path}: key 'models.{side}': unknown checkpoint 'tiny-s2'; did you mean 'tiny-s1'?"
        f" (known: {', '.join(sorted(catalog.definitions('checkpoints', [own])))})"
        for side in ("x", "y")
    ]
    path.write_text(text.replace('x_layer = "penultimate"', 'x_layer = "last"'))
    assert [fault.split(": ", 1)[1] for fault in own_faults(own)] == [
        f"key 'models.x_layer': unknown layer of tiny-s{seed} 'last' (known: conv1, penultimate)"
        for seed in (0, 1)
    ]


def test_public_checkpoints_stand_beside_bundled_ones(own):
    put(own, "checkpoints", "far", PUBLIC)
    assert own_faults(own) == []
    made = catalog.definition("checkpoints", "far", [own])
    assert isinstance(made, PublicCheckpoint)
    assert (made.place, made.files[0].size_bytes, made.files[0].sha256) == ("me/far", 7, None)
    assert isinstance(catalog.definition("checkpoints", "tiny-s0", [own]), CheckpointDefinition)
    message = r"^weights of checkpoint 'far' are not bundled; they are published at me/far, from wh"
    with pytest.raises(MissingFileError, match=message):
        catalog.weights("far", [own])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'hub = "',
            'url = "https://x.org"\nhub = "',
            r"one of hub, url and package is needed, not 2",
        ),
        ('hub = "me/far"', 'url = "http://x.org"', r"key 'url' is 'http://x\.org': Expected `str`"),
        ('hub = "me/far"', 'package = "far"', r"key 'package' is 'far': Expected `str` matching"),
        ('hub = "me/far"', 'package = "far==1.0"', r"a package needs files, and its version takes"),
        ('hub = "me/far"', 'hub = "far"', r"key 'hub' is 'far': Expected `str` matching regex"),
        ('"0123456789ab', '"0123', r"key 'revision' is '0123cdef.*': Expected `str` matching reg"),
        ('"transformers"', '"reference"', r"key 'family' is 'reference': Invalid enum value"),
        ('license = "MIT"', "", r"key 'license' is missing; add it"),
        ('["camera"]', '["sound"]', r"key 'inputs' is \['sound'\]: Invalid enum value 'sound'"),
        ('"id: https://example.org/me/far"', '"id"', r"checked 'id' lacks the address where it w"),
        (
            "size_bytes",
            "size",
            r"key 'files\[0\]\.size': unknown key 'size'; did you mean 'size_byt",
        ),
        ("size_bytes = 7", "sha256 = '0f'", r"key 'files\[0\]\.sha256' is '0f': Expected `str` ma"),
        (
            '"model.s',
            '"../model.s',
            r"section 'files\[0\]': path '\.\./model\.safetensors' must li",
        ),
        (
            '"model.s',
            '"/model.s',
            r"section 'files\[0\]': path '/model\.safetensors' must lie insi",
        ),
        (
            '"model.s',
            '"C:model.s',
            r"section 'files\[0\]': path 'C:model\.safetensors' must lie in",
        ),
        (
            "[[files]]",
            "[files]",
            r"key 'files' is \{.*\}: Expected `array`, got `object`; mend the",
        ),
        ("role =", "parameters = 7\nrole =", r"key 'parameters': unknown key 'parameters' \(known"),
    ],
)
def test_broken_public_checkpoint_is_refused(own, old, new, message):
    assert old in PUBLIC
    path = put(own, "checkpoints", "far", PUBLIC.replace(old, new, 1))
    with pytest.raises(DefinitionError, match=rf"^{path}: {message}"):
        catalog.definition("checkpoints", "far", [own])
    assert any(fault.startswith(f"{path}: ") for fault in own_faults(own))


def test_shipped_public_checkpoints():
    shipped = catalog.definitions("checkpoints").values()
    public = [made for made in shipped if isinstance(made, PublicCheckpoint)]
    assert len(public) >= 40
    assert {made.role for made in public} == {"observation", "execution"}
    assert len({made.family for made in public}) >= 14
    for made in public:
        assert made.summary.endswith(".") and len(made.summary) <= 100, made.name
        # A digest or a size without the file it belongs to would be of no use.
        assert made.url is None or made.files, made.name
