import copy
import json

import pytest
import torch

from mirror_analysis.errors import DefinitionError, FormatError, UnknownNameError
from mirror_analysis.files.safetensors import write_safetensors

PREPROCESSOR = "policy_preprocessor.json"
STATE_FILE = "policy_preprocessor_step_3_normalizer_processor.safetensors"


@pytest.fixture
def config(kit):
    modes = {"STATE": "MEAN_STD", "ENV": "QUANTILES", "ACTION": "MIN_MAX"}
    return copy.deepcopy(kit.FEELING | {"normalization_mapping": modes})


@pytest.fixture
def folder(kit, config, tmp_path):
    return kit.write_folder(tmp_path / "policy", "act", config)


def acted(kit, model):
    (episode,) = kit.episodes(model, count=1)
    with torch.inference_mode():
        return model.forward_batch([episode])


def old(kit, config, *, scope="", drop=()):
    """Statistics as they stood among the weights, under names of a data set or of none."""
    found = {}
    for name, tensor in kit.all_statistics(config).items():
        key, _, statistic = name.rpartition(".")
        buffer = f"{scope}buffer_{key.replace('.', '_')}.{statistic}"
        parts = ["normalize_targets", "unnormalize_outputs"]
        for part in parts if key == "action" else ["normalize_inputs"]:
            if key not in drop:
                found[f"{part}.{buffer}"] = tensor
    return found


def test_the_numbers_of_the_new_style(kit, config, folder):
    model = kit.loaded(folder)
    state = model.scaling["observation.state"]
    wanted = kit.statistics("observation.state", (3,))
    assert torch.equal(state.low, torch.from_numpy(wanted["mean"]))
    assert torch.equal(state.high, torch.from_numpy(wanted["std"]))
    environment = model.scaling["observation.environment_state"]
    assert environment.mode == "QUANTILES"
    wanted = kit.statistics("observation.environment_state", (5,))
    assert torch.equal(environment.high, torch.from_numpy(wanted["q99"]))
    assert model.settings["normalisation"] == (
        "observation.state MEAN_STD, observation.environment_state QUANTILES, action MIN_MAX"
    )
    assert PREPROCESSOR in model.facts["normalisation"]


def test_old_and_new_style_agree(kit, config, folder, tmp_path):
    other = kit.write_folder(
        tmp_path / "old", "act", config, processors=False, more=old(kit, config)
    )
    model = kit.loaded(other)
    assert torch.allclose(acted(kit, model), acted(kit, kit.loaded(folder)), atol=1e-5)
    assert "model.safetensors" in model.facts["normalisation"]


def test_a_policy_knows_the_scale_of_its_actions(kit, config, folder):
    raw = kit.loaded(folder, normalise="off")
    model = kit.loaded(folder)
    assert {part.mode for part in raw.scaling.values()} == {"IDENTITY"}
    assert not torch.allclose(acted(kit, raw), acted(kit, model))
    assert raw.settings["normalisation"] != model.settings["normalisation"]
    assert raw.weights_sha256 != model.weights_sha256


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("observation.state", "has no mean and std of observation.state, which it normalises by"),
        ("observation.environment_state", "has no q01 and q99 of observation.environment_state"),
        ("action", "has no min and max of action"),
    ],
)
def test_missing_statistics_are_an_error(missing, words, kit, config, folder, tmp_path):
    kept = {n: t for n, t in kit.all_statistics(config).items() if not n.startswith(missing)}
    kit.write_processors(folder, config, statistics=kept)
    with pytest.raises(FormatError, match=words):
        kit.loaded(folder)
    model = kit.loaded(folder, normalise="partly")
    assert model.scaling[missing].mode == "IDENTITY"
    assert sum(part.mode == "IDENTITY" for part in model.scaling.values()) == 1
    more = old(kit, config, drop=[missing])
    other = kit.write_folder(tmp_path / "old", "act", config, processors=False, more=more)
    with pytest.raises(FormatError, match=words):
        kit.loaded(other)


def test_a_folder_without_any_statistics_is_an_error(kit, config, tmp_path):
    folder = kit.write_folder(tmp_path / "bare", "act", config, processors=False)
    with pytest.raises(FormatError, match=r"looked in its files.*normalise=partly"):
        kit.loaded(folder)
    assert kit.loaded(folder, normalise="off")


def test_one_statistic_of_two_is_named(kit, config, folder):
    kept = {n: t for n, t in kit.all_statistics(config).items() if n != "observation.state.std"}
    kit.write_processors(folder, config, statistics=kept)
    with pytest.raises(FormatError, match=r"has no std of observation\.state"):
        kit.loaded(folder)


def several(kit, config, *, style):
    """Statistics of two data sets; the second one's are twice the first one's."""
    found = {}
    for times, scope in ((1, "so100"), (2, "so100-blue")):
        if style == "old":
            part = old(kit, config, scope=f"{scope}_")
        else:
            part = {f"{scope}.buffer.{n}": t for n, t in kit.all_statistics(config).items()}
        found |= {name: times * tensor for name, tensor in part.items()}
    return found


