import io
import json
import pickle
import struct

import numpy as np
import pytest
from PIL import Image

from mirror_analysis.episodes import rlds
from mirror_analysis.errors import DefinitionError, FormatError, MissingFileError

STEPS = 5


def crc32c(data):
    total = 0xFFFFFFFF
    for byte in data:
        total ^= byte
        for _ in range(8):
            total = total >> 1 ^ (0x82F63B78 if total & 1 else 0)
    return total ^ 0xFFFFFFFF


def masked(data):
    total = crc32c(data)
    return struct.pack("<I", ((total >> 15 | total << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF)


def varint(number):
    number &= 2**64 - 1
    coded = b""
    while number > 127:
        coded += bytes([number & 127 | 128])
        number >>= 7
    return coded + bytes([number])


def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def feature(value):
    if isinstance(value, list):
        return field(1, b"".join(field(1, each) for each in value))
    value = np.asarray(value).reshape(-1)
    if value.dtype.kind == "f":
        return field(2, field(1, value.astype("<f4").tobytes()))
    return field(3, field(1, b"".join(varint(int(each)) for each in value)))


def record(values):
    entries = (
        field(1, field(1, name.encode()) + field(2, feature(v))) for name, v in values.items()
    )
    return field(1, b"".join(entries))


def write_shard(path, episodes):
    framed = []
    for values in episodes:
        data = record(values)
        length = struct.pack("<Q", len(data))
        framed.append(length + masked(length) + data + masked(data))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(framed))
    return path


def coded(number, form="PNG", size=4):
    stream = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), number, np.uint8)).save(stream, form)
    return stream.getvalue()


def episode(number=0, steps=STEPS, **changes):
    flags = np.zeros(steps, np.int64)
    ends = flags.copy()
    ends[-1] = 1
    values = {
        "steps/action": np.arange(steps * 2, dtype=np.float32) + number,
        "steps/observation/state": np.arange(steps * 3, dtype=np.float32) * number,
        "steps/observation/image_10": [coded(100 + i) for i in range(steps)],
        "steps/observation/image_2": [coded(i) for i in range(steps)],
        "steps/observation/natural_language_embedding": np.zeros(steps * 512, np.float32),
        "steps/language_instruction": [f"lift block {number}".encode()] * steps,
        "steps/is_first": 1 - np.minimum(np.arange(steps), 1),
        "steps/is_last": ends,
        "steps/is_terminal": flags,
        "steps/reward": ends.astype(np.float32),
        "episode_metadata/episode_id": np.array([number + 7]),
        "episode_metadata/file_path": [b"raw/\xff"],
    }
    values |= {name.replace("__", "/"): value for name, value in changes.items()}
    return {name: value for name, value in values.items() if value is not None}


def tensor(*shape, dtype="float32", encoding="none"):
    dimensions = {"dimensions": [str(size) for size in shape]} if shape else {}
    return {"tensor": {"shape": dimensions, "dtype": dtype, "encoding": encoding}}


def image(*shape, dtype="uint8"):
    return {"image": {"shape": {"dimensions": [str(s) for s in shape]}, "dtype": dtype}}


def described(**changes):
    observation = {
        "state": tensor(3),
        "image_2": image(4, 4, 3),
        "image_10": image(4, 4, 3),
        "natural_language_embedding": tensor(512),
    }
    step = {
        "action": tensor(2),
        "language_instruction": {"text": {}},
        "is_first": tensor(dtype="bool"),
        "is_last": tensor(dtype="bool"),
        "is_terminal": tensor(dtype="bool"),
        "reward": tensor(),
    }
    step |= {name: value for name, value in changes.items() if "__" not in name}
    observation |= {
        name.removeprefix("observation__"): value for name, value in changes.items() if "__" in name
    }
    step["observation"] = {"featuresDict": {"features": observation}}
    steps = {"sequence": {"feature": {"featuresDict": {"features": step}}, "length": "-1"}}
    metadata = {"episode_id": tensor(dtype="int32"), "file_path": {"text": {}}}
    return {
        "featuresDict": {
            "features": {
                "steps": steps,
                "episode_metadata": {"featuresDict": {"features": metadata}},
            }
        }
    }


