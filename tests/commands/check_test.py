"""`dsirm check`: what is printed of messy tables, and that the gin file it writes runs."""

from __future__ import annotations

import csv
import logging
import os
import tempfile

import pyarrow.parquet as pq
import pytest

from dsirm_jax import cli
from dsirm_jax.ingestion.prepare import prepare
from dsirm_jax.run import configuration
from dsirm_jax.run.job import Job
from dsirm_jax.stages import prepare as stage

NOUNS = ("kettle", "lamp", "mug", "pot", "rug", "sofa", "vase", "bowl")
COLOURS = ("rouge", "bleu", "vert", "noir", "brûlé")
ITEM_NAMES = ("Handle", "Title", "Body (HTML)", "Vendor", "Type", "Stock")
MAPPED = {
    "item_id": "Handle",
    "title": "Title",
    "description": "Body (HTML)",
    "brand": "Vendor",
    "category": "Type",
}


SMALL_SHOP = {"items": 300, "queries": 60}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty folder to stand in, and one for temporary files; nothing may be left in either."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    for name in ("tmp", "home", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    log = logging.getLogger("dsirm_jax")
    before = (log.handlers, log.level, log.propagate)
    yield
    log.handlers, log.level, log.propagate = before
    for name in ("tmp", "home", "here"):
        assert os.listdir(tmp_path / name) == []


def item_rows(number=40):
    """Returns a catalogue as a shop exports it."""
    return [
        (
            f"sku-{place:05}",
            f"{COLOURS[place % 5]} {NOUNS[place % 8]} {place}",
            f"une pièce en {COLOURS[place % 5]}",
            "Société Arvo" if place % 2 else "NULL",
            f"Maison > {NOUNS[place % 8]}",
            place,
        )
        for place in range(number)
    ]


def judgement_rows(items):
    """Returns the labels of three raters, of whom one is generous, for forty queries."""
    return [
        (f"{colour} {noun}", items[(place + step) % len(items)][0], label)
        for place, (colour, noun) in enumerate((c, n) for c in COLOURS for n in NOUNS)
        for step in range(3)
        for label in (step, step, 2)
    ]


def write(path, names, rows, *, delimiter=";", encoding="cp1252"):
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([names, *rows])
    return path


@pytest.fixture
def messy(tmp_path):
    """Two tables that nothing fits: semicolons, Windows-1252, other names and other labels."""
    items = item_rows()
    judgements = [*judgement_rows(items), ("vase", "sku-gone", 1)]
    return (
        write(tmp_path / "items.csv", ITEM_NAMES, items),
        write(tmp_path / "judged.csv", ("search_term", "sku", "rating"), judgements),
    )


def check(tables, *flags):
    return cli.main(["check", f"--items={tables[0]}", f"--judgements={tables[1]}", *flags])


def section(out, title):
    """Returns the lines of the output below a title."""
    lines = out.splitlines()
    start = lines.index(title) + 1
    return lines[start : lines.index("", start)]


