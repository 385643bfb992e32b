"""How long texts may be, from the tables that are prepared to whatever serves them.

What is longer is rejected or refused, with this number; of a text that models read in part, how
many are such is in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from dsirm_jax.data.text import clean
from dsirm_jax.io.errors import InputError

log = logging.getLogger(__name__)
QUERY_CHARACTERS = 1024
"""Of a query, cleaned by `text.clean`."""
ID_CHARACTERS = 512
"""Of an item's id. A thousand of them, the most of one request, fit in the body of one."""


def cleaned_query(query: str, *, name: str, most: int = QUERY_CHARACTERS) -> str:
    """Returns a query cleaned by `text.clean`.

    Args:
      query: any text.
      name: what messages call it.
      most: characters that it may have.

    Raises:
      InputError: nothing is left of it, or more than `most` characters.

    Example:
      >>> cleaned_query("<b>red</b>  shoe", name="the query")
      'red shoe'
    """
    text = clean(query)
    if not text:
        raise InputError(f"{name} is empty; give it a word")
    if len(text) > most:
        raise InputError(f"{name} has {len(text)} characters; give at most {most}")
    return text


def log_cut(pieces: Sequence[Sequence[int]], *, most: int, name: str) -> None:
    """Logs how many texts have more pieces than are read of them, if any.

    Args:
      pieces: of each text.
      most: that are read.
      name: of the work.
    """
    if cut := sum(len(text) > most for text in pieces):
        log.info(
            "%s: %s of %s texts have more pieces than the %s that are read of them",
            *(name, f"{cut:,}", f"{len(pieces):,}", most),
        )
