import copy

import numpy as np
import pytest
import torch

from mirror_analysis.errors import (
    DefinitionError,
    FormatError,
    HookError,
    ShapeError,
    UnknownNameError,
)
from mirror_analysis.extraction import extract
from mirror_analysis.models import load_model
from mirror_analysis.models.recording.hooks import record
from mirror_analysis.models.recording.pooling import Pooling
from mirror_analysis.testing import check_model, made_up

SEES = {"observation.image": {"type": "VISUAL", "shape": [3, 32, 32]}}


@pytest.fixture
def feeling(kit, tmp_path):
    return kit.write_folder(tmp_path / "feeling", "act", copy.deepcopy(kit.FEELING))


@pytest.fixture
def denoising(kit, tmp_path):
    return kit.write_folder(tmp_path / "denoising", "diffusion", copy.deepcopy(kit.DENOISING))


@pytest.fixture(scope="module")
def seeing(kit, tmp_path_factory):
    config = copy.deepcopy(kit.FEELING)
    config["input_features"] |= SEES
    return kit.write_folder(tmp_path_factory.mktemp("sees") / "policy", "act", config)


@pytest.fixture(scope="module")
def talking(kit, tmp_path_factory):
    config = {
        "n_obs_steps": 3, "n_action_pred_token": 1, "action_chunk_size": 2, "crop_shape": None,
        "spatial_softmax_num_keypoints": 2, "vqvae_n_embed": 4, "vqvae_embedding_dim": 4,
        "vqvae_enc_hidden_dim": 4, "gpt_block_size": 9, "gpt_input_dim": 8, "gpt_output_dim": 8,
        "gpt_n_layer": 1, "gpt_n_head": 2, "gpt_hidden_dim": 8, "bet_softmax_temperature": 5.0,
        "normalization_mapping": {"ACTION": "MIN_MAX"},
        "output_features": kit.FEELING["output_features"],
        "input_features": SEES | {"observation.state": kit.feature("STATE", 3)},
    }  # fmt: skip
    return kit.write_folder(tmp_path_factory.mktemp("talks") / "policy", "vqbet", config)


def plans(model, episodes):
    with torch.inference_mode():
        return model.forward_batch(episodes)


@pytest.mark.parametrize("kind", ["feeling", "denoising", "seeing", "talking"])
def test_it_keeps_the_contract_of_models(kind, request):
    model = load_model(request.getfixturevalue(kind))
    check_model(model, pixels=(32, 32))


def test_layers_have_names_that_can_be_read(seeing, denoising, talking, kit):
    assert [info.name for info in kit.loaded(seeing).layers()] == [
        *("backbone.layer1", "backbone.layer2", "backbone.layer3", "backbone.layer4", "image"),
        *("state", "environment", "encoder0", "decoder0", "decoder.norm", "action"),
    ]
    assert [info.name for info in kit.loaded(denoising).layers()] == [
        *("condition", "unet.down0.block0", "unet.down0.block1", "unet.down1.block0"),
        *("unet.down1.block1", "unet.mid0", "unet.mid1", "unet.up0.block0", "unet.up0.block1"),
        *("unet.output", "action"),
    ]
    assert [info.name for info in kit.loaded(talking).layers()][4:] == [
        *("keypoints", "image", "state", "gpt0", "gpt.norm", "gpt.output", "codes", "decoded"),
        "action",
    ]


def test_tokens_before_the_picture_stand_for_no_place(seeing, feeling, kit):
    prefixes = {info.name: info.prefix for info in kit.loaded(seeing).layers()}
    assert prefixes["encoder0"] == 3 and prefixes["decoder0"] == 0
    assert not any(info.prefix for info in kit.loaded(feeling).layers())


def test_published_names_are_those_of_the_module(feeling, kit):
    names = kit.loaded(feeling).module.state_dict()
    assert "model.encoder.layers.0.self_attn.in_proj_weight" in names