def test_what_is_read_what_is_wrong_and_what_to_bind_are_printed(messy, capsys):
    assert check(messy) == 0
    printed = capsys.readouterr()
    out = printed.out
    assert printed.err == ""
    assert section(out, "read with these suggestions, which only you can judge:") == [
        f"  ITEM_COLUMNS = {MAPPED}",
        "  JUDGEMENT_COLUMNS = {'query': 'search_term', 'item_id': 'sku', 'label': 'rating'}",
        "  LABEL_GAINS = {'0': 0.0, '1': 0.5, '2': 1.0}",
        "  RELEVANT_LABELS = ('2',)",
    ]
    how = "\n".join(section(out, "how the tables are read:"))
    wrong = "\n".join(section(out, "what may be wrong:"))
    for table, file in (("items", messy[0]), ("judgements", messy[1])):
        assert f"  {table}: {file}: values are separated by ';'" in how + wrong
    assert "Vendor as brand, Type as category; not read: Stock" in how
    assert "cp1252" in wrong
    assert "  items: Vendor is 'NULL' in 20 of 40 rows: read as missing" in wrong
    assert "  judgements: 80 of 120 pairs have judgements that disagree" in how
    assert "  judgements: 1 of 361 judgements rejected (1 unknown item_id)" in wrong
    assert section(out, "rows that are left out:") == [
        f"  {messy[1]} row 361 column sku = 'sku-gone': unknown item_id"
    ]
    first = section(out, "the first items, as prepared:")
    assert len(first) == 3
    assert first[1] == (
        "  item_id 'sku-00001', title 'bleu lamp 1', description 'une pièce en bleu', "
        "brand 'Société Arvo', category 'Maison > lamp'"
    )
    assert len(section(out, "the first judgements, as prepared:")) == 3
    lines = out.splitlines()
    assert "items: 40 rows read, 40 kept, 0 rejected" in lines
    assert "judgements: 361 rows read, 360 kept, 1 rejected" in lines
    (queries,) = (line for line in lines if line.startswith("queries: "))
    counts = [int(word) for word in queries.split() if word.isdigit()]
    assert sum(counts) == 40 and "train" in queries and "head" in queries and "test" in queries
    assert "prepare would stop" not in out
    order = [
        "read with these suggestions",
        "how the tables are read:",
        "what may be wrong:",
        "the first items",
        "the first judgements",
        "rows that are left out:",
        "items: 40 rows",
        "a gin file to start from",
    ]
    places = [out.index(text) for text in order]
    assert places == sorted(places)


def test_where_prepare_stops_it_is_said_with_code_2(messy, tmp_path, capsys):
    strangers = write(
        tmp_path / "strangers.csv",
        ("query", "item_id", "label"),
        [(f"query {number}", f"x{number}", number % 2) for number in range(10)],
    )
    assert check((messy[0], strangers)) == 2
    printed = capsys.readouterr()
    (stop,) = (line for line in printed.out.splitlines() if line.startswith("prepare would stop: "))
    assert stop.startswith("prepare would stop: 10 of 10 judgements rejected (10 unknown item_id)")
    assert "rejected.parquet" not in printed.out and "/tmp" not in stop.replace(str(tmp_path), "")
    assert len(section(printed.out, "rows that are left out:")) == 3
    assert "a gin file to start from" in printed.out
    assert printed.err == ""


def test_the_file_that_is_written_makes_the_tables_that_were_shown(messy, tmp_path, capsys):
    draft = tmp_path / "drafts" / "mine.gin"
    flags = ["--gin.SEED=3", "--gin.prepare.run.item_copies='last'"]
    assert check(messy, f"--write={draft}", *flags) == 0
    out = capsys.readouterr().out
    assert f'dsirm run --gin_file={draft} --gin.MODEL_DIR="' in out

    configuration.parse(files=[str(draft)], bindings=[f"MODEL_DIR = '{tmp_path}/run'"])
    bound = configuration.bound(stage.run)
    assert bound["source"].item_columns == MAPPED
    assert bound["label_gains"] == {"0": 0.0, "1": 0.5, "2": 1.0}
    assert bound["relevant_labels"] == ("2",)
    assert bound["item_copies"] == "last"
    seed = configuration.bound(Job)["seed"]
    assert seed == 3

    folder = tmp_path / "prepared"
    folder.mkdir()
    bound |= {"seed": seed, "workers": 1, "vocabulary_size": 400}
    bound.pop("layout", None)
    summary = prepare(out_dir=folder, **bound)
    splits = [f"{split['queries']} {name}" for name, split in summary["queries"]["splits"].items()]
    assert f"queries: {', '.join(splits)}" in out.splitlines()
    for finding in summary["findings"]:
        assert f"  {finding['table']}: {finding['text']}".replace(
            "; all are in rejected.parquet", ""
        ) in (out.splitlines())
    shown = section(out, "the first judgements, as prepared:")
    rows = pq.read_table(folder / "judgements.parquet").to_pylist()[:3]
    assert shown == [
        f"  query {row['query']!r}, item_id {row['item_id']!r}, label {row['label']!r}, "
        f"relevant {str(row['relevant'])!r}, split {row['split']!r}"
        for row in rows
    ]


