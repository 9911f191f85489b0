"""Names with line ends and commands to terminals, which no message may pass on as they are."""

import json
import pickle

import numpy as np
import onnx
import torch
from hostile import sound_episodes, sound_models
from hostile.cases import case
from hostile.path_cases import change_json
from hostile.pickle_cases import named
from lerobot_files import write_info

from mirror_analysis.files.safetensors import write_safetensors

ODD = "x\n\x1b]0;owned\x07\x1b[2J\u202eerror: all is well"


def _config(make, key, value=ODD):
    def built(folder, bait):
        path = make(folder)
        change_json(folder / "config.json", lambda said: said.update({key: value}))
        return path

    return built


CONFIGS = {
    "model_type": _config(sound_models.transformers, "model_type"),
    "architectures": _config(sound_models.transformers, "architectures", [ODD]),
    "hidden_act": _config(sound_models.transformers, "hidden_act"),
    "hidden_size": _config(sound_models.transformers, "hidden_size"),
    "auto_map": _config(sound_models.transformers, "auto_map", {"AutoModel": ODD}),
    "architecture": _config(sound_models.timm, "architecture"),
    "model_args": _config(sound_models.timm, "model_args", {ODD: 1}),
    "num_classes": _config(sound_models.timm, "num_classes"),
    "type": _config(sound_models.lerobot, "type"),
    "input_features": _config(sound_models.lerobot, "input_features", {ODD: {"type": ODD}}),
    "normalization_mapping": _config(sound_models.lerobot, "normalization_mapping", {"STATE": ODD}),
}
for _name, _make in CONFIGS.items():
    case("inspect", None, name=f"odd text: {_name}")(_make)


@case("model", "")
def odd_tensor_name(folder, bait):
    sound_models.transformers(folder)
    write_safetensors(folder / "model.safetensors", {"ok": torch.ones(1)}, {})
    held = json.dumps({ODD: {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}).encode()
    path = folder / "model.safetensors"
    path.write_bytes(len(held).to_bytes(8, "little") + held + bytes(4))
    return folder


@case("model", "")
def odd_operator(folder, bait):
    path = sound_models.onnx_policy(folder)
    model = onnx.load(str(path))
    model.graph.node[0].op_type = ODD
    path.write_bytes(model.SerializeToString())
    return path


@case("model", "")
def odd_module(folder, bait):
    sound_models.sentences(folder)
    change_json(folder / "modules.json", lambda said: said[1].update(type=ODD))
    return folder


@case("model", "")
def odd_shard(folder, bait):
    sound_models.transformers_shards(folder)
    index = folder / "model.safetensors.index.json"
    change_json(index, lambda said: said.update(weight_map={"x": ODD}))
    return folder


@case("describe", "")
def odd_film(folder, bait):
    sound_episodes.films(folder)
    (folder / "labels.csv").write_text(f'file\n"{ODD}"\n')
    return folder


@case("describe", "")
def odd_template(folder, bait):
    sound_episodes.lerobot_2(folder)
    write_info(folder, data_path=ODD)
    return folder


@case("describe", "")
def odd_version(folder, bait):
    sound_episodes.lerobot_2(folder)
    write_info(folder, codebase_version=ODD)
    return folder


@case("episodes", None)
def odd_feature(folder, bait):
    sound_episodes.lerobot_2(folder)
    write_info(folder, features={ODD: {"dtype": ODD, "shape": [1]}})
    return folder


@case("describe", "")
def odd_class(folder, bait):
    path = folder / "experts.pkl"
    path.write_bytes(b"X\x07\x00\x00\x00actionsX\x0c\x00\x00\x00observations"
                     + named("os", ODD) + b".")  # fmt: skip
    return f"demonstrations:{path}"


@case("episodes", "")
def odd_key(folder, bait):
    path = folder / "experts.pkl"
    path.write_bytes(pickle.dumps({ODD: [ODD], "observations": ODD, "actions": np.ones(2)}))
    return f"demonstrations:{path}"