def test_the_past_is_made_of_stored_frames(denoising, kit):
    model = kit.loaded(denoising)
    (episode,) = kit.episodes(model, count=1, time=5)
    whole = plans(model, [episode])
    assert not model.framewise
    # Only the present and the frame before it count.
    other = copy.deepcopy(episode)
    for values in other.streams.values():
        values[0] += 1
    changed = (plans(model, [other]) - whole).abs().amax((0, 2, 3))
    assert (changed[:2] > 1e-4).all() and (changed[2:] < 1e-6).all()


def test_chance_depends_on_episode_and_step_alone(denoising, kit):
    model = kit.loaded(denoising)
    first, second = kit.episodes(model, count=2)
    both = plans(model, [first, second])
    assert torch.allclose(both[:1], plans(model, [first]), atol=1e-5)
    assert torch.allclose(both[1:], plans(model, [second]), atol=1e-5)
    renamed = copy.deepcopy(first)
    renamed.id = "another"
    assert not torch.allclose(both[:1], plans(model, [renamed]), atol=1e-2)
    reseeded = kit.loaded(denoising, seed="2")
    assert not torch.allclose(both, plans(reseeded, [first, second]), atol=1e-2)
    assert (model.settings["seed"], reseeded.settings["seed"]) == ("1", "2")


def test_which_call_of_the_unet_counts_is_declared(denoising, kit):
    def features(calls):
        model = kit.loaded(denoising, calls=calls)
        episodes = kit.episodes(model)
        infos = [info for info in model.layers() if info.name == "unet.mid1"]
        assert infos[0].calls == model.settings["calls"] == calls
        with record(model.taps(), infos, pooling=Pooling(), episodes=2, time=4) as recording:
            plans(model, episodes)
        return recording.features()["unet.mid1"]

    first, last, mean = (features(calls) for calls in ("first", "last", "mean"))
    steps = [features(f"step {k}") for k in range(1, 6)]
    assert torch.equal(steps[0], first) and torch.equal(steps[-1], last)
    assert torch.allclose(torch.stack(steps).mean(0), mean, atol=1e-6)
    assert not torch.allclose(first, last, atol=1e-3)
    with pytest.raises(HookError, match="ran 5 times in the forward pass but 'step 6'"):
        features("step 6")


def test_fewer_denoising_steps_are_an_option(denoising, kit):
    model = kit.loaded(denoising, steps="2")
    assert model.settings["denoising"] == "DDPM, 2 steps"
    assert not torch.allclose(
        plans(model, kit.episodes(model)), plans(kit.loaded(denoising), kit.episodes(model))
    )
    with pytest.raises(DefinitionError, match=r"option steps is 6; .* was trained with 5"):
        kit.loaded(denoising, steps="6")


def test_pictures_of_another_size_are_refused_or_resized(seeing, kit):
    model = kit.loaded(seeing)
    (episode,) = kit.episodes(model, count=1)
    small = copy.deepcopy(episode)
    small.streams["camera"] = np.repeat(np.repeat(episode.stream("camera"), 2, 1), 2, 2)
    with pytest.raises(ShapeError, match=r"64 x 64 pixels; policy was trained on 32 x 32.*resize"):
        plans(model, [small])
    resized = kit.loaded(seeing, resize="yes")
    # Halving a picture of doubled pixels gives it back, but for what antialiasing smears.
    error = (plans(resized, [small]) - plans(model, [episode])).abs().max()
    assert 0 < error < 0.2
    assert (model.settings["pictures"], resized.settings["pictures"]) == ("as they are", "resized")


def test_a_vector_of_another_width_is_refused(feeling, kit):
    model = kit.loaded(feeling)
    (episode,) = kit.episodes(model, count=1)
    episode.streams["states"] = episode.streams["states"][:, :2]
    with pytest.raises(ShapeError, match=r"states has the shape \(2,\) per frame; policy needs"):
        plans(model, [episode])


