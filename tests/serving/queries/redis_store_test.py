"""A shared store that is slow, gone, damaged or of another version; and what is loaded into it."""

import logging
import threading
import time

import numpy as np
import pytest

from dsirm_jax import cli
from dsirm_jax.io.errors import InputError
from dsirm_jax.serving import Scorer, ScorerSettings
from dsirm_jax.serving.queries.loading import load_queries
from dsirm_jax.serving.queries.redis_store import RedisQueries
from dsirm_jax.serving.scorer.answers import CACHED, LIVE
from tests.serving import tiny
from tests.serving.queries.stand_in import stand_in

QUERY = tiny.QUERIES[0]
FURTHER = ["green phone case", "ruž mug", "Green  Phone CASE", tiny.QUERIES[0], "grau lamp"]


@pytest.fixture
def table(bundle, server, rows):
    server.values.update(rows.values())
    table = RedisQueries(url=server.url, seconds=0.5, rest=0.5).open(bundle)
    yield table
    table.close()


def asked(table, query=QUERY, *, seconds=60.0):
    """Returns how a look-up ended, and how long it took."""
    before, start = table.statistics(), time.monotonic()
    table.get(query, until=start + seconds)
    took, after = time.monotonic() - start, table.statistics()
    (name,) = (name for name in after if after[name] > before[name])
    return name.removeprefix("store_"), took


def test_every_end_of_a_look_up_is_counted(table, server, rows):
    key, value = rows[QUERY]
    assert asked(table)[0] == "hits"
    assert asked(table, "something else")[0] == "misses"
    server.values[key] = value[:-1]
    assert asked(table)[0] == "damaged"
    server.values[key] = b""
    assert asked(table)[0] == "damaged"
    assert sum(table.statistics().values()) == 4


def test_one_that_is_silent_is_waited_for_once_and_asked_again_after_its_rest(
    table, server, caplog
):
    assert asked(table)[0] == "hits"
    server.seconds = 60.0
    how, took = asked(table)
    assert how == "failed" and 0.4 < took < 20
    time.sleep(0.1)  # for the thread that asks to have had enough, too
    threads = [threading.Thread(target=asked_many, args=(table,)) for _ in range(4)]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = table.statistics()
    assert counts["store_skipped"] > 0 and counts["store_skipped"] + counts["store_failed"] == 401
    assert time.monotonic() - start < 20  # not 400 times half a second
    server.woken.set()
    until_hit(table)
    silent, again = [record.getMessage() for record in caplog.records if "127" in record.message]
    assert "does not answer (TimeoutError" in silent and again.endswith("answers again")


def asked_many(table):
    for _ in range(100):
        table.get(QUERY, until=time.monotonic() + 60)


def until_hit(table):
    end = time.monotonic() + 60
    while asked(table)[0] != "hits":
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_request_waits_for_half_of_its_time_at_most(table, server):
    server.seconds = 60.0
    assert asked(table, seconds=0.2)[1] < 0.45
    assert asked(table, seconds=-1.0)[1] < 0.2


def test_one_that_is_gone_or_says_an_error_is_none_and_comes_back(bundle, rows, server):
    with stand_in() as first:
        url, port = first.url, first.server_address[1]
    table = RedisQueries(url=url, seconds=5.0, rest=0.1).open(bundle)
    assert asked(table)[0] == "failed"
    with stand_in(port) as second:
        second.values.update(rows.values())
        until_hit(table)
        second.broken = True
        assert asked(table)[0] == "failed"
        second.broken = False
        until_hit(table)
    table.close()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"url": "http://host"}, r"RedisQueries\.url is 'http://host'; give a URL such as redis"),
        ({"url": None}, r"RedisQueries\.url is None"),
        ({"url": "redis://:hunter2@host/0"}, r"RedisQueries\.url holds a password"),
        ({"url": "redis://amy:hunter2@host"}, r"RedisQueries\.url holds a password"),
        ({"url": "redis://host?password=hunter2"}, r"RedisQueries\.url holds a password"),
        ({"url": "http://:hunter2@host"}, r"RedisQueries\.url is 'http://.*host'"),
        ({"seconds": 0.0}, r"RedisQueries\.seconds is 0"),
        ({"seconds": float("nan")}, r"RedisQueries\.seconds is nan"),
        ({"rest": -1.0}, r"RedisQueries\.rest is -1\.0"),
    ],
    ids=["scheme", "none", "password", "user", "setting", "both", "no time", "NaN", "negative"],
)
def test_settings_that_cannot_be_are_refused_by_their_name_without_secrets(fields, said):
    with pytest.raises(InputError, match=said) as caught:
        RedisQueries(**{"url": "redis://host", **fields})
    assert "hunter2" not in str(caught.value)


