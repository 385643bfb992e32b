"""What every kind of table of cached queries does."""

import threading
import time

import jax
import numpy as np
import pytest

from dsirm_jax.serving.queries.embedded import EmbeddedTable
from dsirm_jax.serving.queries.redis_store import RedisQueries
from tests.serving import tiny

KINDS = ("embedded", "redis")


@pytest.fixture(params=KINDS)
def table(request, bundle, rows, server):
    """A table that has the bundle's own cached queries."""
    if request.param == "embedded":
        yield EmbeddedTable(catalogue=bundle.catalogue)
        return
    server.values.update(rows.values())
    table = RedisQueries(url=server.url, seconds=30.0).open(bundle)
    yield table
    table.close()


def soon():
    return time.monotonic() + 60


@pytest.mark.parametrize(
    "spelt", [str, str.upper, lambda text: text.replace(" ", "  ")], ids=["same", "upper", "spaces"]
)
def test_a_query_is_found_by_all_spellings_as_it_was_written(table, bundle, spelt):
    for query in tiny.QUERIES[:4]:
        text, cached = table.get(spelt(query), until=soon())
        assert text == query
        expected = bundle.catalogue.cached(query)
        for one, other in zip(jax.tree.leaves(cached), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(one, other)


def test_what_is_not_there_is_none(table):
    assert table.get("something else", until=soon()) is None
    assert table.get("", until=soon()) is None


def test_threads_share_it(table):
    found = []

    def ask(query):
        for _ in range(20):
            found.append((query, table.get(query, until=soon()).text))

    threads = [threading.Thread(target=ask, args=(query,)) for query in tiny.QUERIES[:8]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 160 and all(asked == text for asked, text in found)


def test_it_counts_under_names_of_its_own(table):
    table.get(tiny.QUERIES[0], until=soon())
    names = (
        {"cached_queries"}
        if isinstance(table, EmbeddedTable)
        else set(f"store_{name}" for name in ("hits", "misses", "damaged", "failed", "skipped"))
    )
    assert set(table.statistics()) == names
