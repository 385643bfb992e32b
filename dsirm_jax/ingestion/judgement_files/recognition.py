"""Which kind a file of judgements is of."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Sequence
from typing import cast

from dsirm_jax.data.findings import Finding
from dsirm_jax.ingestion import judgement_files
from dsirm_jax.ingestion.formats.file_starts import file_start, suffix
from dsirm_jax.ingestion.judgement_files.kind import JudgementKind
from dsirm_jax.io.errors import InputError

_NEVER_TABLES = (".qrels", ".qrel", ".letor", ".svm", ".svmlight", ".trec", ".run")


@functools.cache
def all_kinds() -> tuple[JudgementKind, ...]:
    """Returns the kinds of this package, with the settings that they have unless bound."""
    modules = [
        importlib.import_module(f"{judgement_files.__name__}.{module.name}")
        for module in pkgutil.iter_modules(judgement_files.__path__)
    ]
    return tuple(
        cast("JudgementKind", value())
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type)
        and dataclasses.is_dataclass(value)
        and value.__module__ == module.__name__
    )


def recognised(files: Sequence[str]) -> tuple[JudgementKind | None, list[Finding]]:
    """Returns the kind of some files, None where they are tables, and how that is said.

    Of the files with one suffix the first is looked at, for there may be thousands.

    Raises:
      InputError: a file can be no table and is of no kind, or files are of several kinds.
    """
    kinds: dict[str, JudgementKind | None] = {}
    first: dict[str, str] = {}
    for file in files:
        first.setdefault(suffix(file), file)
    for file in first.values():
        start = file_start(file)
        fitting = [kind for kind in all_kinds() if kind.recognises(start)]
        if len(fitting) > 1:
            titles = " and ".join(kind.title for kind in fitting)
            raise InputError(f"{file}: may be {titles}; bind Tables.judgements_kind to one of them")
        kinds[file] = fitting[0] if fitting else None
        if not fitting and start.suffix in _NEVER_TABLES:
            titles = ", ".join(kind.title for kind in all_kinds())
            raise InputError(
                f"{file}: its lines are of no known layout ({titles}); give a table a name that "
                "ends in .csv, .tsv, .jsonl or .parquet, or bind Tables.judgements_kind"
            )
    if len({*kinds.values()}) > 1:
        named = [f"{file} is {kind.title if kind else 'a table'}" for file, kind in kinds.items()]
        raise InputError(
            f"Tables.judgements has files of several layouts: {'; '.join(named)}; bind those of one"
        )
    kind = next(iter(kinds.values()), None)
    if kind is None:
        return None, []
    shown = files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} others"
    text = (
        f"{shown} read as {kind.title}; where that is wrong, bind Tables.judgements_kind (in "
        "tables.gin JUDGEMENTS_KIND)"
    )
    return kind, [Finding(table="judgements", text=text, is_fault=False)]
