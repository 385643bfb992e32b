"""`dsirm update-bundle`: changes to the items and queries of a bundle."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from dsirm_jax.commands.command import Command, Flag, Values
from dsirm_jax.commands.stage import COLUMNS
from dsirm_jax.io.errors import InputError


def run(flags: Values, arguments: Sequence[str]) -> int:
    """Changes items and adds queries while the bundle is being read."""
    if flags["to"] is not None:
        return _load(flags, Path(arguments[0]))
    from dsirm_jax.ingestion.query_files import given_columns
    from dsirm_jax.serving.update import update

    update(
        Path(arguments[0]),
        items=flags["items"],
        removed=flags["remove"],
        queries=flags["queries"],
        columns=given_columns(flags["columns"]),
        category_separator=flags["category_separator"],
        category_list_separator=flags["category_list_separator"],
    )
    return 0


def _load(flags: Values, path: Path) -> int:
    """Writes what is cached of queries to a store, and leaves the bundle as it is."""
    if flags["items"] or flags["remove"] or not flags["queries"]:
        raise InputError(
            "--to is for queries alone: give --queries=FILE, and --items and --remove without --to"
        )
    from dsirm_jax.ingestion.query_files import given_columns
    from dsirm_jax.serving.queries.loading import load_queries
    from dsirm_jax.serving.queries.redis_store import RedisQueries

    store, columns = RedisQueries(url=flags["to"]), given_columns(flags["columns"])
    load_queries(path, queries=flags["queries"], store=store, columns=columns)
    return 0


COMMAND = Command(
    name="update-bundle",
    summary="new, changed and removed items, further queries -> a bundle that is being read",
    run=run,
    flags=(
        Flag(
            name="items",
            value="FILE",
            meaning=(
                "a table of items that are new or change: item_id, title and the run's own\n"
                "columns, and brand, colour and category where they are known"
            ),
        ),
        Flag(
            name="remove",
            value="FILE",
            meaning="a table of the items that go: item_id",
        ),
        Flag(
            name="queries",
            value="FILE",
            meaning="a table of further queries to be cached",
        ),
        Flag(
            name="to",
            value="URL",
            meaning=(
                "write what is cached of the queries to a Redis, and leave the bundle as it is:\n"
                "'redis://:${PASSWORD}@host:6379/0', for `dsirm serve --queries`"
            ),
        ),
        dataclasses.replace(
            COLUMNS, meaning="what the tables call our columns, such as query=search,item_id=sku"
        ),
        Flag(
            name="category_separator",
            value="TEXT",
            meaning=(
                "between the levels of a category path; otherwise ' > ', or what most\nof them have"
            ),
        ),
        Flag(
            name="category_list_separator",
            value="TEXT",
            meaning="between several paths of one item, of which the deepest is read",
        ),
    ),
    arguments=("DIR",),
    wanted="name one bundle",
    configured=False,
    details=lambda: (
        "Where the run's vectors came from tables of your own, both are Parquet with a column\n"
        "vector. Who has the bundle open keeps what is there; a catalogue goes with the second\n"
        "update after it."
    ),
)
