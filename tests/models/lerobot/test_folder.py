import copy
import json

import pytest

from mirror_analysis.errors import FormatError, UnknownNameError
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.families import recognise as recognise_any
from mirror_analysis.models.lerobot import load, recognise
from mirror_analysis.models.lerobot.folder import find, require


def written(path, config, *, weights=b""):
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (path / "model.safetensors").write_bytes(weights)
    return Checkpoint(path)


@pytest.fixture
def config(kit):
    return copy.deepcopy({"type": "act"} | kit.FEELING)


def test_a_folder_says_what_it_reads_and_gives(config, kit, tmp_path):
    config["input_features"]["observation.images.wrist_cam"] = kit.feature("VISUAL", 3, 48, 64)
    checkpoint = written(tmp_path / "anything", config)
    folder = require(checkpoint)
    assert folder.streams == {
        "observation.images.wrist_cam": "camera:wrist_cam",
        "observation.state": "states",
        "observation.environment_state": "array:observation.environment_state",
    }
    assert [(need.name, need.width) for need in folder.needs] == [
        ("camera:wrist_cam", None),
        ("states", 3),
        ("array:observation.environment_state", 5),
    ]
    assert folder.needs[0].note == "observation.images.wrist_cam, 48 x 64 pixels"
    assert folder.action.mode == "MIN_MAX"
    assert folder.inputs["observation.environment_state"].mode == "IDENTITY"
    words = (
        "LeRobot policy 'act' from camera:wrist_cam, states [3],"
        " array:observation.environment_state [5] to 2"
    )
    assert recognise(checkpoint) == words
    assert recognise_any(checkpoint).family == "lerobot"


def test_an_only_picture_is_any_camera(kit, config, tmp_path):
    picture = kit.feature("VISUAL", 3, 48, 64)
    config["input_features"] = {"observation.image": picture}
    assert require(written(tmp_path / "one", config)).needs[0].name == "camera"
    config["input_features"]["observation.images.side"] = picture
    names = [need.name for need in require(written(tmp_path / "two", config)).needs]
    assert names == ["camera:observation.image", "camera:side"]


@pytest.mark.parametrize(
    "where",
    ["", "pretrained_model", "last/pretrained_model", "checkpoints/last/pretrained_model"],
)
def test_the_folder_is_found_from_above(where, config, tmp_path):
    written(tmp_path / where, config)
    found = find(Checkpoint(tmp_path))
    assert found is not None and found.checkpoint.path == tmp_path / where


def test_the_latest_step_counts_where_none_is_called_last(config, tmp_path):
    for step in ("000900", "001000", "000100"):
        written(tmp_path / "checkpoints" / step / "pretrained_model", config)
    path = tmp_path / "checkpoints" / "001000" / "pretrained_model"
    assert require(Checkpoint(tmp_path)).checkpoint.path == path
    (tmp_path / "checkpoints" / "last").symlink_to("000900")
    last = tmp_path / "checkpoints" / "last" / "pretrained_model"
    assert require(Checkpoint(tmp_path)).checkpoint.path == last


def test_a_link_out_of_the_folder_is_refused(config, tmp_path):
    written(tmp_path / "elsewhere" / "pretrained_model", config)
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FormatError, match="takes outside it"):
        require(Checkpoint(run))
    assert find(Checkpoint(run)) is None


@pytest.mark.parametrize(
    "content",
    ["{}", '{"model_type": "vit"}', '{"type": "act"}', "no JSON", '{"input_shapes": {}}'],
)
def test_other_folders_are_not_recognised(content, tmp_path):
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    (tmp_path / "model.safetensors").touch()
    assert recognise(Checkpoint(tmp_path)) is None
    assert recognise(Checkpoint(tmp_path / "config.json")) is None


def test_a_folder_without_a_policy_is_refused(tmp_path):
    with pytest.raises(FormatError, match=r"holds no LeRobot policy; needed a folder with config"):
        load(Checkpoint(tmp_path), name="it", options=Options())


def test_a_policy_of_another_type_is_named(config, tmp_path):
    checkpoint = written(tmp_path, config | {"type": "tdmpc"})
    assert recognise(checkpoint) is not None
    with pytest.raises(UnknownNameError, match=r"type of LeRobot policy 'tdmpc'.*known: act"):
        load(checkpoint, name="it", options=Options())


@pytest.mark.parametrize(
    ("key", "entry", "words"),
    [
        ("observation.image", {"type": "SMELL", "shape": [3]}, "the type 'SMELL'"),
        ("observation.image", {"type": "VISUAL", "shape": [48, 64, 3]}, "not 3 x height x width"),
        ("observation.image", {"type": "VISUAL", "shape": [3, 10**9, 64]}, "the shape"),
        ("observation.state", {"type": "STATE", "shape": [3, 2]}, "a vector 'observation.state'"),
        ("observation.state", ["STATE"], "the type 'None'"),
    ],
)
def test_features_that_cannot_be_are_refused(key, entry, words, config, tmp_path):
    config["input_features"] = {key: entry}
    with pytest.raises(FormatError, match=f"config.json has .*{words}.*fetch it anew"):
        require(written(tmp_path, config))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"output_features": {}}, "no output_features.action"),
        ({"input_features": []}, "input_features that are no object"),
        ({"normalization_mapping": {"STATE": "MAGIC"}}, "a normalisation 'MAGIC'"),
    ],
)
def test_a_config_that_cannot_be_is_refused(change, words, config, tmp_path):
    with pytest.raises(FormatError, match=words):
        require(written(tmp_path, config | change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dim_model": 10**9}, "dim_model"),
        ({"n_encoder_layers": "many"}, "n_encoder_layers"),
        ({"feedforward_activation": "glu"}, "glu"),
        ({"dim_model": 18}, "needed a width of even heads"),
    ],
)
def test_hyperparameters_out_of_bounds_are_refused(change, words, config, tmp_path):
    with pytest.raises(FormatError, match=words):
        load(written(tmp_path, config | change), name="it", options=Options())


OLD = {
    "input_shapes": {"observation.image": [3, 48, 64], "observation.state": [3]},
    "output_shapes": {"action": [2]},
    "input_normalization_modes": {"observation.image": "mean_std", "observation.state": "min_max"},
    "output_normalization_modes": {"action": "min_max"},
}


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"chunk_size": 5, "dim_model": 16}, "act"),
        ({"horizon": 8, "down_dims": [8, 16]}, "diffusion"),
        ({"n_action_pred_token": 2, "vqvae_n_embed": 4}, "vqbet"),
    ],
)
def test_configs_of_the_first_versions_are_read(fields, kind, tmp_path):
    folder = require(written(tmp_path, OLD | fields))
    assert folder.kind == kind
    assert {key: f.mode for key, f in folder.inputs.items()} == {
        "observation.image": "MEAN_STD",
        "observation.state": "MIN_MAX",
    }
    assert (folder.action.shape, folder.action.mode) == ((2,), "MIN_MAX")


def test_old_modes_that_are_no_object_are_refused(tmp_path):
    config = OLD | {"chunk_size": 5, "dim_model": 16, "input_normalization_modes": [1]}
    with pytest.raises(FormatError, match="input_normalization_modes that are no object"):
        require(written(tmp_path, config))
