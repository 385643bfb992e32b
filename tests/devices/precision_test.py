"""What an id, a score or a stored vector comes from multiplies in full float32 on every device.

A CPU multiplies so whatever a program says: what is looked at is the programs' text. Training is
told to be exact, too, where any program that is compiled must be.
"""

import dataclasses
import importlib
import pkgutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.ahead import compile as ahead
from dsirm_jax.devices.precision import PRECISIONS, exact, multiplying
from dsirm_jax.encoder.kinds.pretrained import Pretrained
from dsirm_jax.encoder.kinds.protocol import RunTables
from dsirm_jax.generator import fit_generator, predict_sids, score_pairs
from dsirm_jax.generator.architectures.t5 import T5Config
from dsirm_jax.generator.decoding import sample
from dsirm_jax.quantizer import kinds as quantizer_kinds
from dsirm_jax.quantizer.assign import VectorChunk, assign
from dsirm_jax.quantizer.codebooks import Upkeep
from dsirm_jax.quantizer.config import QuantizerConfig
from dsirm_jax.quantizer.fitting import train
from dsirm_jax.quantizer.training_items import TrainingItems
from dsirm_jax.relevance import heads as head_kinds
from dsirm_jax.relevance.calibration import divided_by
from dsirm_jax.relevance.fitted import FittedHead
from dsirm_jax.relevance.heads.head import Fitting
from dsirm_jax.relevance.nearest.exact import nearest_rows
from dsirm_jax.relevance.schema import FeatureTable
from dsirm_jax.relevance.score import grade_probabilities, logits, score
from dsirm_jax.run import configuration
from dsirm_jax.sids import trie as tries
from dsirm_jax.stages import encode, generate, prepare, quantize, relevance
from dsirm_jax.training.settings import Training
from tests.devices.programs import asked, compiled_by, float32_products, inexact, inexact_of_rows
from tests.relevance.heads.labelled import labelled

BERT = Path(__file__).parents[1] / "encoder" / "golden" / "bert"
EXACT = Training(epochs=1, batch_size=32, learning_rate=1e-3, matmul_precision="highest")
RANDOM = np.random.default_rng(0)


def text(function, *arguments):
    return jax.jit(function).lower(*arguments).as_text()


def square(x):
    return x @ x


def kinds(package):
    """Returns the dataclasses of every file of a package of kinds, by name."""
    modules = [
        importlib.import_module(f"{package.__name__}.{module.name}")
        for module in pkgutil.iter_modules(package.__path__)
    ]
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if dataclasses.is_dataclass(value) and value.__module__ == module.__name__
    }


@pytest.mark.parametrize("precision", PRECISIONS)
def test_products_have_the_precision_of_their_function_whatever_is_set_outside(precision):
    x = jnp.ones((3, 3))
    with jax.default_matmul_precision("bfloat16"):
        found = text(multiplying(precision)(square), x)
    assert asked(found) == {precision.upper(): {("3x3", "3x3")}}
    assert bool(inexact(found)) == (precision != "highest")
    assert jax.config.jax_default_matmul_precision is None


def test_factors_of_bfloat16_are_no_matter():
    assert float32_products(text(square, jnp.ones((3, 3), jnp.bfloat16))) == []
    assert len(inexact(text(square, jnp.ones((3, 3))))) == 1
    image, kernel = jnp.ones((1, 4, 4, 1)), jnp.ones((2, 2, 1, 1))

    def convolved(image):
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=layout)

    assert len(inexact(text(convolved, image))) == 1
    assert inexact(text(exact(convolved), image)) == []


def test_an_exact_function_is_exact_inside_another_and_where_it_is_compiled_already():
    compiled = jax.jit(exact(square))
    x = jnp.ones((4, 4))
    compiled(x)

    @jax.jit
    @multiplying("high")
    def outer(x):
        return jnp.tanh(square(x)) @ jax.vmap(compiled)(x[None])[0][:, :2]

    assert asked(outer.lower(x).as_text()) == {
        "HIGHEST": {("1x4x4", "1x4x4")},
        "HIGH": {("4x4", "4x4"), ("4x4", "4x2")},
    }


def test_derivatives_are_taken_with_the_same_precision_rules_of_their_own_too():
    @jax.custom_vjp
    def product(x, y):
        return x @ y

    product.defvjp(lambda x, y: (x @ y, (x, y)), lambda saved, g: (g @ saved[1].T, saved[0].T @ g))

    def loss(x, y):
        return jnp.sum(product(x, y)) + jnp.sum((x @ y) ** 2)

    found = text(exact(jax.grad(loss, argnums=(0, 1))), jnp.ones((3, 4)), jnp.ones((4, 5)))
    assert len(float32_products(found)) >= 5 and inexact(found) == []


