from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from torch import nn

from mirror_analysis.episodes.episode import Episode, Episodes
from mirror_analysis.errors import (
    DegenerateError,
    DeviceError,
    HookError,
    ShapeError,
    StoreError,
    StreamError,
    UnknownNameError,
)
from mirror_analysis.extraction import Progress, extract
from mirror_analysis.features import Features, pair
from mirror_analysis.models.model import (
    EpisodeLike,
    ExecutionModel,
    Input,
    LayerInfo,
    ObservationModel,
)
from mirror_analysis.store import FeatureStore, StackKey

TIMES = (3, 5, 3, 3, 5, 3, 3)


def episode(i: int, time: int = 3, **changes) -> Episode:
    rng = np.random.default_rng(i)
    fields = {
        "id": f"ep{i}",
        "task": ("push", "pull")[i % 2],
        "instruction": "push the cup",
        "success": i % 3 == 0,
        "states": rng.standard_normal((time, 4)).astype(np.float32),
        "actions": rng.standard_normal((time, 2)).astype(np.float32),
        "timestamps": np.arange(time) / 10,
        "steps": np.arange(time) * 10 + i,
        "length": 100,
        "labels": {"split": "test" if i > 3 else "fit"},
    }
    frames = {"A": rng.integers(0, 256, (time, 8, 8, 3), dtype=np.uint8)}
    return Episode.from_frames(frames, **fields | changes)


