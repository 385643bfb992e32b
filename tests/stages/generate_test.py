"""The stage `generate` on tables by hand: what of a prompt is in its output."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.data import dataset, vocabulary
from dsirm_jax.data.schema import EXAMPLES
from dsirm_jax.data.tasks import Curriculum
from dsirm_jax.data.vocabularies import folder
from dsirm_jax.data.vocabularies.trimming import trimmed
from dsirm_jax.generator import fitted as generators
from dsirm_jax.generator.alignment.alignment import Alignment
from dsirm_jax.generator.alignment.rewards.judged import JudgedGains
from dsirm_jax.generator.architectures.architecture import init_params
from dsirm_jax.generator.architectures.decoder_only import DecoderConfig
from dsirm_jax.generator.architectures.lora import Lora
from dsirm_jax.generator.architectures.t5 import T5Config
from dsirm_jax.generator.code_start import codeword_directions, started, title_directions
from dsirm_jax.generator.losses import GeneratorObjective
from dsirm_jax.generator.predict import predict_sids
from dsirm_jax.generator.score import score_pairs
from dsirm_jax.io.errors import InputError
from dsirm_jax.quantizer import fitted as quantizers
from dsirm_jax.quantizer.config import QuantizerConfig
from dsirm_jax.quantizer.fitted import FittedQuantizer
from dsirm_jax.quantizer.kinds.residual_kmeans import ResidualKmeans
from dsirm_jax.quantizer.model import Codebook
from dsirm_jax.run import record
from dsirm_jax.run.layout import Layout
from dsirm_jax.sids import trie
from dsirm_jax.sids.codes import SCHEMA, write_versioned
from dsirm_jax.stages import generate, predict
from dsirm_jax.training.settings import Training
from tests.data.vocabularies import tiny

QUERIES = [f"red chair {number}" for number in range(12)]
TEXTS = [f"Chair number {number} in red oak" for number in range(6)]
SIZES, PROMPT, MAX_PIECES = (3, 4), "find {query} for", 32
SIDS = np.array([[0, 1], [2, 0], [0, 3], [1, 1], [1, 2], [2, 3]], np.int32)
CONFIG = T5Config(
    emb_dim=8, num_heads=1, head_dim=8, mlp_dim=8, num_encoder_layers=1, num_decoder_layers=1
)

DECODER = DecoderConfig(
    emb_dim=8, num_heads=2, num_kv_heads=1, head_dim=4, mlp_dim=8, num_layers=1, scan_layers=False
)


@pytest.fixture
def layout(tmp_path):
    layout = Layout(model_dir=tmp_path)
    for name in ("prepare", "quantize", "generate"):
        layout.stage(name).mkdir()
    texts = iter([*QUERIES, *TEXTS] * 3)
    vocabulary.train_vocabulary(texts=texts, size=330, path=layout.vocabulary, seed=0)
    items = [("item_index", range(6)), ("text", TEXTS), ("title", TEXTS)]
    pq.write_table(pa.table({name: pa.array(column) for name, column in items}), layout.items)
    judged = [
        {
            "query": query,
            "text": TEXTS[number % 6],
            "query_index": number,
            "item_index": number % 6,
            "gain": 1.0,
            "relevant": True,
            "weight": 1.0,
            "split": ("train", "train", "test")[number % 3],
        }
        for number, query in enumerate(QUERIES)
    ]
    examples = pa.Table.from_pylist(judged, schema=EXAMPLES)
    pq.write_table(examples, layout.stage("prepare") / "examples.parquet")
    pq.write_table(examples, layout.judgements)
    pq.write_table(pa.table({"query": QUERIES}), layout.queries)
    dataset.write_dataset(prepare_dir=layout.stage("prepare"), data_dir=layout.tfds)
    columns = ([f"item {n}" for n in range(6)], SIDS.tolist(), np.zeros((6, 2)).tolist(), [0.0] * 6)
    write_versioned(layout.sids, pa.table(columns, schema=SCHEMA), version="v")
    layout.health.write_text(json.dumps({"sizes": SIZES}))
    return layout


TRAINING = Training(epochs=2, batch_size=8, learning_rate=1e-2)


def run(layout, *, config=CONFIG, training=TRAINING, **more):
    generate.run(
        layout,
        seed=0,
        config=config,
        training=training,
        max_pieces=MAX_PIECES,
        beams=3,
        **{"objective": GeneratorObjective(), "curriculum": Curriculum(), **more},
    )


def test_queries_are_read_in_the_prompt_wherever_the_generator_is_applied(layout):
    run(layout, prompt=PROMPT)
    fitted = generators.load(layout.generator)
    assert fitted.prompt == PROMPT
    pieces = vocabulary.text_pieces(layout.vocabulary, [f"find {query} for" for query in QUERIES])
    existing = trie.build(SIDS, sizes=SIZES)
    expected = predict_sids(fitted=fitted, trie=existing, pieces=pieces, beams=3)
    beams = pq.read_table(layout.query_sids)["sids"].to_pylist()
    assert beams == expected.sids.tolist()
    of_pairs = pq.read_table(layout.pair_log_probs)
    exact = score_pairs(
        fitted=fitted,
        pieces=pieces,
        query_index=of_pairs["query_index"].to_numpy(),
        sids=SIDS[of_pairs["item_index"].to_numpy()],
    )
    np.testing.assert_allclose(np.array(of_pairs["log_probs"].to_pylist()), exact, atol=1e-5)
    lines = predict.predicted(layout, queries=QUERIES[:1], beams=3).splitlines()
    shown = [line.split()[:2] for line in lines[1:]]
    best = zip(expected.sids[0], np.exp(expected.log_probs[0]), strict=True)
    assert shown == [["-".join(map(str, sid)), f"{share:.1%}"] for sid, share in best]


def test_a_generator_reads_a_vocabulary_of_its_own_wherever_it_is_applied(layout, tmp_path):
    whole = tiny.byte_level(tmp_path / "quantize")  # any folder
    kept = trimmed(whole, [f"find {query} for" for query in QUERIES])
    given = tmp_path / "vocabulary"
    folder.write(given, tokenizer=tmp_path / "quantize" / "tokenizer.json", kept=kept)
    run(layout, prompt=PROMPT, vocabulary=str(given), config=DECODER)
    own = layout.stage("generate") / "vocabulary"
    names = {"tokenizer.json", "tokenizer_config.json", "vocabulary.json"}
    assert {path.name for path in own.iterdir()} == names
    for name in names:
        assert (own / name).read_bytes() == (given / name).read_bytes()
    shutil.rmtree(given)
    fitted = generators.load(layout.generator)
    assert fitted.config.text_vocab_size == len(kept)
    number = {id_: place for place, id_ in enumerate(kept.tolist()) if place}
    before, behind = (tuple(number[id_] for id_ in ids) for ids in whole.marks)
    pieces = [
        [*before, *(number[id_] for id_ in ids), *behind]
        for ids in whole.encode([f"find {query} for" for query in QUERIES])
    ]
    existing = trie.build(SIDS, sizes=SIZES)
    expected = predict_sids(fitted=fitted, trie=existing, pieces=pieces, beams=3)
    beams = pq.read_table(layout.query_sids)
    assert beams["sids"].to_pylist() == expected.sids.tolist()
    found = np.array(beams["log_probs"].to_pylist())
    np.testing.assert_allclose(found, expected.log_probs, atol=1e-5)
    shown = predict.predicted(layout, queries=QUERIES[:1], beams=3).splitlines()[1:]
    best = zip(expected.sids[0], np.exp(expected.log_probs[0]), strict=True)
    for line, (sid, share) in zip(shown, best, strict=True):
        assert line.split()[:2] == ["-".join(map(str, sid)), f"{share:.1%}"]


def test_a_vocabulary_that_is_none_is_refused_before_any_stage(tmp_path):
    with pytest.raises(InputError, match="generate.run.vocabulary is 3; bind a text"):
        generate.STAGE.check({"generate": {"vocabulary": 3}})
    with pytest.raises(InputError, match="none of tokenizer.json"):
        generate.STAGE.check({"generate": {"vocabulary": str(tmp_path)}})


def test_a_prompt_that_leaves_no_room_is_refused_before_training(layout):
    with pytest.raises(InputError, match="raise generate.run.max_pieces"):
        run(layout, prompt="for a chair, an oak, a red one and another: {query}")
    assert not list(layout.stage("generate").iterdir())


def test_a_prompt_without_a_place_for_the_query_is_refused_before_any_stage():
    generate.STAGE.check({"generate": {}})
    with pytest.raises(InputError, match="^gin binding generate.run.prompt is 'find'; give a text"):
        generate.STAGE.check({"generate": {"prompt": "find"}})


def test_queries_are_learnt_with_all_their_sids_by_adapters_alone(layout):
    untrained = dataclasses.replace(TRAINING, epochs=0)
    run(layout, training=untrained)
    before = generators.load(layout.generator)
    shutil.rmtree(layout.stage("generate"))
    layout.stage("generate").mkdir()
    adapted = Lora(config=CONFIG, rank=2)
    objective, curriculum = GeneratorObjective(of_several="marginal"), Curriculum(sids_of_query=3)
    run(layout, config=adapted, objective=objective, curriculum=curriculum)
    fitted = generators.load(layout.generator)
    assert fitted.config == before.config
    table, expected = (each.params["token_embedder"]["embedding"] for each in (fitted, before))
    words = fitted.config.text_vocab_size
    np.testing.assert_array_equal(table[:words], expected[:words])
    assert (table[words : words + 7] != expected[words : words + 7]).any(axis=1)[:3].all()
    norms = [each.params["encoder"]["encoder_norm"]["scale"] for each in (fitted, before)]
    np.testing.assert_array_equal(*norms)
    assert len(pq.read_table(layout.query_sids)) == len(QUERIES)


def kept_quantizer(path):
    """Writes a quantizer of the SIDs' sizes; returns its codebooks."""
    rng = np.random.default_rng(0)
    words = [jnp.asarray(rng.normal(size=(size, 2)), jnp.float32) for size in SIZES]
    books = tuple(Codebook(codewords=w, count=jnp.ones(len(w)), total=w) for w in words)
    config = QuantizerConfig(codebook_sizes=SIZES, kind=ResidualKmeans())
    quantizers.save(path, FittedQuantizer(config=config, dim=2, params={}, codebooks=books))
    return books


