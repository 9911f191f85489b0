"""Small files that claim, or unfold to, more than the memory holds or time allows."""

import fractions
import io
import struct
import warnings
import zipfile
import zlib

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hostile import sound_episodes, sound_models
from hostile.cases import case
from hostile.path_cases import change_json
from lerobot_files import SIDE, change_episodes, write_info

HUGE = 2**40


def png(width, height, *, extra=(), rows=b""):
    """A PNG that claims a size, with further chunks before its rows."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), *extra, (b"IDAT", rows or zlib.compress(bytes(200))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


# -- archives -------------------------------------------------------------------------------------


def zeros(size):
    """A deflate stream that unfolds to so many zeros, made of one block again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * (size // 2**24) + b"\x03\x00"


def zip_of_streams(path, members, *, overlap=False):
    """A zip of deflate streams with the sizes they claim; all at one place where they overlap."""
    data, directory, count = b"", b"", 0
    for name, (stream, size) in members.items():
        fields = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, 0, len(stream), size, len(name), 0)
        at = 0 if overlap else len(data)
        if not (overlap and data):
            data += b"PK\x03\x04" + fields + name.encode() + stream
        directory += b"PK\x01\x02" + struct.pack("<H", 20) + fields
        directory += struct.pack("<HHHII", 0, 0, 0, 0, at) + name.encode()
        count += 1
    end = struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), len(data), 0)
    path.write_bytes(data + directory + b"PK\x05\x06" + end)
    return path


@case("model", "unfold")
def zip_of_zeros(folder, bait):
    size = 3 * 2**30
    held = {"data": (zeros(2**24), 2**24), "policy.pth": (zeros(size), size)}
    return zip_of_streams(folder / "agent.zip", held)


@case("model", "damaged|no known family|size|claims|says")
def zip_that_unfolds_to_more_than_it_says(folder, bait):
    held = {"data": (zeros(2**29), 10), "policy.pth": (zeros(2**29), 10)}
    return zip_of_streams(folder / "agent.zip", held)


@case("model", "overlap")
def zip_of_one_stream_many_times(folder, bait):
    held = {name: (zeros(2**24), 2**24) for name in ("data", "xxxx", "policy.pth")}
    return zip_of_streams(folder / "agent.zip", held, overlap=True)


@case("model", "members|no known family|list")
def zip_that_claims_members(folder, bait):
    path = sound_models.sb3(folder)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x05\x06")
    struct.pack_into("<HHI", data, at + 8, 0xFFFF, 0xFFFF, 0xFFFFFFF0)
    path.write_bytes(data)
    return path


@case("model", "twice")
def zip_member_twice(folder, bait):
    path = sound_models.sb3(folder)
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("policy.pth", b"another")
    return path


@case("episodes", "unfold|array")
def array_of_zeros(folder, bait):
    sound_episodes.arrays(folder)
    path = sorted(folder.glob("*.npz"))[0]
    head = io.BytesIO()
    shape = {"descr": "<f8", "fortran_order": False, "shape": (2**29,)}
    np.lib.format.write_array_header_1_0(head, shape)
    zip_of_streams(path, {"states.npy": (zeros(2**32), 2**32 - 1)})
    return folder


def _npy(folder, **header):
    sound_episodes.arrays(folder)
    path = sorted(folder.glob("*.npz"))[0]
    with zipfile.ZipFile(path) as old:
        kept = {name: old.read(name) for name in old.namelist()}
    stream = io.BytesIO()
    said = {"descr": "<f4", "fortran_order": False, "shape": (3, 2)} | header
    text = (repr(said).ljust(245) + "\n").encode()
    stream.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(24))
    kept["states.npy"] = stream.getvalue()
    with zipfile.ZipFile(path, "w") as new:
        for name, data in kept.items():
            new.writestr(name, data)
    return folder


@case("episodes", r"npz")
def array_of_a_claimed_shape(folder, bait):
    return _npy(folder, shape=(HUGE, HUGE))


