"""CONTRIBUTING.md is true: its examples are what they are called, its files exist."""

import itertools
import re
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.commands.command import Command
from dsirm_jax.encoder.kinds.protocol import DenseEncoder, FittedEncoder
from dsirm_jax.generator.architectures.architecture import Architecture
from dsirm_jax.ingestion.formats.file_starts import file_start
from dsirm_jax.ingestion.judgement_files.kind import JudgementKind
from dsirm_jax.ingestion.readers.reader import Reader
from dsirm_jax.quantizer import QuantizerConfig, Training, TrainingItems, assign_vectors, train
from dsirm_jax.quantizer.kinds.kind import Kind
from dsirm_jax.relevance.features.group import Group
from dsirm_jax.relevance.heads.head import Head
from dsirm_jax.relevance.neighbours import Judged
from dsirm_jax.relevance.pairs import LabelledPairs
from dsirm_jax.run.layout import Layout

TEXT = Path("CONTRIBUTING.md").read_text("utf-8")
SOURCES = {
    Path(name).stem: source
    for name, source in re.findall(r"```python\n# (\S+)\n(.*?)```", TEXT, flags=re.DOTALL)
}


@pytest.fixture
def example(request):
    """The module of an example, whose name is the parameter."""
    module = types.ModuleType(request.param)
    sys.modules[request.param] = module  # dataclasses look there for the names of annotations
    exec(SOURCES[request.param], vars(module))
    yield module
    del sys.modules[request.param]


def of(name):
    return pytest.mark.parametrize("example", [name], indirect=True)


def test_every_example_is_tried_here():
    tried = re.findall(r'^@of\("(\w+)"\)', Path(__file__).read_text("utf-8"), flags=re.MULTILINE)
    assert sorted(tried) == sorted(SOURCES)


def test_files_exist():
    named = re.findall(r"\]\(((?!http)[^)#]+)\)", TEXT)
    assert len(named) > 20
    assert [path for path in named if not Path(path).exists()] == []


@of("signs")
def test_a_quantizer_gives_codes(example):
    kind = example.Signs(scale=0.5)
    assert isinstance(kind, Kind)
    vectors = np.array([[1, -2, 0], [-1, 3, 0]], "f4")
    fitted = train(
        config=QuantizerConfig(codebook_sizes=(2, 2), kind=kind),
        items=TrainingItems(items=vectors),
        training=Training(epochs=0, batch_size=1, learning_rate=0.0),
    )
    codes = assign_vectors(fitted=fitted, vectors=vectors).codes
    np.testing.assert_array_equal(codes, [[1, 0], [0, 1]])


@of("shop_head")
def test_a_head_learns(example):
    head = example.NearestMean(sharpness=1.0)
    assert isinstance(head, Head)
    features = np.array([[0.0], [2.0], [4.0]], "f4")
    labels = np.array([False, False, True])
    pairs = LabelledPairs(
        features=features,
        labels=labels,
        grades=labels.astype(np.int32),
        gains=labels.astype("f4"),
        weights=np.ones(3, "f4"),
        queries=np.arange(3, dtype=np.int32),
        relevant=(False, True),
    )
    params = head.fit(pairs, None)
    # The means are 1 and 4: (3 − 1)² − (3 − 4)² = 3.
    np.testing.assert_allclose(head.outputs(params, np.array([[3.0]]), grades=2), [[3.0]])


@of("my_features")
def test_a_group_counts(example):
    group = example.group()
    assert isinstance(group, Group)
    judged = Judged(np.array([[0, 2], [2, 1]]), np.array([[1.0, 1.0], [1.0, -1.0]]))
    context = types.SimpleNamespace(
        surroundings=types.SimpleNamespace(judged=judged),
        item_vectors=np.zeros((4, 2)),
        item_index=np.array([0, 1, 2, 3, 2]),
    )
    assert group.compute(context).tolist() == [[1], [0], [2], [0], [2]]


@of("hashed_words")
def test_an_encoder_counts_words(example):
    encoder = example.HashedWords(dim=8)
    assert isinstance(encoder, DenseEncoder) and isinstance(encoder, FittedEncoder)
    vectors = encoder.embed(["red shoe", "shoe red", "mug"])
    np.testing.assert_array_equal(vectors[0], vectors[1])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    again = example.HashedWords.restored(
        encoder.described(), params={}, vocabulary=None, folder=None
    )
    assert again == encoder


@of("bag_of_pieces")
def test_an_architecture_is_a_distribution_over_sids(example):
    sizes = (2, 3)
    config = example.BagOfPieces(dim=4).fitted_to(text_vocab_size=5, sid_sizes=sizes)
    assert isinstance(config, Architecture)
    params = config.init(jax.random.key(0))
    assert jax.tree.structure(params) == jax.tree.structure(config.logical_axes())
    every = np.array([[*itertools.product(*map(range, sizes))]])
    logits = config.teacher_forced(params, np.array([[3, 1, 0]]), every)
    logs = [np.asarray(jax.nn.log_softmax(level)) for level in logits]
    total = sum(
        np.exp(logs[0][0, row, first] + logs[1][0, row, second])
        for row, (first, second) in enumerate(every[0])
    )
    assert total == pytest.approx(1, abs=1e-5)


@of("log_reader")
def test_a_reader_reads(example, tmp_path):
    path = tmp_path / "dump.json"
    path.write_text('{"catalogue": {"a": "shoe"}, "clicks": [["red", "a", 9, 2]]}')
    reader = example.LogReader(path=str(path))
    assert isinstance(reader, Reader)
    source = reader.read()
    (items,), (judgements,) = (list(part()) for part in (*source.items, *source.judgements))
    assert items.table.to_pylist() == [{"item_id": "a", "title": "shoe"}]
    assert judgements.table.to_pylist() == [
        {"query": "red", "item_id": "a", "impressions": 9, "clicks": 2}
    ]


@of("starred")
def test_a_layout_is_read(example, tmp_path):
    kind = example.Starred()
    assert isinstance(kind, JudgementKind)
    path = tmp_path / "judged.txt"
    path.write_text("a <- red shoe *\nb <- red shoe\nblue\n")
    assert not kind.recognises(file_start(str(path)))
    (part,), findings = kind.read([str(path)], queries=[])
    (chunk,) = part()
    assert [[*row.values()] for row in chunk.table.to_pylist()] == [
        [b"red shoe", b"a", b"1"],
        [b"red shoe", b"b", b"0"],
        [None, None, None],
    ]
    assert (chunk.unreadable, findings) == ({2: ("blue", "no <-")}, [])


def write(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


@of("popular")
def test_a_stage_writes_its_table(example, tmp_path):
    layout = Layout(model_dir=tmp_path)
    write(layout.judgements, item_id=["b", "a", "b", "c"])
    layout.stage("popular").mkdir()
    assert example.STAGE.function is example.run
    example.run(layout, most=2)
    written = pq.read_table(layout.stage("popular") / "items.parquet")
    assert written["item_id"].to_pylist() == ["b", "a"]


@of("titles")
def test_a_command_prints(example, tmp_path, capsys):
    assert isinstance(example.COMMAND, Command)
    write(Layout(model_dir=tmp_path).items, title=["shoe", "mug", "lamp"])
    values, arguments = example.COMMAND.parse([str(tmp_path), "--most=2"], shared=())
    assert example.COMMAND.run(values, arguments) == 0
    assert capsys.readouterr().out == "shoe\nmug\n"