@pytest.mark.parametrize("code_start", ["titles", "codewords"])
def test_codes_start_from_what_is_known_of_them(layout, code_start):
    books = kept_quantizer(layout.quantizer)
    untrained = dataclasses.replace(TRAINING, epochs=0)
    run(layout, training=untrained, code_start=code_start)
    fitted = generators.load(layout.generator)
    params = init_params(fitted.config, seed=0)
    if code_start == "titles":
        pieces = vocabulary.text_pieces(layout.vocabulary, TEXTS)
        embedding = np.asarray(fitted.config.text_embedding(params))
        directions = title_directions(embedding, pieces, SIDS, sizes=SIZES)
    else:
        directions = codeword_directions(books, SIDS, width=CONFIG.emb_dim, seed=0)
    expected = started(fitted.config, params, directions)
    for one, other in zip(jax.tree.leaves(fitted.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(
            fitted.params["token_embedder"]["embedding"], params["token_embedder"]["embedding"]
        )


def aligned(*, learning_rate):
    """Two of eight training queries are held out by the seed."""
    training = dataclasses.replace(TRAINING, epochs=30, learning_rate=learning_rate, held_out=0.3)
    return Alignment(reward=JudgedGains(), training=training, samples=4)


@pytest.mark.slow
def test_the_supervised_generator_stays_beside_the_aligned_one(layout):
    training = dataclasses.replace(TRAINING, held_out=0.3)
    run(layout, training=training)
    plain = {path: path.read_bytes() for path in layout.stage("generate").glob("*.*")}
    shutil.rmtree(layout.stage("generate"))
    layout.stage("generate").mkdir()
    run(layout, training=training, alignment=aligned(learning_rate=0.0))
    assert layout.supervised_generator.read_bytes() == plain[layout.generator]
    for path, content in plain.items():  # nothing is better, and nothing changes
        assert path.read_bytes() == content, path
    result = json.loads(layout.alignment_result.read_text())
    assert result["queries"] + result["held_out"] == 8 and result["held_out"] > 0
    assert not result["is_aligned"]
    assert result["reward"]["aligned"] == result["reward"]["supervised"]
    # All that is worth something now is an item that few queries were learnt with.
    judged = pq.read_table(layout.judgements)
    column = judged.schema.get_field_index("item_index")
    field = judged.schema.field(column)
    fifth = pa.array([4] * len(judged), field.type)
    pq.write_table(judged.set_column(column, field, fifth), layout.judgements)
    shutil.rmtree(layout.stage("generate"))
    layout.stage("generate").mkdir()
    run(layout, training=training, alignment=aligned(learning_rate=3e-2))
    assert layout.supervised_generator.read_bytes() == plain[layout.generator]
    result = json.loads(layout.alignment_result.read_text())
    assert result["is_aligned"]
    assert 0 <= result["reward"]["supervised"] < result["reward"]["aligned"] <= 1
    before, after = map(generators.load, (layout.supervised_generator, layout.generator))
    assert before.version != after.version
    names = record.listed_files(layout.stage("generate"))
    assert {"supervised.safetensors", "alignment.json"} < {*names}
    assert not any(name.startswith("alignment/") for name in names)
    pieces = vocabulary.text_pieces(layout.vocabulary, QUERIES)
    existing = trie.build(SIDS, sizes=SIZES)
    expected = predict_sids(fitted=after, trie=existing, pieces=pieces, beams=3)
    assert pq.read_table(layout.query_sids)["sids"].to_pylist() == expected.sids.tolist()


def test_alignment_is_not_measured_by_queries_that_were_learnt():
    bound = {"training": TRAINING, "alignment": aligned(learning_rate=0.1)}
    with pytest.raises(InputError, match="Alignment.training is 0.3; bind at most .*, 0.0: those"):
        generate.STAGE.check({"generate": bound})
    bound["training"] = dataclasses.replace(TRAINING, held_out=0.3)
    generate.STAGE.check({"generate": bound})


def test_another_start_of_codes_is_refused_before_any_stage():
    with pytest.raises(InputError, match="generate.run.code_start is 'words'; bind None, 'titles'"):
        generate.STAGE.check({"generate": {"code_start": "words"}})