# What a kind needs that has no default; a new one that does adds a line.
QUANTIZERS = {"RqVae": {"latent_dim": 7, "hidden_dim": 9}}


def quantizer_items():
    vectors = RANDOM.normal(size=(150, 11)).astype("f4")
    return TrainingItems(
        items=vectors,
        queries=vectors[:40] + np.float32(0.1),
        pairs=np.stack([np.arange(40)] * 2, axis=1),
        pinned=(np.arange(150) % 5 - 1).astype("i4"),
        names=tuple("abcd"),
    )


def quantizers():
    found = kinds(quantizer_kinds)
    return {
        name: kind(**QUANTIZERS.get(name, {})) for name, kind in found.items() if "fit" in dir(kind)
    }


def test_quantizers_of_every_kind_are_fitted_and_applied_exactly(tmp_path):
    items, one = quantizer_items(), jax.devices()[:1]
    assert {"RqVae", "ResidualKmeans", "HierarchicalKmeans"} <= quantizers().keys()
    for name, kind in quantizers().items():

        def fit_and_assign(kind=kind):
            config = QuantizerConfig(codebook_sizes=(6, 5, 4), kind=kind, pin_depth=1)
            given = {"config": config, "items": items, "training": EXACT, "devices": one}
            fitted = train(**given, upkeep=Upkeep(init_rows=140, init_iterations=2))
            if kind.continues:
                train(**given, start=fitted)
            for beams in (1, 3):
                searching = dataclasses.replace(
                    fitted, config=dataclasses.replace(config, beams=beams)
                )
                previous = np.zeros((150, 3), np.int32)
                chunks = [VectorChunk(items.items, items.pinned, previous)]
                list(assign(fitted=searching, chunks=chunks, stay=0.1, chunk_rows=150))

        found = compiled_by(fit_and_assign, folder=tmp_path / name)
        assert float32_products(found) and inexact(found) == [], name


def test_generators_are_trained_search_and_score_exactly(tmp_path):
    config = T5Config(
        text_vocab_size=30,
        sid_sizes=(3, 4, 5),
        emb_dim=8,
        num_heads=2,
        head_dim=4,
        mlp_dim=6,
        num_encoder_layers=1,
        num_decoder_layers=1,
        remat=True,
    )
    pieces = [RANDOM.integers(1, 30, length).tolist() for length in (3, 9, 1, 5)] * 8
    sids = np.stack([RANDOM.integers(size, size=32) for size in config.sid_sizes], axis=1)
    trie = tries.build(sids, sizes=config.sid_sizes)
    variants = {
        "T5 1.1": config,
        "T5 1.0, scanned": dataclasses.replace(
            config, logits_via_embedding=True, mlp_activations=("relu",), scan_layers=True
        ),
    }
    for name, variant in variants.items():

        def fit_and_search(config=variant, folder=tmp_path / name):
            fitted = fit_generator(
                config=config,
                training=EXACT,
                pieces=pieces,
                sids=sids,
                max_pieces=9,
                directory=folder,
                devices=jax.devices()[:1],
            )
            predict_sids(fitted=fitted, trie=trie, pieces=pieces, beams=3, batch_size=8)
            index = np.arange(len(sids))
            score_pairs(fitted=fitted, pieces=pieces, query_index=index, sids=sids, batch_size=8)
            tokens, key = jnp.ones((8, 9), jnp.int32), jax.random.key(0)
            sample(fitted.params, trie, tokens, config=fitted.config, samples=2, key=key)

        found = compiled_by(fit_and_search, folder=tmp_path / f"{name} text")
        assert float32_products(found) and inexact(found) == [], name


def run_tables(folder):
    pq.write_table(pa.table({"item_id": ["a", "b"], "text": ["red mug", "kid"]}), folder / "i.pq")
    pq.write_table(pa.table({"query": ["mug", "kid"]}), folder / "q.pq")
    judged = {"query_index": [0, 1], "item_index": [0, 1], "relevant": [True] * 2}
    pq.write_table(pa.table(judged | {"split": ["train"] * 2}), folder / "j.pq")
    return RunTables(
        items=folder / "i.pq",
        queries=folder / "q.pq",
        judgements=folder / "j.pq",
        item_vectors=folder / "items-*.parquet",
        query_vectors=folder / "queries-*.parquet",
        tfds_dir=folder,
        vocabulary=folder,
    )


