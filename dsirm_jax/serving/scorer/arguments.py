"""Arguments of a scorer's calls: what they have to be, or an error that names them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from numbers import Integral

from dsirm_jax.data.limits import ID_CHARACTERS, cleaned_query
from dsirm_jax.io.errors import InputError


def query_text(query: str, *, most_characters: int) -> str:
    """Returns a query as the run would have it.

    Raises:
      InputError: it is no text, empty, or too long.
    """
    if not isinstance(query, str):
        raise InputError(f"query is {_shown(query)}; give a text")
    if not _is_unicode(query):
        raise InputError(f"query is {_shown(query)}, which has half a surrogate pair; give Unicode")
    return cleaned_query(query, name="the query", most=most_characters)


def id_list(item_ids: Iterable[str]) -> list[str]:
    """Returns item ids in their order.

    Raises:
      InputError: they are one text, which would be read as ids of a letter each; have no order; or
        one of them is no text, or longer than any id is.
    """
    if isinstance(item_ids, str | bytes | Mapping | Set) or not isinstance(item_ids, Iterable):
        raise InputError(f"item_ids is {_shown(item_ids)}; give a list of ids, perhaps of one")
    ids = list(item_ids)
    for item_id in ids:
        if not isinstance(item_id, str):
            raise InputError(f"item_ids has {_shown(item_id)}; every id has to be a text")
        if len(item_id) > ID_CHARACTERS:
            raise InputError(
                f"item_ids has {_shown(item_id)} of {len(item_id)} characters; an id has at most "
                f"{ID_CHARACTERS}"
            )
    if not _is_unicode("".join(ids)):
        (first, *_) = (item_id for item_id in ids if not _is_unicode(item_id))
        raise InputError(
            f"item_ids has {_shown(first)}, which has half a surrogate pair; give Unicode"
        )
    return ids


def code_prefix(sid_prefix: Sequence[int]) -> tuple[int, ...]:
    """Returns the first codes of a SID.

    Raises:
      InputError: they are no sequence of whole numbers.
    """
    if isinstance(sid_prefix, str | bytes | Mapping | Set) or not isinstance(sid_prefix, Iterable):
        raise InputError(f"sid_prefix is {_shown(sid_prefix)}; give a list of codes")
    codes = list(sid_prefix)
    for code in codes:
        if not isinstance(code, Integral) or isinstance(code, bool):
            raise InputError(f"sid_prefix has {_shown(code)}; every code has to be a whole number")
    return tuple(map(int, codes))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: object) -> str:
    """Returns a value for a message, of which a long one is cut."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