def episodes(times: Sequence[int] = TIMES) -> Episodes:
    return Episodes([episode(i, time) for i, time in enumerate(times)])


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.drop = nn.Dropout(0.5)
        self.frame = nn.Linear(4, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t = x.shape[:2]
        h = self.drop(self.conv(x.flatten(0, 1)).relu()).mean((2, 3))
        return self.head(self.frame(h).reshape(b, t, -1).mean(1))


class Watcher(ObservationModel):
    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.name, self.needs, self.module = "watcher", (Input("camera:A"),), Network()
        self.batches: list[list[str]] = []

    def layers(self) -> list[LayerInfo]:
        return [
            LayerInfo("conv", 4, "episode*time channel height width"),
            LayerInfo("frame", 5, "episode*time channel"),
            LayerInfo("head", 2, "episode channel"),
        ]

    def taps(self) -> Mapping[str, nn.Module]:
        return {name: getattr(self.module, name) for name in ("conv", "frame", "head")}

    def forward_batch(self, episodes: Sequence[EpisodeLike]) -> torch.Tensor:
        self.batches.append([e.id for e in episodes])
        frames = np.stack([e.stream("camera:A") for e in episodes])
        return self.module(torch.from_numpy(frames).permute(0, 1, 4, 2, 3).float() / 255)

    def untrained(self, seed: int) -> Watcher:
        return Watcher(seed)


class Actor(ExecutionModel):
    """Reads every stream but a camera."""

    def __init__(self) -> None:
        self.name, self.module = "actor", nn.Linear(6, 3)
        self.needs = (Input("states"), Input("actions"))

    def layers(self) -> list[LayerInfo]:
        return [LayerInfo("out", 3, "episode time channel")]

    def taps(self) -> Mapping[str, nn.Module]:
        return {"out": self.module}

    def forward_batch(self, episodes: Sequence[EpisodeLike]) -> torch.Tensor:
        both = [np.concatenate([e.stream("states"), e.stream("actions")], axis=1) for e in episodes]
        return self.module(torch.from_numpy(np.stack(both)))

    def act(self, now):
        return now["states"][:, :2]

    def untrained(self, seed: int) -> Actor:
        return Actor()


def by_hand(model: Watcher, one: Episode) -> dict[str, np.ndarray]:
    x = torch.from_numpy(one.frames("A")).permute(0, 3, 1, 2).float() / 255
    network = model.module
    with torch.no_grad():
        conv = network.conv(x)
        frame = network.frame(conv.relu().mean((2, 3)))
        head = network.head(frame.mean(0))
    return {"conv": conv.mean((0, 2, 3)), "frame": frame.mean(0), "head": head}


def equal(left: Mapping[str, Features], right: Mapping[str, Features]) -> None:
    assert list(left) == list(right)
    for name in left:
        np.testing.assert_array_equal(left[name].values, right[name].values)
        np.testing.assert_array_equal(left[name].index.episode, right[name].index.episode)
        assert left[name].key == right[name].key


# -- values and rows --------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [None, 1, 2])
def test_every_row_is_what_one_episode_alone_gives(batch_size) -> None:
    model, data = Watcher(), episodes()
    features = extract(model, data, batch_size=batch_size)
    assert list(features) == ["conv", "frame", "head"]
    for i, one in enumerate(data):
        for name, expected in by_hand(model, one).items():
            np.testing.assert_allclose(features[name].values[i], expected, rtol=1e-4, atol=1e-6)


def test_rows_carry_the_last_step_and_every_label() -> None:
    data = episodes()
    features = extract(Watcher(), data)
    index = features["head"].index
    assert index.episode.tolist() == [e.id for e in data]
    assert index.step.tolist() == [e.steps[-1] for e in data]
    assert set(index.labels) == {"task", "instruction", "success", "length", "split"}
    assert index.label("split").tolist() == ["fit"] * 4 + ["test"] * 3
    assert features["conv"].index is index


def test_the_key_names_the_weights_the_pooling_and_the_episodes() -> None:
    model, data = Watcher(), episodes()
    key = extract(model, data, pooling="last/mean")["conv"].key
    assert (key.checkpoint, key.layer, key.pooling) == ("watcher", "conv", "last")
    assert key.weights == model.weights_sha256
    assert key.episodes == data.fingerprint


def test_last_is_the_last_frame() -> None:
    model, data = Watcher(), episodes()
    features = extract(model, data, pooling="last")
    x = torch.from_numpy(data[1].frames("A")[-1:]).permute(0, 3, 1, 2).float() / 255
    expected = model.module.conv(x).detach().mean((0, 2, 3))
    np.testing.assert_allclose(features["conv"].values[1], expected, rtol=1e-4, atol=1e-6)


def test_chosen_layers_come_in_forward_order_and_equal_those_of_all() -> None:
    every = extract(Watcher(), episodes())
    some = extract(Watcher(), episodes(), layers=["head", "conv"])
    equal(some, {name: every[name] for name in ("conv", "head")})


def test_only_episodes_of_equal_length_share_a_batch() -> None:
    model = Watcher()
    extract(model, episodes(), batch_size=3)
    assert model.batches == [["ep0", "ep2", "ep3"], ["ep5", "ep6"], ["ep1", "ep4"]]


def test_states_and_actions_reach_a_model_that_reads_them() -> None:
    model, data = Actor(), episodes()
    values = extract(model, data)["out"].values
    both = np.concatenate([data[2].states, data[2].actions], axis=1).mean(0)
    expected = model.module(torch.from_numpy(both)).detach()
    np.testing.assert_allclose(values[2], expected, rtol=1e-4, atol=1e-6)


def test_the_next_batch_is_decoded_in_another_thread() -> None:
    threads = []

    def watched(one: Episode) -> Episode:
        fields = {name: getattr(one, name) for name in Episode.__dataclass_fields__}

        def loader(camera: str) -> np.ndarray:
            threads.append(threading.current_thread())
            return one.loader(camera)

        return Episode(**fields | {"loader": loader})

    extract(Watcher(), Episodes([watched(e) for e in episodes()]), batch_size=2)
    assert len(threads) == len(TIMES)
    assert threading.main_thread() not in threads


def test_the_model_is_left_as_it_was() -> None:
    model = Watcher()
    model.module.train()
    model.module.conv.eval()
    before = model.weights_sha256
    features = extract(model, episodes())
    equal(features, extract(model, episodes()))  # dropout was off
    assert model.module.training
    assert model.module.drop.training
    assert not model.module.conv.training
    assert model.weights_sha256 == before
    assert not any(m._forward_hooks for m in model.module.modules())
    assert all(p.requires_grad and not p.is_inference() for p in model.module.parameters())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_another_device_gives_the_same_features_and_is_left_again() -> None:
    model = Watcher()
    features = extract(model, episodes(), device="cuda")
    assert model.device.type == "cpu"
    for name, plain in extract(model, episodes()).items():
        np.testing.assert_allclose(features[name].values, plain.values, rtol=1e-2, atol=1e-3)


# -- faults -----------------------------------------------------------------------------------


def test_a_missing_input_is_named_with_what_is_needed_and_there() -> None:
    model = Watcher()
    model.needs = (Input("camera:B"), Input("states"))
    words = (
        r"watcher does not fit the episodes: no camera:B\. It needs camera:B, states; the episodes"
        r" have camera:A, states \[4\], actions \[2\], instruction; map them:"
        r" --map 'camera:B=camera:A'$"
    )
    with pytest.raises(StreamError, match=words):
        extract(model, episodes())


def test_streams_that_one_episode_lacks_are_missing() -> None:
    bare = episode(9, states=np.zeros((3, 0), np.float32), instruction="")
    with pytest.raises(
        StreamError, match=r"no states\. It needs states, actions; the episodes"
    ) as told:
        extract(Actor(), Episodes([*episodes(), bare]))
    assert "no stream of the episodes would fit" in str(told.value)


def test_a_camera_that_is_read_but_not_declared_is_refused() -> None:
    model = Watcher()
    model.needs = (Input("states"),)
    with pytest.raises(StreamError, match=r"'camera:A' but declares only \['states'\]; add it"):
        extract(model, episodes())


def test_no_episodes_unknown_layers_and_empty_batches_are_refused() -> None:
    with pytest.raises(DegenerateError, match="no episodes to run watcher over"):
        extract(Watcher(), Episodes([]))
    with pytest.raises(UnknownNameError, match="unknown layer of watcher 'con'; did you mean 'co"):
        extract(Watcher(), episodes(), layers=["con"])
    with pytest.raises(DegenerateError, match="batch_size is 0; needed at least 1"):
        extract(Watcher(), episodes(), batch_size=0)


@pytest.mark.parametrize("device", ["nowhere", "cuda:99", "xpu"])
def test_a_device_that_is_not_there_is_refused_not_replaced(device) -> None:
    with pytest.raises(DeviceError, match=f"device '{device}' was asked for but is not there"):
        extract(Watcher(), episodes(), device=device)


def test_nan_is_refused_by_layer_and_episode_and_not_stored(tmp_path) -> None:
    model = Watcher()
    with torch.no_grad():
        model.module.frame.bias[0] = float("nan")
    words = "layer 'frame' of watcher hold NaN or infinity in 5 of 5 rows .first in episode ep0"
    with pytest.raises(DegenerateError, match=words):
        extract(model, episodes(), store=tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))
    assert model.module.training