@pytest.mark.parametrize("style", ["old", "new"])
def test_a_data_set_is_chosen_where_there_are_several(style, kit, config, tmp_path):
    given = several(kit, config, style=style)
    more = given if style == "old" else {}
    path = kit.write_folder(tmp_path / style, "act", config, processors=False, more=more)
    if style == "new":
        kit.write_processors(path, config, statistics=given)
    with pytest.raises(
        DefinitionError, match=r"several data sets \(so100, so100-blue\); say whose"
    ):
        kit.loaded(path)
    with pytest.raises(UnknownNameError, match=r"'so1000'; did you mean 'so100'"):
        kit.loaded(path, dataset="so1000")
    first, second = (kit.loaded(path, dataset=name) for name in ("so100", "so100-blue"))
    low = first.scaling["observation.state"].low
    assert torch.equal(second.scaling["observation.state"].low, 2 * low)
    assert torch.equal(second.scaling["action"].high, 2 * first.scaling["action"].high)
    assert "data set so100-blue" in second.settings["normalisation"]


def test_an_only_data_set_needs_no_choice(kit, config, tmp_path):
    more = old(kit, config, scope="so100_")
    path = kit.write_folder(tmp_path / "one", "act", config, processors=False, more=more)
    assert kit.loaded(path).scaling["action"].mode == "MIN_MAX"


def test_names_that_lost_their_underscores_are_found(kit, config, folder):
    spoilt = {
        f"{key.replace('_', '.')}.{statistic}": tensor
        for name, tensor in kit.all_statistics(config).items()
        for key, _, statistic in [name.rpartition(".")]
    }
    kit.write_processors(folder, config, statistics=spoilt)
    assert kit.loaded(folder).scaling["observation.environment_state"].mode == "QUANTILES"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.full((3,), torch.inf), "mean of observation.state is not finite"),
        (torch.zeros(4), r"mean of observation.state has the shape \(4,\); needed \(3,\)"),
    ],
)
def test_statistics_that_cannot_be_are_refused(value, words, kit, config, folder):
    given = kit.all_statistics(config) | {"observation.state.mean": value}
    kit.write_processors(folder, config, statistics=given)
    with pytest.raises(FormatError, match=words):
        kit.loaded(folder)


def edited(folder, change):
    path = folder / PREPROCESSOR
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content["steps"][-1])
    path.write_text(json.dumps(content), encoding="utf-8")


def test_the_processor_decides_over_the_config(kit, folder):
    def change(step):
        step["config"]["norm_map"] = {"STATE": "MIN_MAX", "ACTION": "MIN_MAX"}

    edited(folder, change)
    model = kit.loaded(folder)
    assert model.scaling["observation.state"].mode == "MIN_MAX"
    assert model.scaling["observation.environment_state"].mode == "IDENTITY"
    assert model.scaling["action"].mode == "MIN_MAX"


def test_keys_that_are_not_listed_are_left_alone(kit, folder):
    (folder / "policy_postprocessor.json").unlink()
    edited(
        folder,
        lambda step: step["config"].update(normalize_observation_keys=["observation.state"]),
    )
    model = kit.loaded(folder)
    assert model.scaling["observation.environment_state"].mode == "IDENTITY"
    assert model.scaling["observation.state"].mode == "MEAN_STD"
    assert model.scaling["action"].mode == "MIN_MAX"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"config": {"norm_map": {"STATE": "MAGIC"}}}, "normalises observation.state by 'MAGIC'"),
        ({"config": {"eps": 7}}, "has the eps '7'"),
        ({"state_file": "../../secret.safetensors"}, "needed a relative name"),
    ],
)
def test_processors_that_cannot_be_are_refused(change, words, kit, folder):
    edited(folder, lambda step: step.update(change))
    with pytest.raises(FormatError, match=words):
        kit.loaded(folder)


def test_a_processor_without_steps_is_refused(kit, folder):
    (folder / PREPROCESSOR).write_text('{"steps": 3}', encoding="utf-8")
    with pytest.raises(FormatError, match="has no list of steps"):
        kit.loaded(folder)


def test_steps_that_are_not_known_are_refused(kit, config, folder):
    steps = [{"registry_name": "map_tensor_to_delta_action_dict", "config": {}}]
    kit.write_processors(folder, config, steps=steps)
    with pytest.raises(FormatError, match=r"has the step 'map_tensor.*processors=ignore"):
        kit.loaded(folder)
    assert kit.loaded(folder, processors="ignore")
    kit.write_processors(folder, config, steps=[{"class": "mine.Step"}])
    with pytest.raises(FormatError, match=r"has the step 'mine\.Step'"):
        kit.loaded(folder)


def test_renamed_streams_are_told(kit, config, folder):
    rename = {"rename_map": {"observation.joints": "observation.state"}}
    step = {"registry_name": "rename_observations_processor", "config": rename}
    kit.write_processors(folder, config, steps=[step])
    need = kit.loaded(folder).needs[0]
    assert need.note == "observation.state, trained on observation.joints"


def test_statistics_of_pictures_are_per_channel(kit, config, tmp_path):
    config["input_features"]["observation.image"] = kit.feature("VISUAL", 3, 32, 32)
    config["normalization_mapping"]["VISUAL"] = "MEAN_STD"
    model = kit.loaded(kit.write_folder(tmp_path / "sees", "act", config))
    assert model.scaling["observation.image"].low.shape == (3, 1, 1)


def test_a_damaged_state_file_is_refused(kit, folder):
    write_safetensors(folder / STATE_FILE, {"observation.state": torch.zeros(3)}, {})
    with pytest.raises(FormatError, match=r"has no mean and std of observation\.state"):
        kit.loaded(folder)
    (folder / STATE_FILE).write_bytes(b"no tensors")
    with pytest.raises(FormatError, match="safetensors"):
        kit.loaded(folder)
