"""Code in every place where a pickle, a program or a name of code can hide."""

import base64
import io
import json
import pickle
import zipfile

import h5py
import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from hostile import sound_episodes, sound_models
from hostile.cases import case, payload, poison

CALLED = r"posix\.system|nt\.system"


def changed_zip(path, changes):
    """The same archive with other members: how a name ends -> bytes; added where none does."""
    with zipfile.ZipFile(path) as old:
        kept = {name: old.read(name) for name in old.namelist()}
    top = next(iter(kept)).partition("/")[0]
    for ending, data in changes.items():
        names = [name for name in kept if name == ending or name.endswith(f"/{ending}")]
        kept |= dict.fromkeys(names or [f"{top}/{ending}"], data)
    with zipfile.ZipFile(path, "w") as new:
        for name, data in kept.items():
            new.writestr(name, data)
    return path


def saved(value, **options):
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


# -- models ---------------------------------------------------------------------------------------


@case("model", CALLED)
def expert_pickle(folder, bait):
    path = sound_models.cs285(folder)
    path.write_bytes(pickle.dumps(pickle.loads(path.read_bytes()) | {"nonlin_type": payload(bait)}))
    return path


@case("inspect", CALLED)
def expert_pickle_by_command(folder, bait):
    return expert_pickle(folder, bait)


@case("model", "no known family")
def bare_pickle(folder, bait):
    (folder / "model.pkl").write_bytes(poison(bait))
    return folder / "model.pkl"


@case("model", "pickle")
def pickle_called_safetensors(folder, bait):
    sound_models.transformers(folder)
    (folder / "model.safetensors").write_bytes(poison(bait))
    return folder


@case("model", CALLED)
def torch_weights_of_a_folder(folder, bait):
    sound_models.transformers_bin(folder)
    torch.save({"embeddings.cls_token": payload(bait)}, folder / "pytorch_model.bin")
    return folder


@case("model", CALLED)
def legacy_torch_weights(folder, bait):
    sound_models.transformers_bin(folder)
    held = saved({"x": payload(bait)}, _use_new_zipfile_serialization=False)
    (folder / "pytorch_model.bin").write_bytes(held)
    return folder


@case("model", CALLED)
def legacy_torch_head(folder, bait):
    """The first of the pickles in the old form: where the system is described."""
    sound_models.transformers_bin(folder)
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
    data = magic + poison(bait, 2) + pickle.dumps({}, 2) + pickle.dumps([], 2)
    (folder / "pytorch_model.bin").write_bytes(data)
    return folder


@case("model", "tar|no known|not a file of torch|pickle|PyTorch|torch")
def ancient_torch_tar(folder, bait):
    import tarfile

    sound_models.transformers_bin(folder)
    with tarfile.open(folder / "pytorch_model.bin", "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            info = tarfile.TarInfo(name)
            info.size = len(poison(bait))
            archive.addfile(info, io.BytesIO(poison(bait)))
    return folder


@case("model", CALLED)
def nested_storage(folder, bait):
    """A pickle inside the bytes that a storage of torch is loaded from."""
    sound_models.transformers_bin(folder)
    inner = saved(payload(bait), _use_new_zipfile_serialization=False)
    outer = Nested(inner)
    torch.save({"x": outer}, folder / "pytorch_model.bin")
    return folder


class Nested:
    def __init__(self, data):
        self.data = data

    def __reduce__(self):
        return torch.storage._load_from_bytes, (self.data,)


@case("model", CALLED)
def sb3_policy(folder, bait):
    return changed_zip(sound_models.sb3(folder), {"policy.pth": saved({"x": payload(bait)})})


@case("model", None)
def sb3_settings(folder, bait):
    """Cloudpickle in every setting: never looked into."""
    path = sound_models.sb3(folder)
    with zipfile.ZipFile(path) as archive:
        settings = json.loads(archive.read("data"))
    blob = base64.b64encode(poison(bait)).decode()
    for value in settings.values():
        if isinstance(value, dict) and ":serialized:" in value:
            value[":serialized:"] = blob
    settings["lr_schedule"] = {":type:": "<class 'function'>", ":serialized:": blob}
    return changed_zip(path, {"data": json.dumps(settings).encode()})


@case("model", None)
def sb3_variables(folder, bait):
    held = saved({"x": payload(bait)})
    changes = {"pytorch_variables.pth": held, "policy.optimizer.pth": held}
    return changed_zip(sound_models.sb3(folder), changes)


@case("model", CALLED)
def sb3_statistics(folder, bait):
    path = sound_models.sb3(folder)
    (folder / "vecnormalize.pkl").write_bytes(poison(bait))
    return path


@case("model", None)
def sb3_yaml(folder, bait):
    path = sound_models.sb3(folder)
    command = f"!!python/object/apply:os.system ['touch {bait.canary}']\n"
    (folder / "config.yml").write_text(command)
    (folder / "args.yml").write_text(command)
    return path


@case("model", f"{CALLED}|no known family")
def robomimic_checkpoint(folder, bait):
    path = sound_models.robomimic(folder)
    held = torch.load(path, weights_only=False) | {"config": payload(bait)}
    torch.save(held, path)
    return path


@case("model", CALLED)
def torchscript_constants(folder, bait):
    return changed_zip(sound_models.torchscript(folder), {"constants.pkl": poison(bait, 2)})


@case("model", CALLED)
def torchscript_data(folder, bait):
    return changed_zip(sound_models.torchscript(folder), {"data.pkl": poison(bait, 2)})


def _programmed(folder, line):
    path = sound_models.torchscript(folder)
    with zipfile.ZipFile(path) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("graph_files.py"))
        code = archive.read(name).decode()
    head, _, rest = code.partition("  def forward(")
    signature, _, body = rest.partition("\n")
    code = f"{head}  def forward({signature}\n    {line}\n{body}"
    return changed_zip(path, {name: code.encode()})