@pytest.mark.parametrize("frozen", [True, False], ids=["projection", "all weights"])
def test_a_pretrained_encoder_is_trained_and_applied_exactly(tmp_path, frozen):
    config = Pretrained(
        folder=str(BERT),
        dim=6,
        frozen=frozen,
        max_query_pieces=4,
        max_item_pieces=5,
        training=dataclasses.replace(EXACT, batch_size=8),
    )
    found = compiled_by(
        lambda: config.fit(run_tables(tmp_path), directory=tmp_path, seed=0, pieces_at_once=16),
        folder=tmp_path / "text",
    )
    assert len(float32_products(found)) > 10 and inexact_of_rows(found) == []


def test_heads_of_every_kind_are_fitted_and_score_exactly(tmp_path):
    pairs = labelled(RANDOM.normal(size=(64, 5)), np.arange(64) % 4, grades=4)
    names = tuple("abcde")
    table = FeatureTable(names=names, groups=names, values=pairs.features)
    found = {name: kind for name, kind in kinds(head_kinds).items() if "outputs" in dir(kind)}
    graded = {name: kind for name, kind in found.items() if name not in ("Blend", "LambdaMart")}
    single = {name: kind(loss="graded") for name, kind in graded.items()}
    ranking = {"LambdaMart": found["LambdaMart"](trees=5, min_leaf=2)}
    heads = single | ranking | {"Blend": found["Blend"](heads=tuple(single.values()))}
    assert {"Linear", "Mlp", "BoostedTrees"} <= single.keys()
    for name, head in heads.items():

        def fit_and_score(head=head, folder=tmp_path / name):
            fitting = Fitting(name="head", training=EXACT, directory=folder, seed=0)
            fitted = FittedHead(
                head=head,
                features=names,
                gains=(0.0, 1.0, 2.0, 3.0),
                relevant=pairs.relevant,
                params=head.fit(pairs, fitting),
                curve=divided_by(1.0),
            )
            applied = (
                (score, logits) if head.loss != "graded" else (score, grade_probabilities, logits)
            )
            for apply in applied:
                apply(fitted, table)

        text = compiled_by(fit_and_score, folder=tmp_path / f"{name} text")
        assert bool(float32_products(text)) == (name not in ("BoostedTrees", "LambdaMart"))
        assert inexact_of_rows(text) == [], name


def test_neighbours_are_found_exactly(tmp_path):
    vectors = RANDOM.normal(size=(20, 5)).astype("f4")
    found = compiled_by(
        lambda: nearest_rows(queries=vectors[:3], candidates=vectors, k=2), folder=tmp_path
    )
    assert float32_products(found) and inexact(found) == []


STAGES = {"encode": encode, "quantize": quantize, "generate": generate, "relevance": relevance}
TINY = [
    "quantizer_config.QuantizerConfig.codebook_sizes = (16, 8, 4)",
    "relevance.run.head = @mlp.Mlp()",
    "prepare.run.vocabulary_size = 300",
]


def steps(precision):
    """Returns the text of every step that `dsirm compile` knows, as it is bound."""
    trainings = [f"{name}/settings.Training.matmul_precision = '{precision}'" for name in STAGES]
    imports = ["from dsirm_jax.relevance.heads import mlp", "from dsirm_jax.stages import prepare"]
    configuration.parse(files=["gin/models/tiny.gin"], bindings=[*imports, *TINY, *trainings])
    stages = STAGES | {"prepare": prepare}
    bindings = {name: configuration.bound(stage.run) for name, stage in stages.items()}
    target = ahead.Target(topology="h100:8", sids=1000)
    found = {}
    for name, make in ahead.STEPS.items():
        step, arguments, static, _ = make(bindings, target, jax.devices())
        found[name] = step.lower(*arguments, **static).as_text()
    return found


def test_the_binding_reaches_all_that_training_steps_multiply_but_the_costs_of_codes():
    found = {name: asked(program) for name, program in steps("high").items()}
    # Of 512 rows on 8 devices, 64 numbers each, against the codes of every level.
    assert found["quantize"].pop("HIGHEST") == {("64x64", f"64x{size}") for size in (16, 8, 4)}
    assert {name: {*precisions} for name, precisions in found.items()} == {
        **{name: {"HIGH"} for name in STAGES},
        "search": {"HIGHEST"},
    }
