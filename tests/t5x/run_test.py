"""T5X's programs, run through gin as a user runs them, and what they leave behind."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.core import unfreeze

from dsirm_jax.data import tasks, vocabulary
from dsirm_jax.generator.architectures.t5 import T5Config
from dsirm_jax.generator.decoding import beam_search
from dsirm_jax.generator.losses import GeneratorObjective
from dsirm_jax.generator.train import train
from dsirm_jax.io.errors import InputError
from dsirm_jax.sids import codes, trie
from dsirm_jax.training.settings import Training

pytestmark = pytest.mark.usefixtures("t5x")
SIZES, LENGTHS = (3, 4, 4), {"inputs": 6, "targets": 3}


@pytest.fixture(scope="module")
def config(shop):
    """What the gin files make of the shop."""
    return T5Config(
        emb_dim=16,
        num_heads=2,
        head_dim=8,
        mlp_dim=32,
        num_encoder_layers=2,
        num_decoder_layers=2,
        text_vocab_size=vocabulary.size(shop / "vocabulary.model"),
        sid_sizes=SIZES,
    )


@pytest.fixture(scope="module")
def table(shop):
    return codes.read_sids(shop / "sids.parquet").sids


def arguments(shop, table):
    return {
        "tfds_dir": shop / "tfds",
        "vocabulary": shop / "vocabulary.model",
        "sids": table,
        "sizes": SIZES,
    }


def own_batches(shop, table, *, start=0, rows=8):
    drawn = tasks.batches(
        task=tasks.text_sid(**arguments(shop, table), title_rate=0.5),
        lengths=LENGTHS,
        batch_size=rows,
        seed=0,
        start_step=start,
    )
    return map(tasks.generator_features, drawn)


def search(params, config, table, queries, shop, *, beams):
    """This package's own predictions of texts: codes and scores, best first."""
    pieces = vocabulary.text_pieces(shop / "vocabulary.model", queries)
    length = LENGTHS["inputs"]
    tokens = np.asarray([(piece + [0] * length)[:length] for piece in pieces], np.int32)
    found = beam_search(params, trie.build(table, sizes=SIZES), tokens, config=config, beams=beams)
    return np.asarray(found.sids), np.asarray(found.log_probs)


def assert_trees_equal(tree, other):
    jax.tree.map(np.testing.assert_array_equal, unfreeze(tree), unfreeze(other))


def restored(path, config, shop, table):
    """What T5X itself restores from a checkpoint."""
    from t5x import partitioning, utils

    from dsirm_jax.generator.t5x_model import SidGenerator

    model = SidGenerator(
        config=config,
        vocabulary=shop / "vocabulary.model",
        sids=table,
        sizes=SIZES,
        optimizer_def=None,
        objective=GeneratorObjective(),
    )
    partitioner = partitioning.PjitPartitioner(
        model_parallel_submesh=(1, 1),
        logical_axis_rules=partitioning.standard_logical_axis_rules(),
    )
    initializer = utils.TrainStateInitializer(
        optimizer_def=None,
        init_fn=model.get_initial_variables,
        input_shapes={"encoder_input_tokens": (8, 6), "decoder_input_tokens": (8, 3)},
        partitioner=partitioner,
    )
    state, _ = utils.create_checkpoint_manager_and_restore(
        initializer,
        partitioner,
        utils.RestoreCheckpointConfig(
            path=str(path),
            mode="specific",
            dtype="float32",
            strict=False,
        ),
        str(path),
        None,
        use_orbax=True,
    )
    return state


def test_weights_of_rows_reach_t5x_from_tasks_and_mixtures(shop, table):
    import seqio

    from dsirm_jax.generator.t5x_model import SidFeatureConverter

    task = tasks.query_sid(**arguments(shop, table))
    rows = tasks.num_rows(task)

    def read(task, *, epochs):
        return seqio.get_dataset(
            mixture_or_task_name=task,
            task_feature_lengths=LENGTHS,
            dataset_split="train",
            shuffle=False,
            num_epochs=epochs,
            feature_converter=SidFeatureConverter(pack=False),
            batch_size=rows,
        ).as_numpy_iterator()

    def ordered(batch):
        names = ("encoder_input_tokens", "decoder_target_tokens", "decoder_loss_weights")
        return sorted(zip(*(map(tuple, np.asarray(batch[name]).tolist()) for name in names)))

    found = next(read(task, epochs=1))
    batch = next(tasks.batches(task=task, lengths=LENGTHS, batch_size=rows, seed=0))
    assert ordered(found) == ordered(tasks.generator_features(batch))
    assert len(np.unique(found["decoder_loss_weights"])) > 2
    np.testing.assert_array_equal(found["decoder_input_tokens"][:, 0], 0)
    np.testing.assert_array_equal(
        found["decoder_input_tokens"][:, 1:], found["decoder_target_tokens"][:, :-1]
    )
    mixture = tasks.text_sid(**arguments(shop, table), title_rate=0.5)
    mixed = next(read(mixture, epochs=None))["decoder_loss_weights"]
    weights = set(np.unique(found["decoder_loss_weights"])) | {np.float32(1)}
    assert set(np.unique(mixed)) <= weights and len(np.unique(mixed)) > 2


def test_rows_without_weight_count_one_and_nothing_is_packed():
    import tensorflow as tf

    from dsirm_jax.generator.t5x_model import SidFeatureConverter

    rows = tf.data.Dataset.from_tensors({"inputs": [5, 6], "targets": [7, 8, 9]})
    (row,) = SidFeatureConverter(pack=False)(rows, LENGTHS).as_numpy_iterator()
    np.testing.assert_array_equal(row["decoder_loss_weights"], np.ones(3, np.float32))
    with pytest.raises(InputError, match="pack = False"):
        SidFeatureConverter(pack=True)


