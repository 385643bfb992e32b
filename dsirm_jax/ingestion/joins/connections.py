"""Connections to databases by Ibis URLs, whose passwords neither files nor messages ever hold."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dsirm_jax.io.errors import InputError
from dsirm_jax.io.secrets import check_public, erased, public_url, resolved

_READ_ONLY = {
    "postgres": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "sqlite": "PRAGMA query_only = ON",
}
"""What makes a session one that only reads, by Ibis's name of the engine."""


@contextlib.contextmanager
def connect(url: str, *, binding: str, **options: Any) -> Iterator[Any]:
    """Yields an Ibis backend, and disconnects it afterwards.

    Args:
      url: Ibis connection URL; ${NAME} in it is taken from the environment.
      binding: the gin binding that holds it, for messages.
      **options: further arguments of the backend's `connect`.

    Raises:
      InputError: the URL holds a secret, a variable is not set, the file of a database is missing,
        or the connection fails.
    """
    import ibis

    check_public(binding, url)
    target = resolved(url, binding=binding)
    engine, _, path = target.partition("://")
    # SQLite would make an empty database.
    if engine == "sqlite" and path not in ("", ":memory:") and not Path(path).is_file():
        raise InputError(f"{binding} ({public_url(url)}): no such file; bind that of a database")
    with naming_binding(url, binding=binding):
        backend = ibis.connect(target, **options)
    try:
        yield backend
    finally:
        backend.disconnect()


def embedded(*, memory_limit: str, spill: Path) -> contextlib.AbstractContextManager[Any]:
    """Returns a DuckDB in this process, which joins tables larger than its memory.

    Args:
      memory_limit: what it keeps in memory, such as "1GB".
      spill: folder of what it does not.
    """
    return connect(
        "duckdb://",
        binding="prepare.run.memory_limit",
        temp_directory=str(spill),
        memory_limit=memory_limit,
        # Every result is sorted; keeping the order before that would cost memory.
        preserve_insertion_order=False,
    )


def only_read(database: Any) -> None:
    """Makes a session of an engine that can do so refuse whatever is no reading.

    Args:
      database: an Ibis backend, which may have made its temporary views already.
    """
    if statement := _READ_ONLY.get(database.name):
        with contextlib.closing(database.raw_sql(statement)):
            pass


@contextlib.contextmanager
def naming_binding(url: str, *, binding: str, statement: str = "") -> Iterator[None]:
    """Names the binding that an engine's error is about, without what it keeps secret.

    Args:
      url: of the connection, with references to the environment.
      binding: the gin binding.
      statement: what the engine runs, likewise with references.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # every engine has errors of its own
        text = " ".join(erased(str(error), f"{url} {statement}").split())[:500]
        raise InputError(f"{binding} ({public_url(url)}): {text}") from None
