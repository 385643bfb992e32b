import ast
import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors
import safetensors.numpy

from dsirm_jax.data.vocabularies import folder as vocabularies
from dsirm_jax.data.vocabulary import train_vocabulary
from dsirm_jax.generator.architectures.decoder_only import DecoderConfig, text_states
from dsirm_jax.generator.importing.models import import_model
from dsirm_jax.io.errors import InputError
from tests.generator.importing import tiny

states = jax.jit(text_states, static_argnums=0)


def started(out):
    """Returns what a run starts from: the vocabulary, the architecture and its parameters."""
    vocabulary = vocabularies.read(out / "vocabulary")
    config = DecoderConfig.of_folder(out)
    config = dataclasses.replace(config, text_vocab_size=vocabulary.size)
    return vocabulary, config, config.pretrained(out, seed=0, vocabulary=vocabulary)


def read_states(model, texts):
    """Returns the final states of texts, of each the real tokens alone."""
    vocabulary, config, params = model
    ids = vocabulary.encode(texts)
    tokens = np.array([[*of_text, *[0] * (16 - len(of_text))] for of_text in ids])
    found = np.asarray(states(config, params, tokens))
    return [row[: len(of_text)] for row, of_text in zip(found, ids, strict=True)]


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_an_imported_model_is_the_golden_one(name, tmp_path):
    import_model(tiny.hugging_face(tmp_path / "source", name), tmp_path / "out")
    _, config, params = started(tmp_path / "out")
    golden = np.load(tiny.GOLDEN / name / "computed.npz")
    with safetensors.safe_open(tmp_path / "out/model.safetensors", "np") as file:
        has_output = "lm_head.weight" in file.keys()  # noqa: SIM118
        output = file.get_tensor("lm_head.weight" if has_output else "model.embed_tokens.weight")
    found = states(config, params, golden["tokens"]) @ output.T
    for row, length in enumerate((9, 5)):
        np.testing.assert_allclose(found[row, :length], golden["logits"][row, :length], atol=1e-4)


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_the_states_of_kept_texts_are_those_of_the_whole_model(name, tmp_path):
    source = tiny.hugging_face(tmp_path / "source", name)
    (tmp_path / "texts.txt").write_text("\n".join(tiny.TEXTS) + "\n\n")
    lines = import_model(source, tmp_path / "out", texts=[str(tmp_path / "texts.txt")])
    import_model(source, tmp_path / "whole")
    trimmed, whole = started(tmp_path / "out"), started(tmp_path / "whole")
    # All characters are kept, and of the ten merged pieces those that the texts end up with.
    assert trimmed[0].size < whole[0].size == tiny.SIZE
    for ours, theirs in zip(*(read_states(m, tiny.TEXTS) for m in (trimmed, whole)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert f"{trimmed[0].size} of 96 pieces kept" in lines[-1]
    # "ue" is but a part of "blue" in the texts, so that its letters stand for it.
    (ids,) = trimmed[0].encode(["ue"])
    assert list(map(trimmed[0].spelling, ids)) == [b"u", b"e"]
    assert [*map(whole[0].spelling, whole[0].encode(["ue"])[0])] == [b"ue"]


def test_the_pieces_of_a_prompt_are_kept(tmp_path):
    source = tiny.hugging_face(tmp_path / "source")
    (tmp_path / "texts.txt").write_text("4\n")
    texts = [str(tmp_path / "texts.txt")]
    import_model(source, tmp_path / "out", texts=texts, prompt="blue {query} sho")
    vocabulary = vocabularies.read(tmp_path / "out/vocabulary")
    spelt = [vocabulary.spelling(id_) for id_ in vocabulary.encode(["blue 4 sho"])[0]]
    assert spelt == [b"blue", b" 4", b" sho"]
    assert "generate.run.prompt = 'blue {query} sho'" in (tmp_path / "out/model.gin").read_text()


@pytest.mark.parametrize("padding", [0, 5])
def test_rows_are_in_the_order_of_the_ids_that_a_generator_reads(padding, tmp_path):
    source = tiny.hugging_face(tmp_path / "source", padding=padding)
    import_model(source, tmp_path / "out")
    vocabulary, _, params = started(tmp_path / "out")
    table = safetensors.numpy.load_file(source / "model.safetensors")["model.embed_tokens.weight"]
    for name in ("red", "<end>", "b"):
        place = tiny.pieces(padding=padding).index(name)
        numbered = place if padding == 0 else place + 1
        assert vocabulary.spelling(numbered).decode() == name
        np.testing.assert_array_equal(params["text"]["embedding"][numbered], table[place])
    np.testing.assert_array_equal(params["text"]["embedding"][0], table[padding])


def test_an_imported_model_reads_its_own_vocabulary_alone(tmp_path):
    source = tiny.hugging_face(tmp_path / "source", padding=5)
    (tmp_path / "texts.txt").write_text("red shoe")
    import_model(source, tmp_path / "out", texts=[str(tmp_path / "texts.txt")])
    vocabulary, config, params = started(tmp_path / "out")
    whole = config.pretrained(source, seed=0, vocabulary=vocabulary)
    np.testing.assert_array_equal(whole["text"]["embedding"], params["text"]["embedding"])
    other = vocabularies.read(source)
    config = dataclasses.replace(config, text_vocab_size=other.size)
    with pytest.raises(InputError, match="but the vocabulary has 97; bind the vocabulary of these"):
        config.pretrained(tmp_path / "out", seed=0, vocabulary=other)


def test_marks_without_a_row_are_left_out(tmp_path):
    source = tiny.hugging_face(tmp_path / "source", more=("<image>",))
    import_model(source, tmp_path / "out")
    vocabulary, config, _ = started(tmp_path / "out")
    assert vocabulary.size == config.text_vocab_size == tiny.SIZE


def test_gin_binds_what_is_in_the_folder(tmp_path):
    out = tmp_path / "out"
    import_model(tiny.hugging_face(tmp_path / "source", "gemma3"), out)
    lines = (out / "model.gin").read_text().splitlines()
    settings = dict(line.strip().split(" = ") for line in lines if line.startswith("  "))
    bound = {name: ast.literal_eval(value) for name, value in settings.items()}
    assert DecoderConfig(**bound, text_vocab_size=96) == DecoderConfig.of_folder(out)
    assert not {"dtype", "remat", "scan_layers"} & bound.keys()
    assert f"generate.run.start = '{out}'" in lines
    assert f"generate.run.vocabulary = '{out}/vocabulary'" in lines
    assert "generate.run.config = @decoder_only.DecoderConfig()" in lines


def test_half_precision_stays_and_everybody_may_read_it(tmp_path):
    source = tiny.hugging_face(tmp_path / "source")
    arrays = safetensors.numpy.load_file(source / "model.safetensors")
    halves = {name: array.astype(jnp.bfloat16) for name, array in arrays.items()}
    safetensors.numpy.save_file(halves, source / "model.safetensors")
    lines = import_model(source, tmp_path / "out")
    written = safetensors.numpy.load_file(tmp_path / "out/model.safetensors")
    assert written.keys() == halves.keys()
    for name, array in written.items():
        np.testing.assert_array_equal(array, halves[name], strict=True)
    modes = {path.stat().st_mode for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert len(modes) == 1
    count = sum(array.size for array in arrays.values())
    assert f"parameters: {count:,} in {len(arrays)} tensors, BF16" in lines[1]


def test_licences_come_along(tmp_path):
    source = tiny.hugging_face(tmp_path / "source")
    (source / "LICENSE.txt").write_text("\n  Apache  License\nVersion 2.0\n")
    (source / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\nlicense: no\n")
    lines = import_model(source, tmp_path / "out")
    assert "licence: LICENSE.txt (Apache License); README.md says apache-2.0" in lines
    for name in ("LICENSE.txt", "README.md"):  # an export says again what they say
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()
    lines = import_model(tiny.hugging_face(tmp_path / "other"), tmp_path / "second")
    assert "licence: no licence text found: ask whoever made the model" in lines


def sentence_piece(folder):
    """Puts a SentencePiece model beside a model of 400 rows."""
    path = folder / "model.safetensors"
    arrays = safetensors.numpy.load_file(path)
    for name in ("shared.weight", "lm_head.weight"):
        arrays[name] = np.random.default_rng(0).normal(size=(400, 16)).astype(np.float32)
    arrays = {name: array for name, array in arrays.items() if "embed_tokens" not in name}
    safetensors.numpy.save_file(arrays, path)
    texts = [f"red shoe {number} for running" for number in range(50)]
    train_vocabulary(texts=iter(texts), size=290, path=folder / "spiece.model", seed=0)


def test_a_trimmed_t5_has_a_vocabulary_of_its_own(tmp_path):
    source = shutil.copytree(tiny.GOLDEN / "t5_1_1", tmp_path / "source")
    sentence_piece(source)
    pq.write_table(pa.table({"query": ["red shoe"], "id": [7]}), tmp_path / "queries.parquet")
    texts = [str(tmp_path / "queries.parquet")]
    import_model(source, tmp_path / "out", texts=texts)
    vocabulary = vocabularies.read(tmp_path / "out/vocabulary")
    assert vocabulary.whole.marks == ((), (1,))
    from dsirm_jax.generator.architectures.t5_text import load_text_params

    config, params = load_text_params(tmp_path / "out/t5.safetensors")
    whole = safetensors.numpy.load_file(source / "model.safetensors")
    assert config.text_vocab_size == vocabulary.size < 290
    np.testing.assert_array_equal(
        params["token_embedder"]["embedding"], whole["shared.weight"][vocabulary.kept]
    )
    np.testing.assert_array_equal(
        params["decoder"]["logits_dense"]["kernel"], whole["lm_head.weight"][vocabulary.kept].T
    )
    gin = (tmp_path / "out/model.gin").read_text()
    assert f"generate.run.vocabulary = '{tmp_path}/out/vocabulary'" in gin
    assert "prepare.run" not in gin


@pytest.mark.parametrize(
    ("added", "marks"),
    [({}, ((), (1,))), ({"add_eos_token": False}, ((), ()))],
    ids=["of the family", "as the tokenizer says"],
)
def test_marks_of_a_sentence_piece_model(added, marks, tmp_path):
    source = shutil.copytree(tiny.GOLDEN / "t5_1_1", tmp_path / "source")
    sentence_piece(source)
    (source / "tokenizer_config.json").write_text(json.dumps(added))
    (tmp_path / "texts.txt").write_text("red shoe")
    import_model(source, tmp_path / "out", texts=[str(tmp_path / "texts.txt")])
    assert vocabularies.read(tmp_path / "out/vocabulary").whole.marks == marks


def without_tokenizer(source):
    (source / "tokenizer.json").unlink()


def fill(source):
    path = source / "model.safetensors"
    arrays = safetensors.numpy.load_file(path)
    arrays["model.norm.weight"][3] = np.nan
    safetensors.numpy.save_file(arrays, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_tokenizer, r"source: none of tokenizer.json, .* with --vocabulary=FILE"),
        (fill, r"source/model.safetensors: tensor model.norm.weight has 1 numbers that are not"),
        (
            lambda source: (source / "tokenizer.json").write_text("{}"),
            "tokenizer.json: not a readable tokenizer",
        ),
    ],
    ids=["no tokenizer", "a number that is none", "a damaged tokenizer"],
)
def test_a_model_that_cannot_be_imported_leaves_nothing(damage, message, tmp_path):
    source = tiny.hugging_face(tmp_path / "source")
    damage(source)
    with pytest.raises(InputError, match=message):
        import_model(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    source = tiny.hugging_face(tmp_path / "source")
    path = source / "tokenizer.json"
    said = json.loads(path.read_text())
    said["model"]["vocab"] |= {"redred": 96, "blueblue": 97}
    path.write_text(json.dumps(said))
    with pytest.raises(InputError, match="tokenizer.json: 98 pieces, but the embedding of .* 96"):
        import_model(source, tmp_path / "out")


def test_a_vocabulary_without_bytes_cannot_be_trimmed(tmp_path):
    source = tiny.hugging_face(tmp_path / "source")
    path = source / "tokenizer.json"
    said = json.loads(path.read_text())
    said["pre_tokenizer"] = {"type": "Whitespace"}
    path.write_text(json.dumps(said))
    (tmp_path / "texts.txt").write_text("red")
    with pytest.raises(InputError, match=r"tokenizer.json: .* for some bytes.*, or leave --texts"):
        import_model(source, tmp_path / "out", texts=[str(tmp_path / "texts.txt")])


def test_a_named_tokenizer_is_taken(tmp_path):
    source = tiny.hugging_face(tmp_path / "source")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (source / "tokenizer.json").rename(elsewhere / "tokenizer.json")
    with pytest.raises(InputError, match="nowhere.model: no such file"):
        import_model(source, tmp_path / "out", vocabulary=tmp_path / "nowhere.model")
    import_model(source, tmp_path / "out", vocabulary=elsewhere / "tokenizer.json")
    assert vocabularies.read(tmp_path / "out/vocabulary").size >= tiny.SIZE
