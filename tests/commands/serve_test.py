import pytest

from dsirm_jax.commands import serve
from dsirm_jax.io.errors import InputError
from dsirm_jax.serving.http import server
from tests.serving import tiny


def test_what_is_damaged_is_served_where_it_is_trusted_alone(tmp_path, monkeypatch):
    path = tiny.make(tmp_path / "bundle")
    vectors = path / "catalogue-0001/vectors.npy"
    damaged = bytearray(vectors.read_bytes())
    damaged[-1] ^= 1
    vectors.write_bytes(damaged)
    served = []
    monkeypatch.setattr(server, "serve", lambda scorer, **_: served.append(scorer.sizes))
    given, _ = serve.COMMAND.parse([f"--bundle={path}"], shared=())
    with pytest.raises(InputError, match=f"^{vectors} is not what was written"):
        serve.serve_bundle(given, stopped=lambda: served.append("stopped"))
    assert not served
    given, _ = serve.COMMAND.parse([f"--bundle={path}", "--trust"], shared=())
    serve.serve_bundle(given, stopped=lambda: served.append("stopped"))
    assert served == [tiny.SIZES, "stopped"]
