import dataclasses
import os
import shutil
from pathlib import Path

import jax
import pytest
from flax import traverse_util

from dsirm_jax.encoder.kinds.precomputed import Precomputed
from dsirm_jax.encoder.kinds.pretrained import Pretrained, load_encoder
from dsirm_jax.encoder.kinds.protocol import DenseEncoder
from dsirm_jax.encoder.kinds.towers import TwoTowers
from dsirm_jax.io import storage
from dsirm_jax.io.errors import InputError
from dsirm_jax.training.settings import Training

BERT = Path(__file__).parents[1] / "golden" / "bert"
TRAINING = Training(epochs=1, batch_size=8, learning_rate=0.1)
TOWERS = TwoTowers(
    dim=8,
    hidden_dim=8,
    max_query_pieces=4,
    max_item_pieces=6,
    temperature=0.1,
    training=TRAINING,
)
PRETRAINED = Pretrained(
    folder=str(BERT), max_query_pieces=8, max_item_pieces=10, training=TRAINING, dim=16
)
VECTORS = Precomputed(items="i", queries="q")
NAN = float("nan")


WHOLE, NUMBER = "a whole number of at least 1", "a number above 0, finite"
REFUSED = [
    (TOWERS, "dim", 0, WHOLE),
    (TOWERS, "hidden_dim", 2.5, WHOLE),
    (TOWERS, "max_query_pieces", 0, WHOLE),
    (TOWERS, "max_item_pieces", True, WHOLE),
    (TOWERS, "temperature", 0.0, NUMBER),
    (TOWERS, "temperature", NAN, NUMBER),
    (TOWERS, "temperature", "0.1", NUMBER),
    (PRETRAINED, "folder", "", "a text that is not empty"),
    (PRETRAINED, "folder", None, "a text that is not empty"),
    (PRETRAINED, "dim", 0, WHOLE),
    (PRETRAINED, "max_query_pieces", -1, WHOLE),
    (PRETRAINED, "max_item_pieces", None, WHOLE),
    (PRETRAINED, "hard_negatives", -1, "a whole number of at least 0"),
    (PRETRAINED, "temperature", float("inf"), NUMBER),
    (PRETRAINED, "dtype", "float16", "'float32' or 'bfloat16'"),
    (VECTORS, "items", "", "a text that is not empty"),
    (VECTORS, "queries", ("a", "b"), "a text that is not empty"),
]


@pytest.mark.parametrize(
    ("settings", "name", "value", "wanted"),
    REFUSED,
    ids=[f"{type(settings).__name__}.{name} {value!r}" for settings, name, value, _ in REFUSED],
)
def test_settings_that_make_no_sense_name_their_binding(settings, name, value, wanted):
    with pytest.raises(InputError) as raised:
        dataclasses.replace(settings, **{name: value})
    binding = f"{type(settings).__name__}.{name}"
    assert str(raised.value) == f"gin binding {binding} is {value!r}; bind {wanted}"


def test_every_kind_keeps_the_protocol():
    for encoder in (TOWERS, PRETRAINED, VECTORS):
        assert isinstance(encoder, DenseEncoder)


def test_a_folder_that_is_missing_names_its_binding():
    missing = dataclasses.replace(PRETRAINED, folder="no/such/folder")
    with pytest.raises(InputError, match="gin binding Pretrained.folder is 'no/such/folder'"):
        missing.files()


def test_a_text_has_room_for_more_than_the_marks_around_it():
    for name in ("max_query_pieces", "max_item_pieces"):
        with pytest.raises(InputError, match=f"Pretrained.{name} = 2: .* puts 2 marks"):
            load_encoder(dataclasses.replace(PRETRAINED, **{name: 2}), folder=BERT)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.txt"])
def test_new_contents_of_the_folder_are_noticed(name, tmp_path):
    folder = shutil.copytree(BERT, tmp_path / "bert")
    encoder = dataclasses.replace(PRETRAINED, folder=str(folder))

    def versions():
        return {file: storage.version(file) for file in encoder.files()}

    before = versions()
    os.utime(folder / name, ns=(1, 1))  # touched, and the same
    assert versions() == before
    contents = (folder / name).read_bytes()
    (folder / name).write_bytes(contents[:-1] + bytes([contents[-1] ^ 1]))
    os.utime(folder / name, ns=(1, 1))
    assert versions() != before
    # What is read if it is there counts once it is there.
    before = versions()
    (folder / "config_sentence_transformers.json").write_text('{"prompts": {"query": "q: "}}')
    assert versions().keys() - before.keys()


def test_vectors_in_a_folder_that_looks_like_a_pattern_are_noticed(tmp_path):
    folder = tmp_path / "[new]"
    folder.mkdir()
    for name in ("items-0.parquet", "items-1.parquet", "queries.parquet"):
        (folder / name).write_bytes(b"")
    encoder = Precomputed(
        items=str(folder / "items-*.parquet"), queries=str(folder / "queries.parquet")
    )
    assert [Path(file).name for file in encoder.files()] == [
        "items-0.parquet",
        "items-1.parquet",
        "queries.parquet",
    ]
    with pytest.raises(InputError, match="no such file; bind the path of your vectors"):
        dataclasses.replace(encoder, items=str(folder / "others-*.parquet")).files()


@pytest.mark.parametrize(
    ("encoder", "parameters", "features"),
    [
        (
            TOWERS,
            {"embedding/embedding": (50, 8), "importance/embedding": (50, 1)},
            ((8, 4), (8, 6)),
        ),
        (PRETRAINED, {"kernel": (16, 16)}, ((8, 16), (8, 16))),
        (
            dataclasses.replace(PRETRAINED, frozen=False, dim=None, hard_negatives=3),
            {"bert/norm/scale": (16,)},
            ((8, 8), (8, 10)),
        ),
    ],
    ids=["towers", "projection", "fine-tuned"],
)
def test_the_step_compiled_ahead_is_for_the_batches_of_training(encoder, parameters, features):
    step, (state, batch) = encoder.training_step(
        devices=jax.devices()[:2], vocab_size=50, rows=1000
    )
    assert (batch["query"].shape, batch["item"].shape) == features
    if encoder is TOWERS:
        spec = encoder.batch_spec()
    else:
        spec = encoder.batch_spec(load_encoder(encoder, folder=BERT))
    assert {name: (like.shape, like.dtype) for name, like in spec.items()} == {
        name: (like.shape, like.dtype) for name, like in batch.items()
    }
    assert ("negative" in batch) == bool(getattr(encoder, "hard_negatives", 0))
    flat = traverse_util.flatten_dict(state.params["params"], sep="/")
    shapes = {name: array.shape for name, array in flat.items()}
    assert parameters.items() <= shapes.items()
    step.lower(state, batch)


def test_nothing_is_compiled_where_nothing_is_trained():
    nothing = dataclasses.replace(TRAINING, epochs=0)
    for encoder in (TOWERS, PRETRAINED):
        still = dataclasses.replace(encoder, training=nothing)
        assert still.training_step(devices=[], vocab_size=50, rows=10) is None
        assert still.made_once == (encoder is PRETRAINED)
    assert VECTORS.training_step(devices=[], vocab_size=50, rows=10) is None
    assert not VECTORS.made_once and VECTORS.dim is None
