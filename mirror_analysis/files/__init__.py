"""Safe reading of any file: nothing in it is run, nothing it claims is believed before a check."""

from __future__ import annotations

from mirror_analysis.lazy import lazy

_PUBLIC = {
    "Archive": "archives",
    "Record": "inert",
    "content_digest": "digests",
    "example": "tfrecords",
    "inside": "places",
    "kind_of": "kinds",
    "load_torchscript": "torchscript",
    "open_hdf5": "hdf5",
    "pickle_names": "pickles",
    "read_header": "safetensors",
    "read_json": "jsons",
    "read_npz": "npz",
    "read_onnx": "onnx_files",
    "read_pickle": "pickles",
    "read_picture": "pictures",
    "read_safetensors": "safetensors",
    "read_torch": "torch_files",
    "records": "tfrecords",
    "require_file": "places",
    "write_safetensors": "safetensors",
}
__all__ = list(_PUBLIC)

__getattr__, __dir__ = lazy(__name__, _PUBLIC)
