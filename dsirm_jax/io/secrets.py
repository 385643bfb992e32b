"""Secrets in URLs: none is written, logged or printed.

A secret that stands in a text as it is, is refused (`check_public`). In its place goes `${NAME}`,
which stays as it is in whatever is written; only where a connection or a file is opened does the
environment variable take its place (`resolved`), and what an engine says afterwards is shown
without its value (`erased`).
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dsirm_jax.io.errors import InputError

MASK = "…"
"""What stands in the place of a secret."""

_REFERENCE = re.compile(r"\$\{(\w+)\}")
_REFERENCES = re.compile(rf"(?:\$\{{\w+\}}|{MASK})+(?::(?:\$\{{\w+\}}|{MASK})+)?")
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")
_SCHEME = r"(?<![A-Za-z0-9+.-])(?P<scheme>[A-Za-z0-9+.-]+)://"
# Where fsspec chains URLs, another one follows two colons.
_CHAINED = r"::(?:[\w+.-]{1,32}::){0,8}[\w+.-]{1,32}://"
_URL = re.compile(rf"{_SCHEME}(?P<rest>(?:(?!{_CHAINED})\S)*)")
# A password that is not encoded may have blanks. What goes before is a flag.
_WHOLE_URL = re.compile(rf"\s*(?:-{{0,2}}[\w.]+=['\"]*)?{_SCHEME}(?P<rest>.*)", re.DOTALL)
_NAME = r"(?<![\w.%+-])(?P<name>[A-Za-z_%-][\w.%+-]*)"
_VALUE = r"(?P<value>'[^']{0,4096}'|\"[^\"]{0,4096}\"|\{[^}]{0,4096}\}|[^\s&;'\"<>|]*)"
_PAIR = re.compile(rf"{_NAME}(?:=|[\"']\s*:\s*){_VALUE}")
_SPACED_PAIR = re.compile(rf"{_NAME}\s*=\s*{_VALUE}")
_QUERY_PAIR = re.compile(rf"(?<=[?&]){_NAME}={_VALUE}")
# What begins like `host=… password=…` or `Data Source=…;Password=…`, as no statement does.
_SETTINGS = re.compile(r"\s*-{0,2}(?:data source|initial catalog|user id|[a-z][\w.-]*)\s*=", re.I)
_BEARER = re.compile(r"\b(?:bearer|basic) +(?P<value>[\w.~+/=-]{8,})", re.I)

_SECRET_WORDS = re.compile(
    r"passw|passphrase|passcode|token(?!iz|s$)|secret|signature|credential|apikey|accesskey|"
    r"accountkey|privatekey|sharedkey|sharedaccess|authkey|masterkey|sessionkey|"
    r"connectionstring|authorization"
)
_SECRET_NAMES = frozenset(["key", "sign", "pass", "jwt", "hmac", "bearer"])
_SECRET_PARTS = frozenset(["sig", "sas", "pwd"])
_ABOUT_SECRETS = frozenset(["file", "path", "name", "type", "uri", "url", "method", "mode"])
_NO_SECRETS = frozenset(["", "true", "false", "none", "null"])
_WITH_PORTS = frozenset(
    ["http", "https", "ftp", "ftps", "sftp", "ssh", "hdfs", "webhdfs", "memory", "tcp", "grpc"]
)
_PORT = re.compile(r"\d{1,5}(?:[/?#\s]|$)")
_WORTH_ERASING = 4
"""Letters of a setting that is not called a secret: shorter ones are parts of other words."""


def masked(text: str) -> str:
    """Returns any text, such as an engine's error or a command line, without its secrets.

    URLs lose user and password, and settings that are called like secrets their values, in a URL,
    in a text such as `host=… password=…` or in any other. References `${NAME}` stay.

    Args:
      text: of any kind, perhaps with URLs.

    Example:
      >>> masked("https://amy:hunter2@host/a.csv?page=2&sig=hunter2: timed out")
      'https://…@host/a.csv?page=2&sig=… timed out'
    """
    whole = _WHOLE_URL.fullmatch(text)
    if whole and not re.match(r"[^/?#@]*:\s", whole["rest"]):
        text = _replaced(text, _users([whole]))
    text = _replaced(text, _users(_URL.finditer(text)))
    pairs = _SPACED_PAIR if _SETTINGS.match(text) else _PAIR
    text = _replaced(text, _secret_values(pairs, text))
    return _replaced(text, (match.span("value") for match in _BEARER.finditer(text)))


def check_public(binding: str, text: str) -> None:
    """Refuses a text that has a secret in a URL, or is a list of settings with one.

    Args:
      binding: the gin binding or flag that holds it, for the message.
      text: a URL, several of them chained, a statement that has some, or any other text.

    Raises:
      InputError: it has a secret.
    """
    if has_secret(text):
        raise InputError(
            f"{binding} holds a password, token or signature, which files of the run would keep: "
            f"write ${{NAME}} in its place, such as user:${{PASSWORD}}@host or ?sig=${{SIG}}, and "
            f"set that environment variable"
        )


def check_texts(value: Any, *, binding: str) -> None:
    """Refuses a secret in any text of a bound value, see `check_public`.

    Args:
      value: a text, a dataclass, a partial application, or a mapping or sequence of such.
      binding: its name, for the message.

    Raises:
      InputError: there is one.
    """
    if isinstance(value, (str, os.PathLike)):
        check_public(binding, str(value))
    elif isinstance(value, Mapping):
        for name, part in value.items():
            check_texts(name, binding=binding)
            check_texts(part, binding=binding)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for part in value:
            check_texts(part, binding=binding)
    elif isinstance(value, functools.partial):
        check_texts([value.args, value.keywords], binding=binding)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            check_texts(getattr(value, field.name, None), binding=f"{binding}.{field.name}")


def has_secret(text: str) -> bool:
    """Returns whether a text has a secret as it is in a URL, or is a list of settings with one."""
    parts = [text, *(part for match in _QUOTED.finditer(text) for part in match.groups() if part)]
    for part in parts:
        urls = [*_URL.finditer(part)]
        whole = _WHOLE_URL.fullmatch(part)
        if whole and len(urls) == 1:
            urls.append(whole)
        if any(_has_secret_user(url) or any(_secret_values(_PAIR, url["rest"])) for url in urls):
            return True
        pairs = _SPACED_PAIR if _SETTINGS.match(part) else _QUERY_PAIR
        if any(_secret_values(pairs, part)):
            return True
    return False


def resolved(text: str, *, binding: str) -> str:
    """Returns a text with the values of the environment variables that it refers to.

    Args:
      text: a URL or statement with `${NAME}`.
      binding: what holds it, for the message.

    Raises:
      InputError: a variable is not set; the message names it.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise InputError(f"{binding}: the environment variable {match[1]} is not set")
        return os.environ[match[1]]

    return _REFERENCE.sub(value, text)