def test_the_file_that_is_written_is_one_that_prepare_takes(messy, tmp_path, monkeypatch):
    assert check(messy, f"--write={tmp_path}/mine.gin") == 0
    # Where TensorFlow and TFDS leave what they like.
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    flags = [f"--gin.MODEL_DIR='{tmp_path}/run'", "--gin.prepare.run.workers=1"]
    small = "--gin.prepare.run.vocabulary_size=400"
    assert cli.main(["prepare", f"--gin_file={tmp_path}/mine.gin", small, *flags]) == 0
    judgements = pq.read_table(tmp_path / "run/prepare/judgements.parquet")
    assert judgements.num_rows == 120


def test_grades_are_suggested_with_what_they_need(tmp_path, capsys):
    items = item_rows()
    graded = [
        (query, item, str(1 + place % 13 / 6)[:4])
        for place, (query, item, _) in enumerate(judgement_rows(items)[::3])
    ]
    tables = (
        write(tmp_path / "items.csv", ("item_id", "title", *ITEM_NAMES[2:]), items),
        write(tmp_path / "report.csv", ("query", "item_id", "label"), graded),
    )
    assert check(tables, f"--write={tmp_path}/mine.gin") == 0
    text = (tmp_path / "mine.gin").read_text()
    # A name in a path is no module's.
    assert [line for line in text.splitlines() if line.startswith("from dsirm_jax")] == [
        "from dsirm_jax.ingestion.grading import labels"
    ]
    assert "LABEL_GAINS = @labels.Grades()" in text
    assert "labels.Grades.relevant_from = 2.16" in text
    configuration.parse(files=[f"{tmp_path}/mine.gin"], bindings=["MODEL_DIR = ''"])
    labels = configuration.bound(stage.run)["label_gains"]
    assert (labels.relevant_from, labels.least, labels.most) == (2.16, 1.0, 3.0)
    assert "which only you can judge" in capsys.readouterr().out


def test_an_existing_file_is_left_as_it_is(messy, tmp_path, capsys):
    draft = tmp_path / "mine.gin"
    draft.write_text("# mine\n")
    assert check(messy, f"--write={draft}") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"dsirm: --write: {draft} exists; name a new file\n"
    assert draft.read_text() == "# mine\n"


def test_what_is_bound_is_not_suggested_otherwise(messy, tmp_path, capsys):
    gains = "--gin.LABEL_GAINS={0: 0.0, 1: 0.3, 2: 1.0}"
    bound = [gains, "--gin.RELEVANT_LABELS=(1, 2)", "--gin.ITEM_COLUMNS={'title': 'Type'}"]
    assert check(messy, *bound, f"--write={tmp_path}/mine.gin") == 0
    suggested = "\n".join(
        section(capsys.readouterr().out, "read with these suggestions, which only you can judge:")
    )
    assert "LABEL" not in suggested
    assert "ITEM_COLUMNS = {'title': 'Type', 'item_id': 'Handle'" in suggested
    lines = (tmp_path / "mine.gin").read_text().splitlines()
    assert [line for line in lines if "LABEL" in line] == [
        "LABEL_GAINS = {0: 0.0, 1: 0.3, 2: 1.0}",
        "RELEVANT_LABELS = (1, 2)",
    ]
    assert sum(line.startswith("ITEM_COLUMNS") for line in lines) == 1