def test_a_password_of_the_environment_is_sent_and_never_shown(
    bundle, server, monkeypatch, caplog, capfd
):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("PASSWORD", "hunter2%2Fx")
    url = server.url.replace("redis://", "redis://:${PASSWORD}@")
    table = RedisQueries(url=url, seconds=5.0, rest=0.1).open(bundle)
    assert asked(table)[0] == "misses" and "AUTH" in server.commands
    server.broken = True
    assert asked(table)[0] == "failed"
    table.close()
    monkeypatch.delenv("PASSWORD")
    with pytest.raises(InputError, match=r"RedisQueries\.url: .* PASSWORD is not set"):
        RedisQueries(url=url).open(bundle)
    for flags in (["serve", "--bundle=none", "--queries={}"], ["update-bundle", "none", "--to={}"]):
        given = [flag.format("redis://:hunter2@host/0") for flag in flags]
        assert cli.main([*given, *(["--queries=a.csv"] if "--to" in given[2] else [])]) == 2
    told = caplog.text + "".join(capfd.readouterr())
    assert "hunter2" not in told and "127.0.0.1" in told and "holds a password" in told


@pytest.fixture
def loaded(made, server, tmp_path):
    file = tmp_path / "queries.csv"
    file.write_text("".join(f"{line}\n" for line in ["search", *FURTHER]))
    given = {"queries": str(file), "columns": {"query": "search"}}
    store = RedisQueries(url=server.url, seconds=30.0)
    return lambda: load_queries(made, store=store, **given)


def test_what_is_loaded_is_answered_as_live_and_goes_on_where_it_stopped(
    bundle, server, values, loaded
):
    assert loaded() == 3  # one spelling of each, without what the bundle has
    queries = [FURTHER[0], FURTHER[1], FURTHER[4]]
    assert set(server.values) == {values.key(query) for query in queries}
    before = dict(server.values)
    del server.values[values.key(queries[1])]
    server.values[values.key(queries[2])] = b"damaged"
    assert loaded() == 2
    assert server.values == before
    store = RedisQueries(url=server.url, seconds=30.0)
    with (
        Scorer(bundle, settings=ScorerSettings(deadline=600.0, warm=(), queries=store)) as scorer,
        Scorer(bundle, settings=ScorerSettings(deadline=600.0, warm=())) as plain,
    ):
        near = plain.candidates(queries[0], most=20)
        assert scorer.candidates(queries[0].upper(), most=20) == near
        found, live = scorer.score(queries[0], near), plain.score(queries[0], near)
        assert (found.source, live.source) == (CACHED, LIVE)
        np.testing.assert_allclose(found.probabilities, live.probabilities, atol=1e-5)
        np.testing.assert_allclose(found.features, live.features, atol=1e-5)
        counts = scorer.statistics()
        assert (counts["store_hits"], counts["cached_queries"]) == (1, len(tiny.QUERIES))
        server.seconds = 60.0  # what was read is remembered
        assert scorer.score(queries[0], near).source == CACHED


def test_what_takes_no_queries_is_named_in_one_line(server, loaded):
    server.broken = True
    with pytest.raises(InputError, match=r"^redis://127.* takes no queries .* goes on from there$"):
        loaded()