@case("model", "from_file")
def torchscript_maps_a_file(folder, bait):
    line = f'secret = torch.from_file("{bait.secret}", False, 8)'
    return _programmed(folder, line)


@case("model", None)
def torchscript_that_allocates(folder, bait):
    return _programmed(folder, "y = torch.zeros([1099511627776])")


@case("model", "plain operations")
def torchscript_foreign_operation(folder, bait):
    return _programmed(folder, "y = ops.evil.run(x)")


@case("model", "plain operations|save")
def torchscript_writes_a_file(folder, bait):
    return _programmed(folder, f'torch.save(x, "{bait.canary}")')


@case("model", "cannot be loaded")
def torchscript_imports_os(folder, bait):
    return _programmed(folder, f'import os; os.system("touch {bait.canary}")')


@case("model", None)
def exported_sample_inputs(folder, bait):
    path = sound_models.exported(folder)
    with zipfile.ZipFile(path) as archive:
        (name,) = (n for n in archive.namelist() if "sample_inputs" in n)
    return changed_zip(path, {name: saved((payload(bait),))})


@case("model", None)
def exported_object(folder, bait):
    changes = {"data/constants/custom_obj_0": poison(bait)}
    return changed_zip(sound_models.exported(folder), changes)


def _graph(folder, change):
    path = sound_models.exported(folder)
    with zipfile.ZipFile(path) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("models/model.json"))
        graph = json.loads(archive.read(name))
    change(graph)
    return changed_zip(path, {name: json.dumps(graph).encode()})


@case("model", "os.system")
def exported_operator(folder, bait):
    def change(graph):
        graph["graph_module"]["graph"]["nodes"][0]["target"] = "os.system"

    return _graph(folder, change)


@case("model", None)
def exported_expression(folder, bait):
    text = f"__import__('os').system('touch {bait.canary}')"

    def change(graph):
        values = graph["graph_module"]["graph"]["sym_int_values"]
        values["s0"] = {"as_expr": {"expr_str": text, "hint": {"as_int": 2}}}

    return _graph(folder, change)


@case("model", None)
def exported_guards(folder, bait):
    def change(graph):
        graph["guards_code"] = [f"__import__('os').system('touch {bait.canary}')"]

    return _graph(folder, change)


@case("model", "remote|own code|trust")
def remote_code(folder, bait):
    sound_models.transformers(folder)
    said = json.loads((folder / "config.json").read_text())
    said |= {"model_type": "evil", "auto_map": {"AutoModel": "modeling.Evil",
                                                "AutoConfig": "modeling.Config"}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(said | {"trust_remote_code": True}))
    code = f"import os\nos.system('touch {bait.canary}')\n"
    (folder / "modeling.py").write_text(code)
    return folder


@case("model", None)
def remote_code_beside_a_known_type(folder, bait):
    sound_models.transformers(folder)
    said = json.loads((folder / "config.json").read_text())
    said |= {"auto_map": {"AutoModel": "modeling.Evil"}, "trust_remote_code": True}
    (folder / "config.json").write_text(json.dumps(said))
    (folder / "modeling.py").write_text(f"open('{bait.canary}', 'w')\n")
    (folder / "__init__.py").write_text(f"open('{bait.canary}', 'w')\n")
    return folder


@case("model", "cannot be done here")
def module_of_a_sentence_encoder(folder, bait):
    sound_models.sentences(folder)
    (folder / "evil.py").write_text(f"open('{bait.canary}', 'w')\n")
    steps = json.loads((folder / "modules.json").read_text())
    steps[1]["type"] = "evil.Module"
    (folder / "modules.json").write_text(json.dumps(steps))
    return folder