@pytest.fixture
def shard(tmp_path):
    folder = tmp_path / "blocks" / "1.0.0"
    path = write_shard(folder / "blocks-train.tfrecord-00000-of-00002", [episode(0), episode(1)])
    write_shard(folder / "blocks-train.tfrecord-00001-of-00002", [episode(2)])
    (folder / "features.json").write_text(json.dumps(described()))
    return path


def test_a_data_set_is_read_shard_after_shard(shard):
    folder = shard.parent
    write_shard(folder.parent / "0.9.0" / "blocks-train.tfrecord-00000-of-00001", [episode(5)])
    for path in (folder, folder.parent, shard):
        assert rlds.recognise(path)
    assert not rlds.recognise(folder / "features.json")
    assert not rlds.recognise(folder.parents[1])
    assert not rlds.recognise(folder / "nothing")
    episodes = rlds.read(folder.parent)
    assert [each.id for each in episodes] == [
        "blocks-train-00000/0",
        "blocks-train-00000/1",
        "blocks-train-00001/0",
    ]
    assert episodes.fingerprint == rlds.read(folder).fingerprint
    assert len(rlds.read(folder, limit=1)) == 1
    assert len(rlds.read(folder, limit=0)) == 0
    second = rlds.read(shard, rate=5)[1]
    assert second.task == second.instruction == "lift block 1"
    assert dict(second.labels) == {
        "shard": shard.name,
        "split": "train",
        "success_known": True,
        "episode_id": 8,
        "file_path": "raw/\N{REPLACEMENT CHARACTER}",
    }
    assert second.success
    assert second.cameras == ("image_2", "image_10")
    np.testing.assert_array_equal(second.actions, np.arange(10.0).reshape(5, 2) + 1)
    np.testing.assert_array_equal(second.states, np.arange(15.0).reshape(5, 3))
    np.testing.assert_allclose(second.timestamps, np.arange(5) / 5)
    assert sorted(second.extras) == ["is_first", "is_last", "is_terminal", "reward", "state"]
    assert second.extras["is_first"].tolist() == [True, False, False, False, False]


def test_pictures_are_read_from_the_place_of_their_episode(shard):
    third = rlds.read(shard.parent, frames=3)[2]
    assert third.steps.tolist() == [0, 2, 4]
    assert third.length == STEPS
    assert third.frames("image_10")[:, 0, 0, 0].tolist() == [100, 102, 104]
    assert rlds.read(shard)[1].frames("image_2")[:, 3, 3, 2].tolist() == [0, 1, 2, 3, 4]
    again = pickle.loads(pickle.dumps(third.loader))
    np.testing.assert_array_equal(again("image_2"), third.frames("image_2"))


def test_without_a_description_shapes_come_from_the_number_of_steps(shard):
    with_it = rlds.read(shard)[1]
    (shard.parent / "features.json").unlink()
    without = rlds.read(shard)[1]
    assert without.cameras == with_it.cameras
    np.testing.assert_array_equal(without.states, with_it.states)
    np.testing.assert_array_equal(without.actions, with_it.actions)
    np.testing.assert_array_equal(without.frames("image_2"), with_it.frames("image_2"))
    assert sorted(without.extras) == sorted(with_it.extras)
    assert without.digest == with_it.digest


def test_what_the_digest_sees(shard):
    before = rlds.read(shard)[0].digest
    assert rlds.read(shard, frames=2)[0].digest != before
    assert rlds.read(shard, rate=2)[0].digest != before
    pictures = [coded(i + (i == 3)) for i in range(STEPS)]
    write_shard(shard, [episode(0, steps__observation__image_2=pictures)])
    assert rlds.read(shard)[0].digest != before