def test_judged_items_behind_the_first_rows_are_found(tmp_path, capsys):
    items = item_rows(300)
    # A spreadsheet has made numbers of the ids, all of which are at the end of the catalogue.
    numbered = [(f"{100000 + place}", *row[1:]) for place, row in enumerate(items)]
    judged = [(query, f"{item}.0", label) for query, item, label in judgement_rows(numbered[200:])]
    tables = (
        write(tmp_path / "items.csv", ITEM_NAMES, numbered),
        write(tmp_path / "judged.csv", ("query", "item_id", "label"), judged),
    )
    assert check(tables, "--rows=200") == 0
    out = capsys.readouterr().out
    assert "unknown item_id" not in out and "rejected:" not in out
    assert "judgements: 200 rows read, 200 kept, 0 rejected" in out
    # 200 rows are of 23 queries, which judge 24 items.
    assert "items: 224 rows read, 224 kept, 0 rejected" in out
    assert "looked at: the first 200 rows or so of each table" in out


def test_another_reader_is_looked_at_by_its_gin_file(capsys):
    shop = "simulated_shop.SimulatedShop"
    flags = [f"--gin.{shop}.{name}={number}" for name, number in SMALL_SHOP.items()]
    assert cli.main(["check", "--gin_file=gin/runs/demo.gin", *flags]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.startswith("the first items, as prepared:\n")
    assert "suggestions" not in printed.out and "a gin file to start from" not in printed.out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        pytest.param(
            ["--judgements={judged}"],
            "name --items and --judgements, or a --gin_file that binds them",
            id="no items",
        ),
        pytest.param([], "name --items and --judgements", id="nothing"),
        pytest.param(
            ["--items={folder}/missing.csv", "--judgements={judged}"],
            "{folder}/missing.csv: no such file",
            id="missing items",
        ),
        pytest.param(
            ["--items={items}", "--judgements={folder}/missing.csv"],
            "{folder}/missing.csv: no such file",
            id="missing judgements",
        ),
        pytest.param(
            ["--items={folder}", "--judgements={judged}"],
            "{folder}: a folder; bind its files",
            id="folder",
        ),
        pytest.param(
            ["--items={items}", "--judgements={judged}", "--rows=0"], "flag --rows=0", id="no rows"
        ),
        pytest.param(
            ["--gin_file=gin/runs/demo.gin", "--write={folder}/mine.gin"],
            "--write goes with --items",
            id="a second gin file",
        ),
        pytest.param(
            ["--gin_file=gin/runs/demo.gin", "--gin.prepare.run.source=3"],
            "gin binding prepare.run.source is 3; bind a reader",
            id="no reader",
        ),
        pytest.param(
            ["--gin_file=gin/runs/tables.gin"], "gin value ITEMS is REQUIRED", id="unbound table"
        ),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(messy, tmp_path, flags, message, capsys):
    names = {"folder": tmp_path, "items": messy[0], "judged": messy[1]}
    assert cli.main(["check", *(flag.format(**names) for flag in flags)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"dsirm: {message.format(**names)}")
    assert printed.err.count("\n") == 1


ODD = {
    "empty": b"",
    "header alone": b"item_id,title,query,label\n",
    "bytes of all kinds": bytes(range(256)) * 20,
    "one column": b"item_id\n1\n2\n",
}


@pytest.mark.parametrize("suffix", [".csv", ".tsv.gz", ".jsonl", ".parquet"])
@pytest.mark.parametrize("odd", ODD, ids=str)
def test_an_odd_file_stops_with_one_line(messy, tmp_path, odd, suffix, capsys):
    path = tmp_path / f"odd{suffix}"
    path.write_bytes(ODD[odd])
    for tables in ((path, messy[1]), (messy[0], path)):
        assert check(tables) == 2
        printed = capsys.readouterr()
        stops = [line for line in printed.out.splitlines() if line.startswith("prepare would")]
        said = [*printed.err.splitlines(), *stops]
        assert len(said) == 1 and str(path) in said[0]


def test_help_says_what_is_written(capsys):
    assert cli.main(["check", "--help"]) == 0
    out = capsys.readouterr().out
    for flag in ("--items=FILES", "--judgements=FILES", "--rows=N", "--write=FILE"):
        assert flag in out
    assert "Nothing but --write is written" in out