@case("model", "can be made")
def factory_of_a_network(folder, bait):
    """A config of timm that names a function in the place of a block."""
    sound_models.timm(folder)
    said = json.loads((folder / "config.json").read_text())
    said["model_args"] |= {"block_fn": "os.system", "act_layer": "os.system"}
    (folder / "config.json").write_text(json.dumps(said))
    return folder


@case("model", "names the architecture")
def network_from_elsewhere(folder, bait):
    sound_models.timm(folder)
    said = json.loads((folder / "config.json").read_text())
    said["architecture"] = f"local-dir:{bait.folder}"
    (folder / "config.json").write_text(json.dumps(said))
    return folder


@case("model", "operator|domain")
def onnx_foreign_operator(folder, bait):
    path = sound_models.onnx_policy(folder)
    model = onnx.load(str(path))
    model.graph.node[0].domain = "evil.library"
    model.opset_import.append(onnx.helper.make_opsetid("evil.library", 1))
    path.write_bytes(model.SerializeToString())
    return path


@case("model", "uses the operator")
def onnx_python_operator(folder, bait):
    path = sound_models.onnx_policy(folder)
    model = onnx.load(str(path))
    model.graph.node[0].op_type = "PyOp"
    model.graph.node[0].domain = "ai.onnx.contrib"
    path.write_bytes(model.SerializeToString())
    return path


# -- episodes -------------------------------------------------------------------------------------


@case("episodes", CALLED)
def trajectories(folder, bait):
    path = folder / "experts.pkl"
    step = {"observations": np.ones((2, 3)), "actions": payload(bait)}
    path.write_bytes(pickle.dumps([step]))
    return path


@case("describe", CALLED)
def trajectories_by_command(folder, bait):
    return trajectories(folder, bait)


def _rlbench(folder, name, data):
    sound_episodes.peract(folder)
    (place,) = folder.rglob(name)
    place.write_bytes(data)
    return folder


@case("episodes", CALLED)
def rlbench_demonstration(folder, bait):
    return _rlbench(folder, "low_dim_obs.pkl", poison(bait))


@case("episodes", CALLED)
def rlbench_descriptions(folder, bait):
    return _rlbench(folder, "variation_descriptions.pkl", poison(bait))


@case("episodes", CALLED)
def rlbench_number(folder, bait):
    return _rlbench(folder, "variation_number.pkl", poison(bait))


@case("episodes", CALLED)
def rlbench_state(folder, bait):
    """Inside the state of a class that is allowed as a record."""
    demo_class, observation_class = sound_episodes.classes()
    demo = demo_class()
    demo._observations = [observation_class()]
    demo._observations[0].misc = {"x": payload(bait)}
    data = sound_episodes.pickled(demo, (demo_class, observation_class))
    return _rlbench(folder, "low_dim_obs.pkl", data)


@case("episodes", "objects|pickle")
def object_array(folder, bait):
    sound_episodes.arrays(folder)
    path = sorted(folder.glob("*.npz"))[0]
    with np.load(path) as held:
        arrays = {name: held[name] for name in held.files}
    arrays["states"] = np.array([payload(bait)], dtype=object)
    np.savez(path, **arrays)
    return folder


@case("episodes", None)
def parquet_with_a_pickled_type(folder, bait):
    """The extension type of Arrow that once was unpickled on reading."""
    sound_episodes.lerobot_3(folder)
    for path in folder.rglob("*.parquet"):
        table = pq.read_table(path)
        fields = [
            field.with_metadata({"ARROW:extension:name": "arrow.py_extension_type",
                                 "ARROW:extension:metadata": poison(bait)})
            for field in table.schema
        ]  # fmt: skip
        schema = pa.schema(fields, metadata={"pandas": poison(bait)})
        pq.write_table(pa.Table.from_arrays(table.columns, schema=schema), path)
    return folder


@case("episodes", None)
def hdf5_attributes(folder, bait):
    path = sound_episodes.robomimic(folder)
    with h5py.File(path, "r+") as file:
        file["data"].attrs["env_args"] = np.void(poison(bait))
        file["data/demo_9"].attrs["ep_meta"] = np.frombuffer(poison(bait), np.uint8)
        file["data/demo_9/obs/extra"] = np.array([np.void(poison(bait))] * 5)
    return path


@case("episodes", None)
def parquet_cell(folder, bait):
    sound_episodes.films_parquet(folder)
    path = folder / "labels.parquet"
    table = pq.read_table(path)
    cells = pa.array([poison(bait)] * len(table))
    pq.write_table(table.append_column("label", cells), path)
    return folder