@case("episodes", r"npz")
def array_of_a_shape_below_zero(folder, bait):
    return _npy(folder, shape=(-1, 2))


@case("episodes", r"npz")
def array_of_a_wide_type(folder, bait):
    return _npy(folder, descr="<V2000000000")


@case("episodes", r"npz")
def array_of_a_foreign_type(folder, bait):
    return _npy(folder, descr="__import__('os').system('true')")


# -- pictures -------------------------------------------------------------------------------------


def _picture(folder, data):
    sound_episodes.rlbench(folder)
    (place,) = folder.rglob("2.png")
    place.write_bytes(data)
    return folder


def bmp(width, height):
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head


PICTURES = {
    "png of 60000 x 60000": png(60000, 60000),
    "png of 2 ** 31 columns": png(2**31 - 1, 1),
    "png with a text bomb": png(6, 6, extra=[(b"zTXt", b"x\0\0" + zlib.compress(bytes(2**27), 9))]),
    "png with a profile bomb": png(
        6, 6, extra=[(b"iCCP", b"x\0\0" + zlib.compress(bytes(2**27), 9))]
    ),
    "png of zeros behind its rows": png(6, 6, rows=zlib.compress(bytes(2**28), 9)),
    "bmp of 60000 x 60000": bmp(60000, 60000),
    "bmp of fewer than no rows": bmp(60000, -(2**31)),
    "gif of 65535 x 65535": b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0)
    + b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x01\x00\x00;",
    "webp of 16384 x 16384": b"RIFF\x1e\0\0\0WEBPVP8X" + struct.pack("<I", 10) + b"\x10\0\0\0"
    + (16383).to_bytes(3, "little") * 2 + b"VP8L\x05\0\0\0\x2f\xff\xff\xff\x0f\0",
    "jpeg of 65535 x 65535": b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03\x01\x22\0\x02\x11\x01"
    b"\x03\x11\x01\xff\xda\0\x0c\x03\x01\0\x02\x11\x03\x11\0?\0" + bytes(64) + b"\xff\xd9",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd)(r)file\n",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "tiff": b"II*\0\x08\0\0\0\xff\xff" + bytes(64),
    "icon": b"\0\0\x01\0\x01\0" + bytes(22) + png(6, 6),
    "empty": b"",
}  # fmt: skip


def _in_a_folder(data):
    return lambda folder, bait: _picture(folder, data)


for _name, _data in PICTURES.items():
    case("episodes", None if "behind" in _name else "picture|pixels", name=f"picture: {_name}")(
        _in_a_folder(_data)
    )


@case("episodes", "pixels|picture")
def picture_bomb_in_a_record(folder, bait):
    path = folder / "x-train.tfrecord-00000-of-00001"
    held = sound_episodes.steps(steps__observation__image_0=[png(60000, 60000)] * 5)
    path.write_bytes(sound_episodes.framed(sound_episodes.example(held)))
    return path


@case("episodes", "pixels|picture")
def picture_bomb_in_a_table(folder, bait):
    sound_episodes.lerobot_2(folder)
    for place in folder.rglob("*.parquet"):
        table = pq.read_table(place)
        cells = pa.array([{"bytes": png(60000, 60000), "path": None}] * len(table))
        at = table.schema.get_field_index(SIDE)
        pq.write_table(table.set_column(at, SIDE, cells), place)
    return folder


# -- films ----------------------------------------------------------------------------------------


def _film(folder, change):
    sound_episodes.films(folder)
    data = bytearray((folder / "a.mp4").read_bytes())
    change(data)
    (folder / "a.mp4").write_bytes(data)
    return folder


def _box(data, name):
    at = data.index(name)
    return at + 4


@case("episodes", "claims")
def film_of_claimed_samples(folder, bait):
    """The table of sizes says 2 ** 32 - 1 pictures of one size."""

    def change(data):
        struct.pack_into(">III", data, _box(data, b"stsz"), 0, 1, 2**32 - 1)

    return _film(folder, change)


