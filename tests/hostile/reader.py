"""Reads files in a process of its own that watches itself: `python tests/hostile/reader.py`.

Each line on stdin is a job {"id", "entry", "path", "folder"}; each line on stdout says how it went.
Meanwhile memory is limited, and what Python itself opens, runs, imports or writes is noted.
"""

import contextlib
import io
import json
import os
import resource
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

GIB = 2**30
ROOMS = 3 * GIB  # of address space, beyond what the imported libraries take
EPISODES = 3  # of which pictures are read
HERE = Path(__file__).resolve().parents[2]
SYSTEM = (sys.prefix, sys.base_prefix, str(HERE), "/proc/self", "/proc/cpuinfo", "/proc/meminfo",
          "/sys/devices", "/dev/null", "/dev/urandom", "/usr/lib",
          "/usr/share/zoneinfo")  # fmt: skip
RUNS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn",
        "os.startfile", "os.chdir", "socket.connect", "socket.bind", "socket.getaddrinfo",
        "urllib.Request", "webbrowser.open", "pickle.find_class")  # fmt: skip
WRITES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.chmod", "os.chown", "os.symlink",
          "os.link", "os.truncate", "shutil.rmtree", "shutil.move", "shutil.copyfile")  # fmt: skip


class Watch:
    """Notes what the interpreter does while a job is read that reading does not take."""

    def __init__(self):
        self.folder = None
        self.seen = []
        self.scratch = os.path.realpath(tempfile.gettempdir())
        sys.addaudithook(self)

    def __call__(self, event, arguments):
        if self.folder is None:
            return
        folder, self.folder = self.folder, None  # nothing below is watched
        try:
            note = self._note(event, arguments, folder)
            if note and len(self.seen) < 20:
                self.seen.append(note[:300])
        finally:
            self.folder = folder

    def _note(self, event, arguments, folder):
        if event == "open" and isinstance(arguments[0], str | bytes):
            path, mode, flags = os.path.realpath(os.fsdecode(arguments[0])), *arguments[1:]
            changes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            if path.startswith(self.scratch + "/") and not path.startswith(folder):
                return None
            inside = path == folder or path.startswith(folder + "/")
            if changes and path != "/dev/null":
                return f"opened to write: {path}"
            return None if inside or path.startswith(SYSTEM) else f"opened: {path} {mode}"
        if event == "subprocess.Popen":
            program, command = arguments[0], arguments[1]
            own = program == sys.executable and {"-m", "-c"} & set(command[1:3])
            return None if own else f"ran {command}"
        if event == "ctypes.dlopen" and arguments[0]:
            path = os.path.realpath(os.fsdecode(arguments[0]))
            return f"loaded {path}" if path.startswith(folder) else None
        if event in ("exec", "import"):
            name = getattr(arguments[0], "co_filename", "") if event == "exec" else arguments[1]
            return f"{event} of {name}" if str(name or "").startswith(folder) else None
        if event in WRITES:
            places = [os.path.realpath(a) for a in arguments if isinstance(a, str)]
            own = all(p.startswith(self.scratch + "/") for p in places)
            return None if own else f"{event} {arguments}"
        return f"{event} {arguments}" if event in RUNS else None


def whole_model(path):
    from mirror_analysis.models import load_model

    model = load_model(path)
    return f"{model.facts.get('family')}, {len(model.layers())} layers"


def whole_episodes(source):
    from mirror_analysis.episodes import load_episodes

    episodes = load_episodes(source)
    shapes = []
    for episode, _ in zip(episodes, range(EPISODES), strict=False):
        shapes += [episode.frames(camera).shape for camera in episode.cameras]
        shapes += [episode.states.shape, episode.actions.shape]
    return f"{len(episodes)} episodes, {shapes}"


def command(*words):
    """A command of `mirror`, as the shell runs it: what it prints, or its one line of a fault."""
    from mirror_analysis.cli.app import app
    from mirror_analysis.cli.terminal import faults

    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            with faults():
                app(list(words), standalone_mode=False)
        except SystemExit as end:
            code = end.code
    if code:
        raise SaidNo(code, err.getvalue())
    return out.getvalue()[:300]


class SaidNo(Exception):
    """A command ended with a code other than 0; what it wrote to stderr."""


def file_of(name):
    """Reads one file with the function of `mirror_analysis.files` for its format."""
    import mirror_analysis.files as files

    reader = getattr(files, name)

    def read(path):
        found = reader(Path(path))
        if name == "records":
            for record in found:
                files.example(record)
            return "records"
        return type(found).__name__

    return read


def entry_of(name):
    if name.startswith("file:"):
        return file_of(name.removeprefix("file:"))
    return {
        "model": whole_model,
        "episodes": whole_episodes,
        "inspect": lambda path: command("inspect", path),
        "describe": lambda path: command("episodes", path),
    }[name]


def memory():
    """Bytes of memory this process has now, and the most it had since the last reset."""
    words = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return tuple(int(words[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))


def run(job, watch):
    from mirror_analysis.errors import MirrorError

    answer = {"id": job["id"], "words": "", "kind": "", "trace": ""}
    entry = entry_of(job["entry"])
    Path("/proc/self/clear_refs").write_text("5")
    before, _ = memory()
    began = time.monotonic()
    watch.seen, watch.folder = [], os.path.realpath(job["folder"])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer |= {"outcome": "read", "words": entry(job["path"])}
    except MirrorError as error:
        answer |= {"outcome": "refused", "kind": type(error).__name__, "words": str(error)}
    except SaidNo as no:
        code, said = no.args
        one = code == 1 and said.startswith("error: ") and said.count("\n") == 1
        answer |= {"outcome": "refused" if one else "crashed", "kind": f"exit {code}"}
        answer["words"] = said.strip()
    except BaseException as error:
        watch.folder = None
        answer |= {"outcome": "crashed", "kind": type(error).__name__, "words": str(error)[:500]}
        answer["trace"] = "".join(traceback.format_exception(error)[-6:])[-3000:]
    watch.folder = None
    _, most = memory()
    inner = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    answer |= {"seconds": time.monotonic() - began, "grown": max(most - before, 0)}
    return answer | {"seen": watch.seen, "inner": inner}


def warm():
    """Imports what readers import, so that jobs are not charged for it."""
    os.environ["OMP_NUM_THREADS"] = "1"
    from mirror_analysis import cli, episodes, models  # noqa: F401
    from mirror_analysis.models.families import FAMILIES, family
    from mirror_analysis.torchvision_shim import ensure_torchvision

    ensure_torchvision()
    for name in FAMILIES:
        family(name)
    import av  # noqa: F401
    import h5py  # noqa: F401
    import onnxruntime  # noqa: F401
    import PIL.Image
    import pyarrow.parquet  # noqa: F401
    import torch
    import transformers  # noqa: F401

    PIL.Image.init()
    torch.set_num_threads(1)


def main():
    out = os.fdopen(os.dup(1), "w", buffering=1)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)  # what libraries in C print of damaged files
    warm()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOMS, used + ROOMS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    watch = Watch()
    print(json.dumps({"ready": True}), file=out)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line), watch)), file=out)


if __name__ == "__main__":
    main()