def test_states_and_actions_in_parts(tmp_path):
    values = episode(
        1,
        steps__action=None,
        steps__action__world_vector=np.arange(15, dtype=np.float32),
        steps__action__gripper=np.arange(5),
        steps__observation__state=None,
        steps__observation__pose=np.arange(10, dtype=np.float32),
        steps__observation__height=np.arange(5, dtype=np.float32) + 50,
        steps__language_instruction=None,
        steps__observation__natural_language_instruction=[b" push it "] * STEPS,
        steps__note=[b"words"] * STEPS,
        steps__ragged=np.arange(7),
    )
    read = rlds.read(write_shard(tmp_path / "a", [values]))[0]
    assert read.id == "a/0"
    assert read.instruction == "push it"
    assert read.actions[1].tolist() == [1, 3, 4, 5]
    assert read.states[1].tolist() == [51, 2, 3]
    assert {"action/gripper", "action/world_vector", "pose", "height"} < read.extras.keys()
    assert "ragged" not in read.extras
    named = episode(
        1,
        steps__observation__state=None,
        steps__observation__proprio=np.arange(5, dtype=np.float32),
    )
    named |= {"steps/state": np.arange(5) + 9, "steps/observation/action": np.arange(5.0)}
    read = rlds.read(write_shard(tmp_path / "a", [named]))[0]
    assert read.states.tolist() == [[0], [1], [2], [3], [4]]
    assert read.extras["state"].tolist() == [9, 10, 11, 12, 13]


def test_two_keys_that_would_have_one_name(tmp_path):
    values = episode(1) | {"steps/state": np.arange(STEPS)}
    extras = rlds.read(write_shard(tmp_path / "a", [values]))[0].extras
    assert extras["state"].shape == (STEPS, 3)
    assert extras["steps/state"].shape == (STEPS,)


@pytest.mark.parametrize(
    ("changes", "success", "known"),
    [
        ({}, True, True),
        ({"steps__reward": -np.ones(STEPS, np.float32)}, False, True),
        ({"steps__reward": np.zeros(STEPS, np.float32)}, False, True),
        ({"steps__reward": None, "steps__is_terminal": np.ones(STEPS, np.int64)}, True, True),
        ({"steps__reward": None, "steps__is_last": np.zeros(STEPS, np.int64)}, False, False),
        ({"steps__reward": None, "steps__is_last": None, "steps__is_terminal": None}, False, False),
        ({"episode_metadata__success": np.array([0])}, False, True),
        ({"steps__reward": None, "episode_metadata__success": np.array([1])}, True, True),
    ],
)
def test_success_is_what_the_record_says(tmp_path, changes, success, known):
    read = rlds.read(write_shard(tmp_path / "a", [episode(0, **changes)]))[0]
    assert (read.success, read.labels["success_known"]) == (success, known)


def test_no_words_leave_the_data_set_as_the_task(shard):
    write_shard(shard, [episode(0, steps__language_instruction=[b""] * STEPS)])
    first = rlds.read(shard)[0]
    assert (first.task, first.instruction) == ("blocks", "")


def test_pictures_of_distance_and_coded_tensors_are_left_out(shard):
    changes = described(
        observation__depth=image(4, 4, 1, dtype="uint16"),
        observation__packed=tensor(3, encoding="zlib"),
        observation__words=tensor(dtype="string"),
        nested={"sequence": {"feature": tensor(2), "length": "-1"}},
        open=tensor(-1),
    )
    (shard.parent / "features.json").write_text(json.dumps(changes))
    pictures = [coded(i) for i in range(STEPS)]
    values = episode(
        0,
        steps__observation__depth=pictures,
        steps__observation__packed=pictures,
        steps__observation__words=[b"a"] * STEPS,
        steps__nested=np.arange(7),
        steps__open=np.arange(3),
    )
    first = rlds.read(write_shard(shard, [values]))[0]
    assert first.cameras == ("image_2", "image_10")
    assert sorted(first.extras) == ["is_first", "is_last", "is_terminal", "reward", "state"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"steps__action": np.arange(9.0)},
            r"'steps/action' in record 0 of .* has 9 numbers for 5",
        ),
        ({"steps__action": np.arange(15.0)}, r"has 3 numbers a step; features.json says \[2\]"),
        ({"steps__observation__image_2": [coded(0)]}, "has 1 of 5 pictures"),
    ],
)
def test_records_that_do_not_fit_their_description(shard, changes, message):
    write_shard(shard, [episode(0, **changes)])
    with pytest.raises(FormatError, match=message):
        rlds.read(shard)