@case("episodes", None)
def film_of_claimed_times(folder, bait):
    def change(data):
        struct.pack_into(">III", data, _box(data, b"stts"), 0, 1, 2**32 - 1)

    return _film(folder, change)


@case("episodes", "video")
def film_of_claimed_entries(folder, bait):
    def change(data):
        struct.pack_into(">II", data, _box(data, b"stsc"), 0, 2**32 - 1)

    return _film(folder, change)


@case("episodes", None)
def film_of_a_box_without_end(folder, bait):
    def change(data):
        struct.pack_into(">I", data, _box(data, b"moov") - 8, 2**32 - 1)

    return _film(folder, change)


@case("episodes", "pixels|not a readable video")
def film_of_giant_pictures(folder, bait):
    """A container that says 64 x 48, with PNGs of other sizes in it."""
    import av

    sound_episodes.films(folder)
    (folder / "a.mp4").unlink()
    with av.open(str(folder / "a.mp4"), "w", format="avi") as container:
        stream = container.add_stream("png", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        for number in range(8):
            packet = av.Packet(png(30000, 30000, rows=zlib.compress(bytes(2**26), 9)))
            packet.stream, packet.pts, packet.dts = stream, number, number
            packet.time_base = fractions.Fraction(1, 10)
            packet.is_keyframe = True
            container.mux(packet)
    return folder


# -- datasets -------------------------------------------------------------------------------------


def _info(make, **changes):
    def built(folder, bait):
        make(folder)
        write_info(folder, **changes)
        return folder

    return built


INFOS = {
    "fps 0": _info(sound_episodes.lerobot_2, fps=0),
    "fps below 0": _info(sound_episodes.lerobot_3, fps=-10),
    "fps beyond numbers": _info(sound_episodes.lerobot_3, fps=1e308),
    "fps of text": _info(sound_episodes.lerobot_3, fps="__import__('os')"),
    "chunks of 0": _info(sound_episodes.lerobot_2, chunks_size=0),
    "features of nothing": _info(sound_episodes.lerobot_2, features=[]),
    "a vector of 2 ** 40": _info(sound_episodes.lerobot_3, features={
        "observation.state": {"dtype": "float32", "shape": [HUGE], "names": None}}),
    "splits of 2 ** 60": _info(sound_episodes.lerobot_3, splits={"train": f"0:{2**60}"}),
    "a version from elsewhere": _info(sound_episodes.lerobot_3, codebase_version="v9.9"),
}  # fmt: skip
for _name, _make in INFOS.items():
    words = None if "splits" in _name or "fps beyond" in _name else ""
    case("episodes", words, name=f"dataset of {_name}")(_make)


@case("episodes", "without a usable")
def episode_of_a_claimed_length(folder, bait):
    sound_episodes.lerobot_3(folder)
    change_episodes(folder, length=[2**60] * 3, dataset_to_index=[2**60] * 3)
    return folder


@case("episodes", "without a usable")
def episode_at_no_time(folder, bait):
    sound_episodes.lerobot_3(folder)
    (name,) = {"videos/observation.images.top/from_timestamp"}
    change_episodes(folder, **{name: [float("nan"), float("inf"), -1e300]})
    return folder


@case("episodes", "rows|lines|length|steps|bytes")
def table_of_one_value(folder, bait):
    """40 million rows in a few kilobytes, where the list of episodes says 6."""
    sound_episodes.lerobot_3(folder)
    place = sorted((folder / "data").rglob("*.parquet"))[0]
    names = ("episode_index", "frame_index", "index", "task_index", "timestamp")
    few = pq.read_table(place, columns=list(names))
    change_json(
        folder / "meta" / "info.json",
        lambda said: said.update(features={n: said["features"][n] for n in names}),
    )
    part = pa.table(
        {n: pa.array(np.zeros(4_000_000, few[n].type.to_pandas_dtype())) for n in names}
    )
    with pq.ParquetWriter(place, part.schema, compression="zstd") as writer:
        for _ in range(10):
            writer.write_table(part)
    return folder


@case("episodes", "bytes")
def cells_of_one_long_text(folder, bait):
    """A dictionary of one text of 16 MB that a million rows name."""
    sound_episodes.films(folder)
    (folder / "labels.csv").unlink()
    texts = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(200_000, np.int32)), pa.array(["x" * 2**24])
    )
    names = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(200_000, np.int32)), pa.array(["a.mp4"])
    )
    table = pa.table({"file": names, "label": texts})
    pq.write_table(table, folder / "labels.parquet", compression="zstd")
    return folder


