"""Who calls a server in tests."""

import contextlib
import re
import threading
import time
import urllib.request

from fastapi.testclient import TestClient

from dsirm_jax.serving.http.server import application, http_server, listen
from dsirm_jax.serving.http.settings import ServerSettings


@contextlib.contextmanager
def client_of(scorer, **settings):
    """A client of an application whose lifespan has begun."""
    app = application(scorer, settings=ServerSettings(**settings))
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        yield client


@contextlib.contextmanager
def listening(scorer, *, host="127.0.0.1", **settings):
    """Serves a scorer in a thread of this process, and yields uvicorn's server and its port."""
    listener = listen(host, 0)
    port = listener.getsockname()[1]
    server = http_server(scorer, listener, host=host, settings=ServerSettings(**settings))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        until(lambda: server.started)
        yield server, port
    finally:
        server.should_exit = True
        thread.join()


def until(is_so):
    """Waits until something is so, for a minute at most."""
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.005)


def wait_until_ready(client):
    while client.get("/ready").status_code == 503:
        time.sleep(0.01)


def payload(query="plush toy", **others):
    return {"query": query, "items": ["P0000000"]} | others


def fetch(url):
    with urllib.request.urlopen(url, timeout=600) as answer:
        return answer.read()


def resident(address):
    """Returns the bytes of memory that a server has now."""
    text = fetch(f"{address}/metrics").decode()
    return float(re.search(r"^process_resident_memory_bytes (\S+)", text, re.M)[1])