def test_the_number_of_environments_may_not_change(feeling, kit):
    model = kit.loaded(feeling)
    (episode,) = kit.episodes(model, count=1)
    now = {name: episode.stream(name)[:2] for name in model.inputs}
    assert model.act(now).shape == (2, 2)
    with pytest.raises(ShapeError, match=r"acts in 1 environments but began in 2; call reset"):
        model.act({name: values[:1] for name, values in now.items()})
    model.reset()
    assert model.act({name: values[:1] for name, values in now.items()}).shape == (1, 2)


def test_a_reset_begins_anew(denoising, kit):
    model = kit.loaded(denoising)
    (episode,) = kit.episodes(model, count=1, time=6)

    def run():
        model.reset()
        nows = [{n: episode.stream(n)[t : t + 1] for n in model.inputs} for t in range(6)]
        return np.stack([model.act(now) for now in nows])

    first = run()
    assert np.array_equal(run(), first)
    assert np.ptp(first, axis=0).min() > 0


def test_every_plan_has_new_noise(denoising, kit):
    model = kit.loaded(denoising)
    (episode,) = kit.episodes(model, count=1)
    same = {name: episode.stream(name)[:1] for name in model.inputs}
    actions = [model.act(same) for _ in range(4)]
    assert not np.allclose(actions[0], actions[3], atol=1e-2)


def test_environments_have_noise_of_their_own(denoising, kit):
    model = kit.loaded(denoising)
    (episode,) = kit.episodes(model, count=1)
    twice = {name: episode.stream(name)[[0, 0]] for name in model.inputs}
    actions = model.act(twice)
    assert not np.allclose(actions[0], actions[1], atol=1e-2)


def test_acting_is_what_was_planned(feeling, kit):
    model = kit.loaded(feeling)
    (episode,) = kit.episodes(model, count=1, time=6)
    planned = plans(model, [episode])[0]
    for t in range(6):
        action = model.act({n: episode.stream(n)[t : t + 1] for n in model.inputs})
        # Three actions are taken before it plans again.
        assert np.allclose(action[0], planned[t - t % 3, t % 3], atol=1e-5)


def test_the_twin_keeps_the_statistics_and_shares_nothing(feeling, kit):
    model = kit.loaded(feeling)
    twin = model.untrained(3)
    assert twin.name == "policy-untrained3"
    state = model.scaling["action"]
    assert torch.equal(twin.scaling["action"].low, state.low)
    assert twin.scaling["action"].low.data_ptr() != state.low.data_ptr()
    norm = twin.module["model"].decoder.norm.weight
    assert torch.equal(norm, torch.ones_like(norm))


def test_codes_are_sampled_or_the_likeliest(talking, kit):
    likeliest, sampled = (kit.loaded(talking, codes=how) for how in ("likeliest", "sampled"))
    episodes = kit.episodes(sampled)
    codes = []
    hook = likeliest.taps()["codes"].register_forward_hook(lambda m, i, x: codes.append(x))
    first = plans(likeliest, episodes)
    hook.remove()
    again = kit.loaded(talking, codes="likeliest", seed="2")
    assert torch.equal(plans(again, episodes), first)
    assert not torch.allclose(plans(sampled, episodes), first)
    head = likeliest.network.action_head
    picked = codes[0].unflatten(1, (2, 4)).argmax(-1)
    chance = torch.rand(4000, 2, generator=torch.Generator().manual_seed(0))
    logits = codes[0][:1, :4].expand(4000, -1)
    sampling = sampled.network.action_head
    counts = sampling._pick(logits, chance, 0).bincount(minlength=4) / 4000
    assert torch.allclose(counts, (logits[0] / 5.0).softmax(-1), atol=0.03)
    assert torch.equal(head._pick(codes[0][:, :4], None, 0), picked[:, 0])
    with pytest.raises(UnknownNameError, match="value of option codes 'worst'"):
        kit.loaded(talking, codes="worst")


def test_features_of_a_long_episode_are_those_of_its_parts(seeing, kit):
    model = kit.loaded(seeing)
    episodes = made_up(model.needs, count=1, pixels=(32, 32), frames=5)
    whole = extract(model, episodes, layers=["backbone.layer2", "action"])
    assert model.framewise
    assert whole["backbone.layer2"].values.shape == (1, 128)