def referring(text: str, *, like: str) -> str:
    """Returns a text with references in the places of the values that `like` refers to.

    What `resolved` makes of it is the text again.
    """
    for name in _REFERENCE.findall(like):
        if value := os.environ.get(name):
            text = text.replace(value, f"${{{name}}}")
    return text


def secrets_of(url: str) -> list[str]:
    """Returns what no message may show of a URL, percent-encoded or not, the longest first.

    Args:
      url: any text with references, whose values are among the secrets; so are passwords and the
        values of all settings in its URLs.
    """
    values = [os.environ.get(name, "") for name in _REFERENCE.findall(url)]
    whole = _REFERENCE.sub(lambda match: os.environ.get(match[1], ""), url)
    for match in _URL.finditer(whole):
        if span := _user_span(match):
            user, _, password = whole[slice(*span)].partition(":")
            values += [password, user if _takes_tokens(match) else ""]
        settings = _PAIR.finditer(match["rest"].partition("?")[2])
        values += (pair["value"] for pair in settings if len(pair["value"]) >= _WORTH_ERASING)
    values += (whole[start:end] for start, end in _secret_values(_SPACED_PAIR, whole))
    forms: set[str] = set()
    for value in values:
        for plain in (value, urllib.parse.unquote(value), urllib.parse.unquote_plus(value)):
            quoted = (urllib.parse.quote(plain, safe=safe) for safe in ("/", ""))
            forms |= {plain, *quoted, urllib.parse.quote_plus(plain), repr(plain)[1:-1]}
    return sorted(filter(None, forms), key=len, reverse=True)