def test_a_layer_that_does_not_run_is_named() -> None:
    model = Watcher()
    model.taps = lambda: {"conv": nn.Identity(), "frame": model.module.frame,
                          "head": model.module.head}  # fmt: skip
    with pytest.raises(HookError, match=r"layer 'conv' did not run .*\(ran: frame, head\)"):
        extract(model, episodes())


# -- with a store -----------------------------------------------------------------------------


def test_what_is_stored_is_not_computed_again(tmp_path) -> None:
    plain = extract(Watcher(), episodes(), batch_size=2)
    equal(extract(Watcher(), episodes(), batch_size=2, store=tmp_path), plain)
    again = Watcher()
    equal(extract(again, episodes(), batch_size=2, store=FeatureStore(tmp_path)), plain)
    assert again.batches == []


def test_only_missing_layers_are_added(tmp_path) -> None:
    extract(Watcher(), episodes(), layers=["frame"], store=tmp_path)
    equal(extract(Watcher(), episodes(), store=tmp_path), extract(Watcher(), episodes()))
    files = list(tmp_path.rglob("manifest.jsonl"))
    assert len(files) == 1
    lines = files[0].read_text().splitlines()
    assert sum('"layers":["frame"]' in line for line in lines) == 2
    assert sum('"layers":["conv","head"]' in line for line in lines) == 2