def test_a_backbone_may_run_in_parts(seeing, kit, monkeypatch):
    model = kit.loaded(seeing)
    episodes = kit.episodes(model)
    names = ("backbone.layer1", "image")

    def run(pixels):
        monkeypatch.setattr("mirror_analysis.models.lerobot.vision._PIXELS", pixels)
        found = {}

        def hook(name):
            return lambda module, inputs, output: found.setdefault(name, []).append(output)

        handles = [model.taps()[name].register_forward_hook(hook(name)) for name in names]
        found["plan"] = [plans(model, episodes)]
        for handle in handles:
            handle.remove()
        return found

    parts = run(3 * 32 * 32)
    for name, (values,) in run(2**22).items():
        assert len(parts[name]) == 1, name  # one call, whatever the parts
        assert torch.allclose(values, parts[name][0], atol=1e-4), name


CHANGES = {
    "act": [({"input_features": {}}, "neither a picture nor")],
    "diffusion": [
        ({"input_features": {}}, "has not both observation.state and a picture"),
        ({"horizon": 6}, "has a horizon of 6, 2 resolutions and 3 action steps"),
        ({"n_action_steps": 8}, "has a horizon of 8"),
        ({"down_dims": [8, 12]}, r"has down_dims \[8, 12\]; needed multiples of 8"),
        ({"num_inference_steps": 9}, "has 9 inference steps; needed at most the 5"),
        ({"diffusion_step_embed_dim": 9}, "odd diffusion_step_embed_dim"),
        ({"num_train_timesteps": 9000, "horizon": 1024}, "9000 steps of noise for 1024 actions"),
    ],
}


@pytest.mark.parametrize(
    ("kind", "change", "words"), [(k, *change) for k, some in CHANGES.items() for change in some]
)
def test_configs_that_cannot_work_are_refused(kind, change, words, kit, request, tmp_path):
    import json

    folder = request.getfixturevalue({"act": "feeling", "diffusion": "denoising"}[kind])
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) | change
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(FormatError, match=words):
        kit.loaded(folder)


def bare(tmp_path, config):
    import json

    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "model.safetensors").touch()
    return tmp_path


VIEWS = {f"observation.images.{i}": {"type": "VISUAL", "shape": [3, 32, 8 * i]} for i in (4, 5)}
STATE = {"observation.state": {"type": "STATE", "shape": [3]}}


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("diffusion", {"input_features": VIEWS | STATE}, "has pictures of several shapes"),
        ("diffusion", {"input_features": SEES | STATE, "crop_shape": [33, 8]},
         "a crop of 33 x 8 is larger than the pictures of 32 x 32"),
        ("vqbet", {"input_features": VIEWS | STATE}, "one picture, nothing else"),
        ("vqbet", {"input_features": SEES | STATE, "gpt_n_head": 7}, "needed whole heads"),
        ("vqbet", {"input_features": SEES | STATE, "gpt_block_size": 3}, "place for every token"),
    ],
)  # fmt: skip
def test_pictures_and_tokens_that_do_not_fit_are_refused(kind, change, words, kit, tmp_path):
    config = {"type": kind, "output_features": kit.FEELING["output_features"]} | change
    with pytest.raises(FormatError, match=words):
        kit.loaded(bare(tmp_path / "bare", config))


def test_licence_and_data_set_are_told_where_the_files_do(kit, tmp_path):
    config = copy.deepcopy(kit.FEELING) | {"license": "apache-2.0"}
    folder = kit.write_folder(tmp_path / "told", "act", config)
    (folder / "train_config.json").write_text('{"dataset": {"repo_id": "a/b"}}', encoding="utf-8")
    facts = kit.loaded(folder).facts
    assert facts["licence"] == "apache-2.0" and facts["trained on"] == "a/b"
    assert facts["architecture"] == "ACT with chunks of 5 actions"
