"""A bundle of untrained models, small enough to be made by every test that wants to break one."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa

from dsirm_jax.data import vocabulary
from dsirm_jax.data.identity import QueryIdentity
from dsirm_jax.data.vocabularies import folder
from dsirm_jax.data.vocabularies.prompt import QUERY
from dsirm_jax.encoder.kinds import towers
from dsirm_jax.encoder.model import TextTower
from dsirm_jax.generator import fitted as generators
from dsirm_jax.generator.architectures.architecture import init_params
from dsirm_jax.generator.architectures.decoder_only import DecoderConfig
from dsirm_jax.generator.architectures.description import describe_architecture
from dsirm_jax.generator.architectures.t5 import T5Config
from dsirm_jax.generator.predict import predict_sids
from dsirm_jax.quantizer import fitted as quantizers
from dsirm_jax.quantizer.assign import assign_vectors
from dsirm_jax.quantizer.config import QuantizerConfig
from dsirm_jax.quantizer.kinds.residual_kmeans import ResidualKmeans
from dsirm_jax.quantizer.model import Codebook
from dsirm_jax.relevance import fitted as heads
from dsirm_jax.relevance import groups
from dsirm_jax.relevance.calibration import divided_by
from dsirm_jax.relevance.heads.mlp import Mlp, MlpParams, network
from dsirm_jax.relevance.heads.tree_params import TreeParams
from dsirm_jax.relevance.heads.trees import BoostedTrees
from dsirm_jax.relevance.neighbours import find_surroundings
from dsirm_jax.serving.bundle import catalogue, item_parts, models
from dsirm_jax.serving.bundle import contents as bundle
from dsirm_jax.serving.bundle import manifest as manifests
from dsirm_jax.serving.bundle.cached import Cached
from dsirm_jax.serving.bundle.known import QuerySidPairs, known_sids, of_beams, of_near
from dsirm_jax.serving.export import described_features, voters_of
from dsirm_jax.serving.formats import onnx_head, portable, saved_model, stablehlo, xgboost_head
from dsirm_jax.sids import trie as tries

SIZES, DIM, BEAMS, PIECES = (4, 5, 6), 8, 3, 12
COLOURS = ("red", "blue", "green", "grau", "ruž")
THINGS = ("shoe", "mug", "lamp stand", "garden hose", "phone case")
EXTRAS = {"price": "double", "material": "string"}
QUERIES = [f"{colour} {thing}" for colour in COLOURS[:3] for thing in THINGS[:4]]
TRAIN = np.array([[query, item] for query in range(8) for item in (query, 3 * query)])


def items(first, last):
    """Returns rows of items, of which those from 60 on are of a brand that the others lack."""
    return [
        {
            "item_id": f"item {number}",
            "title": f"{COLOURS[number % 5]} {THINGS[number // 5 % 5]} no. {number}",
            "brand": "Acme" if number < 60 else "Newcomer",
            "colour": COLOURS[number % 5] if number % 3 else None,
            "category": ["home", THINGS[number // 5 % 5]] if number % 4 else None,
            "price": 9.5 + number if number % 7 else None,
            "material": "wood",
        }
        for number in range(first, last)
    ]


def with_text(rows):
    """Returns rows of items as `prepare` writes them: no title names the brand, all the colour."""
    return [row | {"text": f"{row['title']} {row['brand']}"} for row in rows]


def make(
    path,
    *,
    count=60,
    listed=None,
    whole=False,
    prompt=QUERY,
    own_vocabulary=None,
    in_lists=(),
    grown=False,
    reads=("beams", "neighbour_sids"),
):
    """Writes a bundle.

    Args:
      path: where to.
      count: items.
      listed: rows of items in place of the first ones.
      whole: with StableHLO and a SavedModel that runs; else there are variables alone.
      prompt: of the generator.
      own_vocabulary: folder of a vocabulary that the generator alone reads.
      in_lists: features without SIDs that heads compare within a query.
      grown: the full model's head is trees, not a network.
      reads: of the groups that read SIDs, which of them the full model's head has.
    """
    rows = with_text(listed or items(0, count))
    path.mkdir()
    titles = [row["title"] for row in with_text(items(0, 100))]
    vocabulary.train_vocabulary(
        texts=iter([*titles, *QUERIES]), size=330, path=path / "vocabulary.model", seed=0
    )
    processor = vocabulary.processor(path / "vocabulary.model")
    (path / "vocabulary.model").unlink()
    own = own_vocabulary and folder.read(own_vocabulary)
    learnt = untrained(processor, prompt=prompt, own=own, in_lists=in_lists, reads=reads)
    if grown:
        learnt.heads[manifests.FULL] = random_trees(learnt.heads[manifests.FULL].features, seed=7)

    of_items = learnt.encoder.embed([row["text"] for row in rows], of_items=True)
    of_queries = learnt.encoder.embed(QUERIES)
    quantizer = random_quantizer()
    sids = assign_vectors(fitted=quantizer, vectors=of_items).codes
    trie = tries.build(sids, sizes=SIZES, kind=(tries.BITMAP, tries.RANGES, tries.BITMAP))
    (path / bundle.MODEL).mkdir()
    models.write_models(path / bundle.MODEL, learnt, own_vocabulary=own_vocabulary)
    quantizers.save(path / bundle.MODEL / models.QUANTIZER, quantizer)
    described = {
        name: described_features(head, levels=3, numbers=["price"])
        for name, head in learnt.heads.items()
    }
    manifest = manifests.Manifest(
        packages=manifests.package_versions(),
        programs=portable.described(),
        sid_version="v",
        stages={},
        settings=manifests.BundleSettings(
            encoder=manifests.EncoderSettings(kind="two towers", **learnt.encoder.described()),
            generator=describe_architecture(learnt.generator.config),
            max_pieces=PIECES,
            beams=BEAMS,
            language="en",
            groups={
                name: tuple(dict.fromkeys(feature.group for feature in of))
                for name, of in described.items()
            },
            extras=EXTRAS,
            numbers=("price",),
            types_from_titles=False,
            trie=tries.forms(trie),
            shows_queries=True,
            identity=QueryIdentity(),
            prompt=prompt,
            own_vocabulary=own is not None,
        ),
        features=described,
        catalogue=1,
        items=len(rows),
        queries=len(QUERIES),
        files={},
    )
    table = pa.Table.from_pylist(
        rows,
        pa.schema(
            [
                *((name, pa.string()) for name in ("item_id", "title", "text", "brand", "colour")),
                ("category", pa.list_(pa.string())),
                *((name, pa.type_for_alias(of)) for name, of in EXTRAS.items()),
            ]
        ),
    )
    near = find_surroundings(
        query_index=np.arange(len(QUERIES)),
        query_vectors=of_queries,
        item_vectors=of_items,
        train_pairs=TRAIN,
        relevant=np.arange(len(TRAIN)) % 3 > 0,
    )
    beams = predict_sids(
        fitted=learnt.generator,
        trie=trie,
        pieces=learnt.prompted.pieces(QUERIES),
        beams=BEAMS,
        batch_size=8,
    )
    known = known_sids(
        generator=learnt.generator,
        pieces=learnt.prompted.pieces(QUERIES),
        pairs=[
            QuerySidPairs(TRAIN[:, 0], sids[TRAIN[:, 1]]),
            of_beams(beams),
            of_near(near.items, sids),
        ],
    )
    catalogue.write_catalogue(
        path / manifest.catalogue_folder,
        items=item_parts.of_tables(
            lambda: iter([table[:25], table[25:]]),
            numbers=("price",),
            processor=processor,
            language="en",
        ),
        vectors=catalogue.row_blocks(of_items, rows=25),
        sids=sids,
        trie=trie,
        voters=voters_of(TRAIN, vectors=of_queries, judged=near.judged),
        queries=[(QUERIES, Cached(of_queries, beams, near.items, near.queries, known))],
    )
    opened = bundle.Bundle(path=path, manifest=manifest)
    if whole:
        forms = manifest.settings.trie
        programs = stablehlo.programs_of(learnt, beams=BEAMS, forms=forms)
        stablehlo.write_programs(path / bundle.MODEL, programs)
        onnx_head.write_heads(path / bundle.MODEL, learnt.heads)
        xgboost_head.write_heads(path / bundle.MODEL, learnt.heads)
        saved_model.write_saved_model(path / manifest.saved_model_folder, opened, programs=programs)
    else:
        write_variables(path / manifest.saved_model_folder, opened)
    bundle.seal_bundle(path, manifest)
    return path


def untrained(processor, *, prompt=QUERY, own=None, in_lists=(), reads=("beams", "neighbour_sids")):
    """Returns models with random parameters, of a language model where it has its vocabulary."""
    size = processor.vocab_size()
    tower = TextTower(vocab_size=size, dim=DIM, hidden_dim=8)
    shared = {"emb_dim": 16, "num_heads": 2, "head_dim": 8, "mlp_dim": 16}
    config = (
        T5Config(**shared, num_encoder_layers=1, num_decoder_layers=1)
        if own is None
        else DecoderConfig(**shared, num_kv_heads=1, num_layers=1, scan_layers=False)
    ).fitted_to(text_vocab_size=size if own is None else own.size, sid_sizes=SIZES)
    shape = {"levels": 3, "numbers": ["price"]}
    dense = [name for group in groups.reading("pairs") for name in group.described(**shape)]
    of_sids = [group.described(**shape) for group in groups.reading(*reads)]
    return models.Models(
        encoder=towers.TwoTowers.restored(
            {
                "module": {"vocab_size": size, "dim": DIM, "hidden_dim": 8},
                "max_query_pieces": 8,
                "max_item_pieces": 16,
            },
            params=towers.first_params(tower, seed=1),
            vocabulary=processor,
            folder=None,
        ),
        generator=generators.FittedGenerator(
            config=config,
            params=jax.device_get(init_params(config, seed=2)),
            max_pieces=PIECES,
            sid_version="v",
            prompt=prompt,
        ),
        heads={
            manifests.FULL: random_head(
                [*dense, *itertools.chain(*of_sids)], seed=3, in_lists=in_lists
            ),
            manifests.DENSE_ONLY: random_head(dense, seed=5, in_lists=in_lists),
        },
        vocabulary=processor,
        generators_own=own,
    )


def random_head(columns, *, seed, in_lists=()):
    head = Mlp(hidden=(8,))
    inputs = len(columns) + 2 * len(in_lists)
    zeros = jnp.zeros((1, inputs))
    params = network(head, grades=2).init(jax.random.key(seed), zeros)["params"]
    spread = jax.tree.map(
        lambda array: array + 0.1 * np.sin(np.arange(array.size)).reshape(array.shape), params
    )
    return heads.FittedHead(
        head=head,
        features=tuple(columns),
        gains=(0.0, 1.0),
        relevant=(False, True),
        params=MlpParams(
            network=jax.device_get(spread),
            mean=np.zeros(inputs, np.float32),
            scale=np.ones(inputs, np.float32),
        ),
        curve=divided_by(2.0),
        in_lists=tuple(in_lists),
    )


def random_trees(columns, *, seed):
    """Returns a head of trees with three leaves, whose splits are at random."""
    head = BoostedTrees(trees=20, leaves=3)
    random = np.random.default_rng(seed)
    splits, leaves = (20, 1, 2), (20, 1, 3)
    params = TreeParams(
        feature=random.integers(0, len(columns), splits).astype(np.int32),
        threshold=random.normal(size=splits).astype(np.float32),
        # Right of the first split are the leaves two and three, of the second three alone.
        kept=~np.broadcast_to(np.array([1, 2], np.uint32), splits),
        value=random.normal(size=leaves, scale=0.3).astype(np.float32),
        baseline=np.array([-0.3], np.float32),
    )
    return heads.FittedHead(
        head=head,
        features=tuple(columns),
        gains=(0.0, 1.0),
        relevant=(False, True),
        params=params,
        curve=divided_by(2.0),
    )


def random_quantizer():
    random = np.random.default_rng(4)
    words = [
        random.normal(size=(size, DIM)).astype(np.float32) / (2 + level)
        for level, size in enumerate(SIZES)
    ]
    return quantizers.FittedQuantizer(
        config=QuantizerConfig(codebook_sizes=SIZES, kind=ResidualKmeans()),
        dim=DIM,
        params={},
        codebooks=tuple(
            Codebook(codewords=of, count=np.ones(len(of), np.float32), total=of) for of in words
        ),
    )


def write_variables(place, opened):
    """Writes a SavedModel that holds what an update exchanges, and runs nothing."""
    import tensorflow as tf

    module = tf.Module()
    arrays = saved_model.of_catalogue(opened.catalogue)
    module.catalogue = jax.tree.map(
        lambda array: tf.Variable(np.asarray(array), shape=tf.TensorShape(None)), arrays
    )
    module.kept = tf.Variable([1.0, 2.0])
    tf.saved_model.save(module, str(place))