@pytest.mark.parametrize("change", ["weights", "name", "pooling", "inputs", "episodes"])
def test_another_model_pooling_or_data_never_gets_stored_rows(tmp_path, change) -> None:
    extract(Watcher(), episodes(), store=tmp_path)
    model, data, pooling = Watcher(), episodes(), "mean"
    if change == "weights":
        with torch.no_grad():
            model.module.head.bias += 1.0
    elif change == "name":
        model.name = "other"
    elif change == "inputs":
        model.needs = (Input("camera:A"), Input("states"))
    elif change == "pooling":
        pooling = "last"
    else:
        data = Episodes([episode(i, t, success=True) for i, t in enumerate(TIMES)])
    features = extract(model, data, pooling=pooling, store=tmp_path)
    assert sum(map(len, model.batches)) == len(TIMES)
    fresh = extract(model, data, pooling=pooling)
    equal(features, fresh)


def test_a_damaged_shard_is_computed_anew_and_told(tmp_path) -> None:
    plain = extract(Watcher(), episodes(), batch_size=2, store=tmp_path)
    shard = sorted(tmp_path.rglob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    model, told = Watcher(), []
    equal(extract(model, episodes(), batch_size=2, store=tmp_path, progress=told.append), plain)
    assert len(model.batches) == 1
    size = len(model.batches[0])
    assert told == [
        Progress(7 - size, 7, 7 - size, (shard.name,)), Progress(7, 7, 7 - size, (shard.name,)),
    ]  # fmt: skip
    assert shard.with_name(f"{shard.name}.damaged").exists()
    again = Watcher()
    equal(extract(again, episodes(), batch_size=2, store=tmp_path), plain)
    assert again.batches == []


def test_a_store_that_is_something_else_is_refused(tmp_path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match=r"is not a feature store but holds thesis\.tex"):
        extract(Watcher(), episodes(), store=str(tmp_path))


def test_progress_is_told_after_every_batch() -> None:
    told: list[Progress] = []
    extract(Watcher(), episodes(), batch_size=3, progress=told.append)
    assert [(p.done, p.total, p.stored) for p in told] == [(n, 7, 0) for n in (0, 3, 5, 7)]


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path) -> None:
    def stop(progress: Progress) -> None:
        if progress.done >= 3:
            raise KeyboardInterrupt

    first = Watcher()
    with pytest.raises(KeyboardInterrupt):
        extract(first, episodes(), batch_size=2, store=tmp_path, progress=stop)
    assert not any(m._forward_hooks for m in first.module.modules())
    second = Watcher()
    resumed = extract(second, episodes(), batch_size=2, store=tmp_path)
    assert first.batches + second.batches == [
        ["ep0", "ep2"], ["ep3", "ep5"], ["ep6"], ["ep1", "ep4"],
    ]  # fmt: skip
    equal(resumed, extract(Watcher(), episodes(), batch_size=2))


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[2])
from test_extraction import Watcher, episodes, extract
def die(progress):
    if progress.done >= 4:
        os.kill(os.getpid(), 9)