def test_the_loss_falls_in_twenty_steps_under_t5x(trained, shop, table, config):
    from dsirm_jax.generator.t5x_model import import_checkpoint
    from dsirm_jax.generator.train import batch_loss

    before = import_checkpoint(trained.parent / "checkpoint_0", config=config)
    after = import_checkpoint(trained, config=config)
    batch = next(own_batches(shop, table, rows=32))
    losses = [
        batch_loss(p, batch, config=config, objective=GeneratorObjective())[0]
        for p in (before, after)
    ]
    assert losses[1] < 0.95 * losses[0]


def test_a_checkpoint_of_t5x_is_restored_here(trained, shop, table, config):
    from dsirm_jax.generator.t5x_model import import_checkpoint

    params = import_checkpoint(trained, config=config)
    assert_trees_equal(params, restored(trained, config, shop, table).params)
    with pytest.raises(InputError, match="not of a model of this shape"):
        import_checkpoint(trained, config=T5Config(**(vars(config) | {"mlp_dim": 64})))
    with pytest.raises(InputError, match="no checkpoint of a generator"):
        import_checkpoint(trained.parent / "checkpoint_7", config=config)


@pytest.fixture(scope="module")
def exported(shop, table, config, tmp_path_factory):
    """Returns parameters of three steps of our own trainer, and their checkpoint as one of T5X."""
    from dsirm_jax.generator.t5x_model import export_checkpoint

    folder = tmp_path_factory.mktemp("own")
    params = train(
        config=config,
        objective=GeneratorObjective(),
        training=Training(epochs=1, batch_size=8, learning_rate=1e-2),
        batches=lambda start: own_batches(shop, table, start=start),
        num_rows=24,
        directory=folder,
        seed=0,
        devices=jax.devices()[:1],
    )
    return params, export_checkpoint(folder / "checkpoints/3", directory=folder / "t5x")


def test_a_checkpoint_of_this_package_is_restored_by_t5x(exported, shop, table, config):
    from dsirm_jax.generator.t5x_model import export_checkpoint, import_checkpoint

    params, path = exported
    assert path.name == "checkpoint_3"
    state = restored(path, config, shop, table)
    assert_trees_equal(state.params, params)
    assert int(state.step) == 3
    assert_trees_equal(import_checkpoint(path, config=config), params)
    own = path.parents[1] / "checkpoints/3"
    with pytest.raises(InputError, match="exists"):
        export_checkpoint(own, directory=path.parent)
    with pytest.raises(InputError, match="no good checkpoint"):
        export_checkpoint(own.with_name("4"), directory=path.parent)


def test_t5x_trains_on_from_a_checkpoint_of_this_package(exported, shop, config, t5x_run):
    from dsirm_jax.generator.t5x_model import import_checkpoint

    params, path = exported
    t5x_run(
        "train",
        "gin/t5x/start.gin",
        INITIAL_CHECKPOINT_PATH=str(path),
        TFDS_DIR=str(shop / "tfds"),
        MODEL_DIR=str(shop / "continued"),
        TRAIN_STEPS=5,
        BATCH_SIZE=8,
    )
    assert_trees_equal(import_checkpoint(shop / "continued/checkpoint_3", config=config), params)
    assert (shop / "continued/checkpoint_5").is_dir()


def test_inference_gives_existing_sids_as_this_package_does(exported, shop, table, config, t5x_run):
    params, path = exported
    t5x_run(
        "infer",
        CHECKPOINT_PATH=str(path),
        INFER_OUTPUT_DIR=str(shop / "inferred"),
        QUERIES=str(shop / "queries.txt"),
    )
    (file,) = (shop / "inferred").glob("queries-*.jsonl-00000-of-00001")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    queries = Path(shop / "queries.txt").read_text().splitlines()
    assert [line["inputs"]["inputs_pretokenized"] for line in lines] == queries
    tokens = np.asarray([line["prediction"] for line in lines])  # [query, beam, level]
    sids = codes.from_tokens(tokens, sizes=SIZES, text_vocab_size=config.text_vocab_size)
    assert sids.shape == (len(queries), 4, 3)
    assert trie.contains(trie.build(table, sizes=SIZES), sids).all()
    scores = np.asarray([line["aux"]["scores"] for line in lines])
    expected, log_probs = search(params, config, table, queries, shop, beams=4)
    np.testing.assert_array_equal(sids[:, ::-1], expected)
    np.testing.assert_allclose(scores[:, ::-1], log_probs, rtol=1e-5)


def test_evaluation_is_the_prefix_accuracy_of_relevant_test_pairs(
    exported, shop, table, config, t5x_run
):
    import pyarrow.parquet as pq

    params, path = exported
    t5x_run(
        "eval",
        CHECKPOINT_PATH=str(path),
        EVAL_OUTPUT_DIR=str(shop / "evaluated"),
        TFDS_DIR=str(shop / "tfds"),
    )
    (file,) = (shop / "evaluated/inference_eval").rglob("*metrics.jsonl")
    measured = json.loads(file.read_text().splitlines()[-1])
    pairs = pq.read_table(shop / "examples.parquet").to_pylist()
    pairs = [pair for pair in pairs if pair["split"] == "test" and pair["relevant"]]
    found, _ = search(params, config, table, [p["query"] for p in pairs], shop, beams=4)
    same = found[:, 0] == table[[pair["item_index"] for pair in pairs]]
    assert 0 < same[:, 0].mean() < 1
    for depth in (1, 2, 3):
        expected = same[:, :depth].all(axis=1).mean()
        np.testing.assert_allclose(measured[f"prefix_{depth}"], expected)
