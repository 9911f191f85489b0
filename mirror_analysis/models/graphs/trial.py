"""Runs a stored graph once in a process of its own, so that a hostile one takes only that down."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mirror_analysis.errors import FormatError

_SECONDS = 120
_MEMORY = 8 * 2**30  # bytes of address space, besides four times the file

# Runs as text, not as a module, so that the process loads the runtime and nothing else.
_PROGRAM = """
import sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]),) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except (ImportError, ValueError, OSError):
    pass
import warnings
warnings.simplefilter("ignore")
data = sys.stdin.buffer.read()
try:
    if sys.argv[1] == "tflite":
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
        runtime = Interpreter(
            model_content=data, num_threads=1, experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        runtime.allocate_tensors()
        runtime.invoke()
    else:
        import onnxruntime
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        settings.log_severity_level = 4
        session = onnxruntime.InferenceSession(data, settings, providers=["CPUExecutionProvider"])
        import numpy
        types = {"tensor(float)": "f4", "tensor(double)": "f8", "tensor(float16)": "f2",
                 "tensor(uint8)": "u1", "tensor(int8)": "i1", "tensor(int64)": "i8"}
        try:
            session.run(None, {
                node.name: numpy.zeros(
                    [n if isinstance(n, int) and n > 0 else 1 for n in node.shape], types[node.type]
                )
                for node in session.get_inputs()
            })
        except Exception as error:
            # Sizes of 1 need not fit what the file leaves free; only memory is of interest here.
            if "alloc" in str(error) or isinstance(error, MemoryError):
                raise
except BaseException as error:
    text = " ".join(str(error).split()) or type(error).__name__
    print(text[:300], file=sys.stderr)
    sys.exit(3)
"""


def require_runs(kind: str, model: bytes, *, where: str) -> None:
    """Makes sure that a runtime survives a graph, with bounded memory and time.

    Args:
        kind: "onnx" or "tflite".
        model: the file's bytes.
        where: the file, for the words of errors.

    Raises:
        FormatError: if the runtime refuses the graph, dies of it, or takes too long or too much.
    """
    command = [sys.executable, "-P", "-c", _PROGRAM, kind, str(_MEMORY + 4 * len(model))]
    try:
        done = subprocess.run(
            command, input=model, capture_output=True, timeout=_SECONDS, check=False,
            cwd=Path(sys.executable).parent,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise FormatError(
            f"{where} took its runtime more than {_SECONDS} seconds; export a smaller one"
        ) from None
    if done.returncode == 0:
        return
    words = done.stderr.decode(errors="replace").strip().splitlines()
    reason = words[-1][:200] if words and done.returncode == 3 else "the runtime broke down"
    raise FormatError(f"{where} is not a graph its runtime takes ({reason}); export it again")
