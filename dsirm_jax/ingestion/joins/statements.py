"""SQL of the user's own: the name of a table, or one statement that only reads."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from typing import Any

from dsirm_jax.io.errors import InputError

_SELECT = re.compile(r"(?:\s|\(|--[^\n]*\n|/\*.*?\*/)*(?:select|with|from)\b", re.I | re.S)
_CHANGING_FUNCTIONS = frozenset(
    [
        *("nextval", "setval", "set_config", "lo_create", "lo_from_bytea", "lo_import"),
        *("lo_export", "lo_put", "lo_unlink", "pg_cancel_backend", "pg_terminate_backend"),
        *("pg_reload_conf", "pg_promote", "pg_switch_wal", "pg_rotate_logfile", "pg_notify"),
        *("pg_advisory_lock", "query_to_xml", "dblink", "dblink_exec", "dblink_send_query"),
        *("postgres_execute", "mysql_execute", "sqlite_execute", "postgres_attach"),
        *("sqlite_attach", "mysql_attach", "load_extension", "fts3_tokenizer", "writefile"),
        *("sys_exec", "sys_eval", "get_lock", "external_query"),
    ]
)
"""Functions that change a database, or run a statement of their own, though a SELECT calls them."""


def select_statement(text: str, *, dialect: Any, binding: str) -> str:
    """Returns the SELECT statement that a text is, or that reads all of the table that it names.

    Args:
      text: a table's name, as the engine's SQL writes it, or one SELECT (or WITH … SELECT).
      dialect: SQLGlot's dialect of the engine, or its name.
      binding: the gin binding that holds the text, for messages.

    Returns:
      The statement, without a semicolon at its end.

    Raises:
      InputError: it is neither: it has several statements, one that changes anything, or a part
        that does.
    """
    from sqlglot import exp

    text = text.strip().removesuffix(";").rstrip()
    # A comment for one engine may be a statement for another.
    if "/*!" in text or "/*M!" in text:
        raise _refused(binding, "a comment that MySQL runs")
    statements = _parsed(text, dialect=dialect, binding=binding)
    if not is_select(text):
        text = f"SELECT * FROM {text}"
        named = _parsed(text, dialect=dialect, binding=binding)
        if len(named) != 1 or not _is_name_alone(named[0]):
            raise _refused(binding, "something other than one name")
        return text
    if len(statements) != 1:
        raise _refused(binding, "several statements")
    (statement,) = statements
    if not isinstance(statement, exp.Query):
        raise _refused(binding, statement.key.upper())
    for part in statement.walk():
        if _changes(part):
            raise _refused(binding, part.name if isinstance(part, exp.Func) else part.key.upper())
    return text


def regenerated(statement: str, *, dialect: Any) -> str:
    """Returns a statement as it was understood, for an engine that runs several at a time.

    Args:
      statement: of `select_statement`.
      dialect: see there.
    """
    import sqlglot

    return sqlglot.parse_one(statement, dialect=dialect).sql(dialect=dialect, comments=False)


def is_select(text: str) -> bool:
    """Returns whether a text is a statement, and not a table's name."""
    return _SELECT.match(text) is not None


def _is_name_alone(statement: Any) -> bool:
    """Returns whether `SELECT * FROM …` is followed by the name of a table and nothing else."""
    from sqlglot import exp

    source = statement.args.get("from_") or statement.args.get("from")
    given = {name for name, value in statement.args.items() if value}
    if given - {"expressions", "from_", "from"} or not source:
        return False
    table = source.this
    names = {name for name, value in table.args.items() if value}
    return (
        isinstance(table, exp.Table)
        and names <= {"this", "db", "catalog"}
        and isinstance(table.this, (exp.Identifier, exp.Dot))
    )


def _changes(part: Any) -> bool:
    from sqlglot import exp

    changing: tuple[type, ...] = (
        *(exp.DML, exp.DDL, exp.Command, exp.Into, exp.Lock, exp.Drop, exp.Alter, exp.Copy),
        *(exp.Attach, exp.Detach, exp.Pragma, exp.Set, exp.Use, exp.Merge, exp.TruncateTable),
        *(exp.LoadData, exp.Analyze, exp.Transaction, exp.Commit, exp.Rollback),
        *(exp.NextValueFor, exp.Semicolon),
    )
    if isinstance(part, exp.Query):  # SQLGlot counts these among what may define
        return False
    if isinstance(part, exp.Func):
        name = part.name if isinstance(part, exp.Anonymous) else part.sql_name()
        return name.lower() in _CHANGING_FUNCTIONS
    return isinstance(part, changing)


def _parsed(text: str, *, dialect: Any, binding: str) -> list[Any]:
    import sqlglot

    try:
        with _quiet():
            statements = sqlglot.parse(text, dialect=dialect)
    except sqlglot.errors.SqlglotError:
        # What it says has the text, which may have secrets by now.
        if is_select(text):
            raise InputError(
                f"{binding} is no SELECT statement that can be read as the engine's SQL; bind a "
                "table's name or one SELECT"
            ) from None
        return []
    return [statement for statement in statements if statement is not None]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences SQLGlot, which logs statements that it cannot read."""
    log = logging.getLogger("sqlglot")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def _refused(binding: str, what: str) -> InputError:
    return InputError(
        f"{binding} has {what}; databases are only read: bind a table's name or one SELECT"
    )
