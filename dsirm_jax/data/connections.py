"""Connections to databases by Ibis URLs, whose passwords neither files nor messages ever hold."""

from __future__ import annotations

import contextlib
import os
import re
import string
import urllib.parse
from collections.abc import Iterator
from typing import Any

from dsirm_jax.io.errors import InputError


@contextlib.contextmanager
def connect(url: str, *, binding: str, **options: Any) -> Iterator[Any]:
    """Yields an Ibis backend, and disconnects it afterwards.

    Args:
      url: Ibis connection URL; ${NAME} in it is taken from the environment.
      binding: the gin binding that holds it, for messages.
      **options: further arguments of the backend's `connect`.

    Raises:
      InputError: the URL holds a password, a variable is not set, or the connection fails.
    """
    import ibis

    if re.search(r"://[^/@]*:(?!\$)[^/@]+@", url):
        raise InputError(
            f"{binding} holds a password, which MODEL_DIR would keep: write ${{PASSWORD}} in its "
            "place and set that environment variable"
        )
    with naming_binding(url, binding=binding):
        backend = ibis.connect(_substitute(url, binding=binding), **options)
    try:
        yield backend
    finally:
        backend.disconnect()


@contextlib.contextmanager
def naming_binding(url: str, *, binding: str) -> Iterator[None]:
    """Names the binding that an engine's error is about, without what the URL keeps secret."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # every engine has errors of its own
        text = " ".join(str(error).split())[:500]
        for secret in _secrets(url):
            text = text.replace(secret, "…")
        raise InputError(f"{binding} ({public_url(url)}): {text}") from None


def public_url(url: str) -> str:
    """Returns a connection URL without user, password and options."""
    return re.sub(r"//[^/]*@", "//", url.split("?")[0])


def _substitute(url: str, *, binding: str) -> str:
    try:
        return string.Template(url).substitute(os.environ)
    except KeyError as error:
        raise InputError(
            f"{binding}: the environment variable {error.args[0]} is not set"
        ) from None


def _secrets(url: str) -> list[str]:
    names = re.findall(r"\$\{?(\w+)", url)
    values = [os.environ.get(name, "") for name in names]
    values += [value for _, value in urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query)]
    values += map(urllib.parse.unquote, list(values))
    return sorted(filter(None, values), key=len, reverse=True)