extract(Watcher(), episodes(), batch_size=2, store=sys.argv[1], progress=die)
"""


def test_a_run_killed_outright_resumes_to_identical_features(tmp_path) -> None:
    folder = __file__.rsplit("/", 1)[0]
    command = [sys.executable, "-c", KILLED, str(tmp_path), folder]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    model = Watcher()
    resumed = extract(model, episodes(), batch_size=2, store=tmp_path)
    assert model.batches == [["ep6"], ["ep1", "ep4"]]
    equal(resumed, extract(Watcher(), episodes(), batch_size=2))


# -- streams, parts, precision ----------------------------------------------------------------


def test_streams_are_mapped_and_stand_in_the_key() -> None:
    model = Watcher()
    model.needs = (Input("camera:B"),)
    model.forward_batch = lambda batch: model.module(
        torch.from_numpy(np.stack([e.stream("camera:B") for e in batch]))
        .permute(0, 1, 4, 2, 3)
        .float()
        / 255
    )
    found = extract(model, episodes(), streams={"camera:B": "camera:A"})
    for name, plain in extract(Watcher(), episodes()).items():
        np.testing.assert_array_equal(found[name].values, plain.values)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_a_long_episode_is_run_in_parts_where_frames_stand_alone(pooling) -> None:
    def framewise() -> Watcher:
        model = Watcher()
        model.layers = lambda: Watcher.layers(model)[:2]
        return model

    whole = extract(framewise(), episodes(), pooling=pooling)
    model = framewise()
    model.framewise, model.frames_at_once, seen = True, 2, []
    plain = model.forward_batch
    model.forward_batch = lambda batch: (seen.append(len(batch[0].steps)), plain(batch))[1]
    parts = extract(model, episodes(), pooling=pooling)
    assert max(seen) <= 2 and len(seen) == (16 if pooling == "mean" else 7)
    for name, features in whole.items():
        np.testing.assert_allclose(parts[name].values, features.values, rtol=1e-5, atol=1e-6)
    # Without that leave an episode is never cut.
    model = framewise()
    model.frames_at_once = 2
    extract(model, episodes(), pooling=pooling)
    assert all(len(batch) == 1 for batch in model.batches)


@pytest.mark.parametrize("change", ["dtype", "batch_size", "settings", "streams"])
def test_precision_batch_and_settings_are_part_of_the_key(tmp_path, change) -> None:
    extract(Watcher(), episodes(), store=tmp_path)
    model, changes = Watcher(), {}
    if change == "settings":
        model.settings = {"calls of head": "mean"}
    elif change == "streams":
        model.needs = (Input("camera:A"), Input("states"))
    else:
        changes = {"dtype": "bfloat16"} if change == "dtype" else {"batch_size": 3}
    found = extract(model, episodes(), store=tmp_path, **changes)
    assert sum(map(len, model.batches)) == len(TIMES)
    key = found["head"].key
    assert key.dtype == changes.get("dtype", "float32")
    assert key.batch_size == changes.get("batch_size", 0)
    assert key.settings == dict(model.settings)


def test_lower_precision_is_used_and_told() -> None:
    low = extract(Watcher(), episodes(), dtype="bfloat16")["head"].values
    full = extract(Watcher(), episodes())["head"].values
    assert low.dtype == np.float32 and not np.array_equal(low, full)
    np.testing.assert_allclose(low, full, rtol=0.05, atol=0.05)
    with pytest.raises(UnknownNameError, match="unknown dtype 'float8'"):
        extract(Watcher(), episodes(), dtype="float8")


# -- steps ------------------------------------------------------------------------------------


def frame_by_frame(model: Watcher, one: Episode) -> dict[str, np.ndarray]:
    x = torch.from_numpy(one.frames("A")).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        conv = model.module.conv(x)
        return {
            "conv": conv.mean((2, 3)).numpy(),
            "frame": model.module.frame(conv.relu().mean((2, 3))).numpy(),
        }


@pytest.mark.parametrize("batch_size", [None, 1, 2])
def test_steps_are_one_row_per_frame_in_the_order_of_the_episodes(batch_size) -> None:
    model, data = Watcher(), episodes()
    features = extract(model, data, pooling="steps", batch_size=batch_size)
    assert list(features) == ["conv", "frame"]  # the head has one vector per episode
    index = features["conv"].index
    assert index.episode.tolist() == [e.id for e in data for _ in e.steps]
    assert index.step.tolist() == [step for e in data for step in e.steps]
    assert index.label("task").tolist() == [e.task for e in data for _ in e.steps]
    assert features["conv"].key.pooling == "steps"
    for name in features:
        expected = np.concatenate([frame_by_frame(model, one)[name] for one in data])
        np.testing.assert_allclose(features[name].values, expected, rtol=1e-4, atol=1e-6)


def test_the_mean_of_the_steps_is_the_mean() -> None:
    data = episodes()
    steps, means = extract(Watcher(), data, pooling="steps"), extract(Watcher(), data)
    rows = steps["frame"].index.episode
    for i, one in enumerate(data):
        part = steps["frame"].values[rows == one.id].mean(0)
        np.testing.assert_allclose(part, means["frame"].values[i], rtol=1e-4, atol=1e-6)


def test_layers_of_whole_episodes_are_left_out_of_steps_unless_they_are_named() -> None:
    words = r"layer 'head' of watcher \(episode channel\) has no vector for every frame.*leave it"
    with pytest.raises(ShapeError, match=words):
        extract(Watcher(), episodes(), pooling="steps", layers=["conv", "head"])
    named = extract(Watcher(), episodes(), pooling="steps", layers=["frame"])
    equal(named, {"frame": extract(Watcher(), episodes(), pooling="steps")["frame"]})
    model = Watcher()
    model.layers = lambda: Watcher.layers(model)[2:]
    with pytest.raises(ShapeError, match="layer 'head' of watcher"):
        extract(model, episodes(), pooling="steps")


def test_steps_of_a_long_episode_are_run_in_parts_where_frames_stand_alone() -> None:
    whole = extract(Watcher(), episodes(), pooling="steps")
    model, seen = Watcher(), []
    model.framewise, model.frames_at_once = True, 2
    plain = model.forward_batch
    model.forward_batch = lambda batch: (seen.append(len(batch[0].steps)), plain(batch))[1]
    parts = extract(model, episodes(), pooling="steps")
    assert max(seen) <= 2 and sum(seen) == sum(TIMES)
    for name, features in whole.items():
        np.testing.assert_allclose(parts[name].values, features.values, rtol=1e-5, atol=1e-6)


def test_steps_resume_from_a_store_and_do_not_meet_other_poolings(tmp_path) -> None:
    def stop(progress: Progress) -> None:
        if progress.done >= 3:
            raise KeyboardInterrupt

    extract(Watcher(), episodes(), batch_size=2, store=tmp_path)
    options = {"pooling": "steps", "batch_size": 2, "store": tmp_path}
    first, second = Watcher(), Watcher()
    with pytest.raises(KeyboardInterrupt):
        extract(first, episodes(), progress=stop, **options)
    resumed = extract(second, episodes(), **options)
    assert first.batches + second.batches == [
        ["ep0", "ep2"], ["ep3", "ep5"], ["ep6"], ["ep1", "ep4"],
    ]  # fmt: skip
    equal(resumed, extract(Watcher(), episodes(), pooling="steps", batch_size=2))
    equal(extract(Watcher(), episodes(), batch_size=2, store=tmp_path),
          extract(Watcher(), episodes(), batch_size=2))  # fmt: skip


def test_an_episode_of_which_one_frame_is_lost_is_run_again(tmp_path) -> None:
    options = {"pooling": "steps", "batch_size": 1}
    plain = extract(Watcher(), episodes(), **options)
    key = plain["conv"].key
    rows = [(str(e), int(s)) for e, s in zip(plain["conv"].index.episode,
                                             plain["conv"].index.step, strict=True)]  # fmt: skip
    store = FeatureStore(tmp_path)
    stack = StackKey(key.checkpoint, key.weights, "steps", key.episodes, ("camera:A",), 1)
    lost = 4
    kept = [i for i in range(len(rows)) if i != lost]
    store.write(stack, [rows[i] for i in kept], {n: f.values[kept] for n, f in plain.items()})
    model = Watcher()
    equal(extract(model, episodes(), store=store, **options), plain)
    assert model.batches == [[rows[lost][0]]]


def test_steps_of_two_models_are_paired_frame_by_frame() -> None:
    data, actor = episodes(), Actor()
    x = extract(Watcher(), data, pooling="steps")
    y = extract(actor, data.take([6, 5, 4, 3, 2, 1, 0]), pooling="steps")
    paired = pair(x, y)
    given = np.concatenate([np.concatenate([e.states, e.actions], axis=1) for e in data])
    expected = actor.module(torch.from_numpy(given)).detach().numpy()
    np.testing.assert_allclose(paired.y["out"], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(paired.x["conv"], x["conv"].values)
    assert (paired.index.episode[4], paired.index.step[4]) == ("ep1", 11)