def erased(text: str, url: str) -> str:
    """Returns what an engine says about a URL, without that URL's secrets and any others.

    Args:
      text: what it says.
      url: see `secrets_of`.
    """
    for secret in secrets_of(url):
        text = text.replace(secret, MASK)
    return masked(text)


def public_url(url: str) -> str:
    """Returns a URL without user, password and settings."""
    whole = _WHOLE_URL.fullmatch(url)
    span = whole and _user_span(whole)
    if span:
        url = url[: span[0]] + url[span[1] + 1 :]
    return masked(url.partition("?")[0])


def _user_span(url: re.Match[str]) -> tuple[int, int] | None:
    """Returns where a URL has user and password, which may have any sign."""
    rest, start = url["rest"], url.start("rest")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        return start, start + authority.rindex("@")
    # A password that is not encoded may also have what ends an authority.
    user, colon, password = rest.partition(":")
    if not colon or "@" not in password or re.search(r"[/?#\[]", user):
        return None
    has_port = _PORT.match(password) is not None
    if has_port and (url["scheme"].lower() in _WITH_PORTS or "?" in password.partition("@")[0]):
        return None
    return start, start + rest.rindex("@")


def _users(urls: Iterable[re.Match[str]]) -> list[tuple[int, int]]:
    """Returns where URLs have user and password and not only references."""
    spans = [(url, span) for url in urls if (span := _user_span(url))]
    return [span for url, span in spans if not _is_reference(url.string[slice(*span)])]


def _has_secret_user(url: re.Match[str]) -> bool:
    span = _user_span(url)
    if span is None:
        return False
    user, _, password = url.string[slice(*span)].partition(":")
    if password:
        return not _is_reference(password)
    return _takes_tokens(url) and not _is_reference(user)


def _takes_tokens(url: re.Match[str]) -> bool:
    """Returns whether the user of a URL may be a token."""
    return url["scheme"].lower() in ("http", "https")


def _secret_values(pairs: re.Pattern[str], text: str) -> Iterator[tuple[int, int]]:
    """Yields where values of settings, which a pattern finds, are secrets."""
    place = 0
    while pair := pairs.search(text, place):
        plain = urllib.parse.unquote(pair["value"])
        is_url = "://" in plain and "://" not in pair["value"]
        if _is_secret(pair["name"], pair["value"]) or (is_url and has_secret(plain)):
            yield pair.span("value")
            place = pair.end()
        else:  # a value may itself have settings
            place = pair.start("value")


def _is_secret(name: str, value: str) -> bool:
    value = re.sub(r"^(['\"])(.*)\1$|^\{(.*)\}$", r"\2\3", value).rstrip(":,.)]")  # of a sentence
    if value.lower() in _NO_SECRETS or _is_reference(value):
        return False
    words = re.split(r"[._+\s-]+", urllib.parse.unquote(name).lower())
    joined = "".join(words)
    return words[-1] not in _ABOUT_SECRETS and bool(
        _SECRET_WORDS.search(joined) or joined in _SECRET_NAMES or _SECRET_PARTS.intersection(words)
    )


def _is_reference(text: str) -> bool:
    """Returns whether a text, such as user:password, is references alone."""
    return _REFERENCES.fullmatch(text) is not None


def _replaced(text: str, spans: Iterable[tuple[int, int]]) -> str:
    for start, end in sorted(spans, reverse=True):
        text = text[:start] + MASK + text[end:]
    return text
