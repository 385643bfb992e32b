"""`dsirm check`: a look at a user's tables, before anything is made of them."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import logging
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsirm_jax.commands.command import Command, Flag, Values
from dsirm_jax.io.errors import InputError
from dsirm_jax.stages import prepare

if TYPE_CHECKING:
    from dsirm_jax.ingestion.check import Look
    from dsirm_jax.ingestion.readers.tables import Tables
    from dsirm_jax.ingestion.rules import Rules

TABLES = "gin/runs/tables.gin"
ROWS = 100_000
WIDTH = 40
"""Characters of a value that are shown."""

LABELS = {
    *("LABEL_GAINS", "prepare.run.label_gains"),
    *("RELEVANT_LABELS", "prepare.run.relevant_labels"),
}
"""Bindings beside which none of labels are suggested."""


def run(flags: Values, arguments: Sequence[str]) -> int:
    """Prints what would be read of tables and what is wrong, and a gin file to start from."""
    from dsirm_jax.io.files import write_text

    draft_file = flags["write"]
    if draft_file and Path(draft_file).exists():
        raise InputError(f"--write: {draft_file} exists; name a new file")
    if draft_file and flags["gin_file"]:
        raise InputError("--write goes with --items and --judgements: you have a --gin_file")
    if not flags["gin_file"] and not (flags["items"] and flags["judgements"]):
        raise InputError("name --items and --judgements, or a --gin_file that binds them")
    macros = {"ITEMS": flags["items"], "JUDGEMENTS": flags["judgements"]}
    bound = [f"{name} = {value!r}" for name, value in macros.items() if value]
    bound += flags["gin_bindings"]
    with _quiet():  # the findings are printed
        seen, suggested = _look(flags, bound)
    print("\n".join(_report(seen, suggested, rows=flags["rows"])).lstrip("\n"))
    if not flags["gin_file"]:
        draft = "\n".join(_draft(bound, suggested))
        if draft_file:
            write_text(Path(draft_file), f"{draft}\n")
            print(f"\n{draft_file} is a gin file to start from; look it over, then")
            print(
                f"  dsirm run --gin_file={shlex.quote(draft_file)} --gin.MODEL_DIR=\"'out/mine'\""
            )
        else:
            print(f"\na gin file to start from (--write=FILE keeps it):\n\n{draft}")
    return 2 if seen.stop else 0


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    log = logging.getLogger("dsirm_jax")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _look(flags: Values, bound: Sequence[str]) -> tuple[Look, list[str]]:
    """Returns what tables show that are read with some bindings, and those that are suggested."""
    from dsirm_jax.ingestion import check

    source, rules = _configured(flags, bound)
    suggested: list[str] = []
    if not flags["gin_file"]:
        suggested += _columns(source)
        source, rules = _configured(flags, [*bound, *suggested])
        if not LABELS.intersection(map(_name, bound)):
            suggested += _labels(source, rules, rows=flags["rows"])
        source, rules = _configured(flags, [*bound, *suggested])
    return check.look(source.read(), rules=rules, rows=flags["rows"]), suggested


def _configured(flags: Values, lines: Sequence[str]) -> tuple[Any, Rules]:
    """Reads the gin files with these bindings; returns the reader and the rules of `prepare`.

    Raises:
      InputError: one of them is not legal, or one that `prepare` needs is missing.
    """
    from dsirm_jax.data.identity import PLAIN
    from dsirm_jax.data.item_text import TITLE
    from dsirm_jax.ingestion.grading.clicks import ClickModel
    from dsirm_jax.ingestion.readers.reader import check_reader
    from dsirm_jax.ingestion.rules import Rules
    from dsirm_jax.run import configuration
    from dsirm_jax.run.job import Job

    configuration.parse(
        files=flags["gin_file"] or [TABLES],
        bindings=["MODEL_DIR = ''", *lines],
        search_paths=flags["gin_search_paths"],
        allowed=flags["allow"],
    )
    parameters = inspect.signature(prepare.run).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.default is not each.empty}
    seed = configuration.bound(Job).get("seed", 0)  # which decides on the split
    bound = defaults | {"layout": None, "seed": seed} | configuration.bound(prepare.run)
    configuration.check_complete(prepare.run, bound)
    check_reader(bound["source"])
    bound["clicks"] = bound["clicks"] or ClickModel()
    bound["identity"] = bound["identity"] or PLAIN
    bound["item_text"] = bound["item_text"] or TITLE
    names = [field.name for field in dataclasses.fields(Rules)]
    return bound["source"], Rules(**{name: bound[name] for name in names})


def _columns(tables: Tables) -> list[str]:
    """Returns bindings of columns that required columns of ours may be, and of further ones."""
    from dsirm_jax.ingestion import formats
    from dsirm_jax.ingestion.columns import suggestions
    from dsirm_jax.ingestion.judgement_files.recognition import recognised
    from dsirm_jax.io import storage

    files = {name: storage.list_files(getattr(tables, name)) for name in ("items", "judgements")}
    maps = {
        "items": (tables.item_columns, tables.items_dialect),
        "judgements": (tables.judgement_columns, tables.judgements_dialect),
    }
    if tables.judgements_kind or (not maps["judgements"][0] and recognised(files["judgements"])[0]):
        del maps["judgements"]
    lines = []
    for table, (bound, dialect) in maps.items():
        names = formats.header(files[table][0], dialect=dialect)
        mapping = {name: name for name in suggestions.COMMON_NAMES[table]} | dict(bound)
        used = [users for users in mapping.values() if users in names]
        wanted = [ours for ours, users in mapping.items() if users not in names]
        if found := suggestions.suggest(names, table=table, wanted=wanted, used=used):
            macro = suggestions.MACROS[table]
            lines.append(f"{macro} = {dict(bound) | found!r}")
    return lines


def _labels(tables: Tables, rules: Rules, *, rows: int) -> list[str]:
    """Returns bindings of gains, where labels are found that are none of those bound."""
    from dsirm_jax.ingestion import check
    from dsirm_jax.ingestion.grading.label_suggestions import suggest_gains
    from dsirm_jax.ingestion.grading.labels import is_missing

    counts = check.labels(tables.read(), rows=rows)
    labels = [label for label in counts if label.strip() and not is_missing(label.strip())]
    if not labels or all(rules.labels.grade(label) is not None for label in labels):
        return []
    found = suggest_gains(labels)
    if found is None:
        return []
    if found.gains is None:
        return [
            "LABEL_GAINS = @labels.Grades()",
            f"labels.Grades.relevant_from = {found.relevant[0]}",
            f"labels.Grades.least = {found.least!r}",
            f"labels.Grades.most = {found.most!r}",
        ]
    return [f"LABEL_GAINS = {dict(found.gains)!r}", f"RELEVANT_LABELS = {tuple(found.relevant)!r}"]


def _draft(bound: Sequence[str], suggested: Sequence[str]) -> Iterator[str]:
    """Yields the lines of a gin file with these bindings."""
    from dsirm_jax.run import configuration

    # Of two bindings of a name the later one wins, and a suggestion has what is bound in it.
    kept = {_name(line): line for line in bound}
    for line in suggested:
        kept.pop(_name(line), None)
    lines = [*kept.values(), *suggested]
    unquoted = re.sub(r"'[^']*'|\"[^\"]*\"", "", "\n".join(lines))
    modules = set(re.findall(r"(\w+)\.\w", unquoted))
    registration, *imports = configuration.imports(TABLES)
    yield "# Written by `dsirm check`."
    if used := [line for line in imports if line.split()[-1] in modules]:
        yield from (registration, "", *used, "")
    yield from (f"include {TABLES!r}", "", *kept.values())
    if suggested:
        yield "\n# Suggested by names of columns and by the labels: look whether they are right."
        yield from suggested


def _name(line: str) -> str:
    """Returns what a gin line binds."""
    return line.partition("=")[0].strip()


def _report(seen: Look, suggested: Sequence[str], *, rows: int) -> Iterator[str]:
    """Yields the lines that say what a look has shown."""
    if suggested:
        yield "read with these suggestions, which only you can judge:"
        yield from (f"  {line}" for line in suggested)
    for is_fault, title in ((False, "how the tables are read:"), (True, "what may be wrong:")):
        lines = [
            f"  {each.table}: {each.text}" for each in seen.findings if each.is_fault == is_fault
        ]
        if lines:
            yield from ("", title, *lines)
    for table in ("items", "judgements"):
        if shown := seen.rows[table]:
            yield from ("", f"the first {table}, as prepared:")
            yield from (f"  {_shown(row)}" for row in shown)
    if seen.rejected:
        yield from ("", "rows that are left out:")
        yield from (f"  {_rejected(row)}" for row in seen.rejected)
    yield ""
    for table in ("items", "judgements"):
        if counts := seen.summary.get(table):
            yield _counts(table, counts)
    if queries := seen.summary.get("queries"):
        splits = (f"{split['queries']} {name}" for name, split in queries["splits"].items())
        yield f"queries: {', '.join(splits)}"
    yield f"looked at: the first {rows:,} rows or so of each table (--rows), and the judged items"
    if seen.stop:
        yield f"prepare would stop: {seen.stop}"


def _counts(table: str, counts: Mapping[str, Any]) -> str:
    line = (
        f"{table}: {counts['read']} rows read, {counts['kept']} kept, {counts['rejected']} rejected"
    )
    line += f", {counts['unrated']} unrated" if counts.get("unrated") else ""
    return line


def _shown(row: Mapping[str, Any]) -> str:
    values = {
        name: " > ".join(value) if isinstance(value, list) else str(value)
        for name, value in row.items()
        if value is not None and name not in ("item_index", "query_index", "text", "weight", "gain")
    }
    return ", ".join(f"{name} {value[:WIDTH]!r}" for name, value in values.items())


def _rejected(row: Mapping[str, Any]) -> str:
    where = f"{row['file']} row {row['row']}"
    where += f" column {row['column']}" if row["column"] else ""
    where += f" = {row['value'][:WIDTH]!r}" if row["value"] else ""
    return f"{where}: {row['reason']}"


COMMAND = Command(
    name="check",
    summary="tables of your own -> what would be read of them, what is wrong, a gin file to begin",
    run=run,
    flags=(
        Flag(
            name="items", value="FILES", meaning="table of items, as ITEMS in gin/runs/tables.gin"
        ),
        Flag(name="judgements", value="FILES", meaning="table of judgements, likewise"),
        Flag(
            name="rows",
            value="N",
            kind="number",
            default=ROWS,
            bounds=(1, None),
            meaning=f"rows of each table to look at ({ROWS:,})",
        ),
        Flag(name="write", value="FILE", meaning="keep the gin file to start from here"),
    ),
    configured=False,
    details=lambda: (
        "Instead of --items and --judgements a --gin_file may bind them, or another reader;\n"
        "--gin.NAME=VALUE holds as elsewhere. Nothing but --write is written."
    ),
)
