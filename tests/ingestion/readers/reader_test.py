"""A reader of a user's own is one file and a line of gin."""

from __future__ import annotations

import json
import sys

import pyarrow.parquet as pq
import pytest

from dsirm_jax import cli
from dsirm_jax.ingestion.readers.database import Database
from dsirm_jax.ingestion.readers.esci import Esci
from dsirm_jax.ingestion.readers.reader import Reader
from dsirm_jax.ingestion.readers.simulated_shop import SimulatedShop
from dsirm_jax.ingestion.readers.tables import Tables
from dsirm_jax.ingestion.readers.wands import Wands
from dsirm_jax.io.errors import InputError

LOG_READER = '''
import dataclasses
import functools
import json
from pathlib import Path

import pyarrow as pa

from dsirm_jax.data.schema import Chunk, Source
from dsirm_jax.io.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogReader:
    """A shop's own dump: {"catalogue": {sku: name}, "clicks": [[query, sku, shown, clicks]]}."""

    path: str
    least_clicks: int = 0

    def __post_init__(self):
        if self.least_clicks < 0:
            raise InputError("gin binding LogReader.least_clicks is negative; bind 0 or more")

    def files(self):
        return [self.path]

    def read(self):
        return Source(
            items=[functools.partial(self.chunks, "catalogue")],
            judgements=[functools.partial(self.chunks, "clicks")],
        )

    def chunks(self, name):
        rows = json.loads(Path(self.path).read_text())[name]
        if name == "catalogue":
            columns = {"item_id": list(rows), "title": list(rows.values())}
        else:
            rows = [row for row in rows if row[3] >= self.least_clicks]
            columns = dict(zip(("query", "item_id", "impressions", "clicks"), zip(*rows)))
        yield Chunk(table=pa.table(columns), file=self.path)
'''
GIN = """
from __gin__ import dynamic_registration
import log_reader
from dsirm_jax.run import job
from dsirm_jax.stages import prepare

include 'gin/models/tiny.gin'
include 'gin/runs/job.gin'

RELEVANT_LABELS = ('1',)
LABEL_GAINS = {'0': 0.0, '1': 1.0}
prepare.run.source = @log_reader.LogReader()
log_reader.LogReader.path = %DUMP
DUMP = %gin.REQUIRED
"""


@pytest.fixture
def folder(tmp_path):
    """A folder that modules are imported from."""
    sys.path.insert(0, str(tmp_path))
    yield tmp_path
    sys.path.remove(str(tmp_path))
    sys.modules.pop("log_reader", None)


def dsirm_prepare(folder, *flags):
    return cli.main(
        [
            "prepare",
            f"--gin_file={folder / 'log.gin'}",
            f"--gin.DUMP='{folder / 'dump.json'}'",
            f"--gin.MODEL_DIR='{folder / 'run'}'",
            "--gin.prepare.run.vocabulary_size=300",
            "--gin.prepare.run.workers=1",
            *flags,
        ]
    )


def test_a_reader_of_another_module_feeds_stage_prepare(folder, capsys):
    (folder / "log_reader.py").write_text(LOG_READER)
    (folder / "log.gin").write_text(GIN)
    catalogue = {f"sku {number}": f"red shoe number {number}" for number in range(40)}
    clicks = [
        [f"shoe {query}", f"sku {item}", 31, 15 if item == query else 0]
        for query in range(20)
        for item in (query, query + 20)
    ]
    (folder / "dump.json").write_text(json.dumps({"catalogue": catalogue, "clicks": clicks}))

    assert dsirm_prepare(folder) == 0
    items = pq.read_table(folder / "run/prepare/items.parquet")
    assert dict(zip(items["item_id"].to_pylist(), items["title"].to_pylist())) == catalogue
    pairs = pq.read_table(folder / "run/prepare/judgements.parquet").to_pylist()
    # A clicked pair weighs log2(1 + clicks), one shown in vain log2(1 + impressions).
    expected = {(query, item): 4.0 if count else 5.0 for query, item, _, count in clicks}
    assert {(row["query"], row["item_id"]): row["weight"] for row in pairs} == expected
    record = json.loads((folder / "run/prepare/stage.json").read_text())
    assert record["bindings"]["source"] == {
        "": "LogReader",
        "path": str(folder / "dump.json"),
        "least_clicks": 0,
    }
    # The file's contents are part of the stage's fingerprint.
    assert list(record["bindings"]["files"]) == [str(folder / "dump.json")]

    assert dsirm_prepare(folder, "--gin.log_reader.LogReader.least_clicks=-1") == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message == "dsirm: gin binding LogReader.least_clicks is negative; bind 0 or more"


@pytest.mark.parametrize(
    "reader",
    [
        SimulatedShop(),
        Esci(data_dir="esci"),
        Wands(data_dir="wands"),
        Tables(items="items.csv", judgements="judgements.csv"),
        Database(url="duckdb://shop.ddb", items="items", judgements="judgements"),
    ],
    ids=lambda reader: type(reader).__name__,
)
def test_all_readers_are_readers(reader):
    assert isinstance(reader, Reader)


GOOD = {
    Esci: {"data_dir": "esci"},
    Wands: {"data_dir": "wands"},
    Tables: {"items": "items.csv", "judgements": "judgements.csv"},
    Database: {"url": "duckdb://shop.ddb", "items": "items", "judgements": "judgements"},
}


@pytest.mark.parametrize(
    ("kind", "setting", "value"),
    [
        (Esci, "data_dir", ""),
        (Esci, "data_dir", None),
        (Esci, "locale", ""),
        (Esci, "locale", 1),
        (Esci, "version", "tiny"),
        (Esci, "drop_task_overlap", "yes"),
        (Wands, "data_dir", " "),
        (Wands, "data_dir", 1),
        (Tables, "items", ""),
        pytest.param(Tables, "items", (), id="Tables no items"),
        pytest.param(Tables, "items", ("items.csv", None), id="Tables items with None"),
        (Tables, "judgements", None),
        *(
            pytest.param(kind, name, value, id=f"{kind.__name__} {name} {what}")
            for kind in (Tables, Database)
            for name, value, what in [
                ("item_columns", {"titel": "name"}, "unknown"),
                ("item_columns", {"title": ""}, "empty"),
                ("item_columns", ("title", "name"), "tuple"),
                ("judgement_columns", {"grade": "grade"}, "unknown"),
                ("judgement_columns", {"label": None}, "none"),
                ("extra_columns", {"price": "money"}, "type"),
                ("extra_columns", {"Title": "string"}, "name"),
                ("extra_columns", {"price": 64}, "number"),
                ("category_separator", "", "empty"),
                ("category_separator", 3, "separator number"),
                ("category_list_separator", "", "list empty"),
            ]
        ),
        (Database, "url", ""),
        (Database, "items", "  "),
        (Database, "judgements", None),
    ],
)
def test_settings_that_are_not_legal_are_named(kind, setting, value):
    with pytest.raises(InputError, match=rf"^gin binding {kind.__name__}\.{setting}\b") as error:
        kind(**(GOOD[kind] | {setting: value}))
    assert "\n" not in str(error.value)
    assert "; " in str(error.value)  # then what to bind