def _hdf5(folder, change):
    path = sound_episodes.robomimic(folder)
    with h5py.File(path, "r+") as file:
        del file["data/demo_9/obs/object"]
        change(file["data/demo_9/obs"])
    return path


@case("episodes", "claims")
def hdf5_of_a_claimed_shape(folder, bait):
    return _hdf5(folder, lambda g: g.create_dataset("object", (5, HUGE), "f8", chunks=(1, 1024)))


@case("episodes", "claims")
def hdf5_of_zeros(folder, bait):
    def change(group):
        made = group.create_dataset(
            "object", (5, 2**27), "u1", chunks=(1, 2**27), compression="gzip"
        )
        made.id.write_direct_chunk((0, 0), zlib.compress(bytes(2**27), 9))

    return _hdf5(folder, change)


@case("episodes", "filter|plugin|damaged")
def hdf5_of_an_unknown_filter(folder, bait):
    def change(group):
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((5, 3))
        plist.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, (1,))
        space = h5py.h5s.create_simple((5, 3))
        h5py.h5d.create(group.id, b"object", h5py.h5t.IEEE_F64LE, space, plist)

    return _hdf5(folder, change)


@case("episodes", "known|bytes")
def record_of_a_claimed_length(folder, bait):
    path = sound_episodes.rlds(folder)
    from mirror_analysis.files.tfrecords import masked

    length = struct.pack("<Q", 2**60)
    path.write_bytes(length + struct.pack("<I", masked(length)) + path.read_bytes())
    return path


@case("episodes", "where 0 are left")
def record_of_claimed_fields(folder, bait):
    path = folder / "x-train.tfrecord-00000-of-00001"
    path.write_bytes(sound_episodes.framed(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"))
    return path


@case("episodes", "features")
def record_of_many_small_features(folder, bait):
    path = folder / "x-train.tfrecord-00000-of-00001"
    many = {f"steps/observation/{i}": np.zeros(1, np.float32) for i in range(100_000)}
    path.write_bytes(sound_episodes.framed(sound_episodes.example(many)))
    return path


@case("episodes", "deep|level|features")
def features_of_deep_json(folder, bait):
    path = sound_episodes.rlds(folder)
    text = '{"featuresDict":{"features":{"steps":' * 5000 + "{}" + "}}}" * 5000
    (folder / "features.json").write_text(text)
    return path


@case("episodes", "known|JSON")
def labels_of_deep_json(folder, bait):
    sound_episodes.films_jsonl(folder)
    (folder / "labels.jsonl").write_text('{"file":"a.mp4","x":' + "[" * 100_000 + "\n")
    return folder


@case("episodes", "field larger")
def labels_with_a_line_without_end(folder, bait):
    sound_episodes.films(folder)
    (folder / "labels.csv").write_text("file,task\na.mp4," + '"' + "x" * 2_000_000 + "\n")
    return folder


@case("episodes", "needed seconds")
def labels_of_a_time_beyond_numbers(folder, bait):
    sound_episodes.films(folder)
    (folder / "labels.csv").write_text("file,start,end\na.mp4,1e308,nan\n")
    return folder