@pytest.mark.parametrize("values", [{"image": [coded(0)]}, {"steps/is_first": np.array([])}, {}])
def test_records_without_steps(tmp_path, values):
    path = write_shard(tmp_path / "a", [values])
    with pytest.raises(FormatError, match=r"record 0 of .*/a has no steps; needed an RLDS episode"):
        rlds.read(path)


@pytest.mark.parametrize(
    "text",
    ['{"featuresDict": 3}', '{"featuresDict": {"features": {"steps": 3}}}', '{"image": {}}'],
)
def test_descriptions_of_something_else(shard, text):
    (shard.parent / "features.json").write_text(text)
    with pytest.raises(FormatError, match=r"features.json does not describe features"):
        rlds.read(shard)


def test_descriptions_that_are_too_deep(shard):
    nested = tensor(1)
    for _ in range(40):
        nested = {"featuresDict": {"features": {"a": nested}}}
    (shard.parent / "features.json").write_text(json.dumps(nested))
    with pytest.raises(FormatError, match="more than 32 levels"):
        rlds.read(shard)


def test_a_cut_and_a_changed_shard(shard):
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-20])
    with pytest.raises(FormatError, match="claims"):
        rlds.read(shard)
    changed = bytearray(whole)
    changed[len(whole) // 4] ^= 1
    shard.write_bytes(changed)
    with pytest.raises(FormatError, match="does not match its checksum"):
        rlds.read(shard)


def test_a_shard_that_changes_or_goes_while_in_use(shard):
    first = rlds.read(shard)[0]
    write_shard(shard, [episode(3)])
    with pytest.raises(FormatError, match="changed while it was in use; read the episodes again"):
        first.frames("image_2")
    shard.unlink()
    with pytest.raises(MissingFileError, match="cannot be read any more"):
        first.frames("image_2")


def test_pictures_that_are_none_and_pictures_of_two_sizes(shard):
    broken = [coded(i) for i in range(STEPS - 1)]
    write_shard(
        shard,
        [
            episode(0, steps__observation__image_2=[*broken, b"\x89PNG\r\n\x1a\nnothing"]),
            episode(0, steps__observation__image_2=[*broken, coded(1, size=5)]),
        ],
    )
    first, second = rlds.read(shard)
    with pytest.raises(FormatError, match="cannot be read as a picture"):
        first.frames("image_2")
    with pytest.raises(
        FormatError, match=r"picture 4 of 'image_2' in a record of .* has shape \[5, 5, 3\]"
    ):
        second.frames("image_2")


def test_what_is_not_there_and_rates_that_are_none(shard, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(MissingFileError, match="no TFRecord shard at"):
        rlds.read(empty)
    with pytest.raises(DefinitionError, match="rate is 0 steps per second; needed more than 0"):
        rlds.read(shard, rate=0)


@pytest.mark.real_weights
def test_the_bridge_excerpt(shared):
    path = shared / "episodes" / "bridge_dataset-train.tfrecord-00000-of-00001"
    assert rlds.recognise(path)
    episodes = rlds.read(path)
    assert len(episodes) == 25
    assert {each.length for each in episodes} == {10}
    assert {each.instruction for each in episodes} == {
        "put cup from counter or drying rack into sink",
        "flip pot upright which is in sink",
        "turn lever vertical to front",
        "put carrot on plate",
    }
    assert {each.states.shape for each in episodes} == {(10, 7)}
    assert {each.actions.shape for each in episodes} == {(10, 7)}
    assert episodes.cameras == ("image_0", "image_1", "image_2", "image_3")
    assert not any(each.labels["success_known"] for each in episodes)
    assert [each.labels["episode_id"] for each in episodes[:4]] == [5, 0, 1, 3]
    frames = episodes[0].frames("image_0")
    assert frames.shape == (10, 64, 64, 3)
    # A scene with its own colours: pictures differ from each other, and their channels too.
    assert frames.std() > 20
    assert np.abs(np.diff(frames.astype(float), axis=0)).mean() > 0.5
    assert np.ptp(frames.mean(axis=(0, 1, 2))) > 3
