"""The numbers of items in a catalogue, those of earlier calls at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from dsirm_jax.serving.bundle.catalogue import BundleCatalogue
from dsirm_jax.serving.bundle.stored_items import UNKNOWN


class ItemNumbers:
    """Numbers by id, of which those that were asked for are remembered."""

    def __init__(self, catalogue: BundleCatalogue, *, most: int):
        """Remembers some more than `most` before it begins anew."""
        self._catalogue, self._most = catalogue, most
        self._known: dict[str, int] = {}

    def of(self, item_ids: Sequence[str]) -> Int[np.ndarray, " item"]:
        """Returns the number of each item, `UNKNOWN` where there is none."""
        known = self._known
        numbers = {item_id: known[item_id] for item_id in item_ids if item_id in known}
        if missing := [item_id for item_id in item_ids if item_id not in numbers]:
            looked_up = self._catalogue.numbers_of(missing).tolist()
            numbers |= zip(missing, looked_up, strict=True)
            if len(known) > self._most:
                known = self._known = {}
            known.update(pair for pair in numbers.items() if pair[1] != UNKNOWN)
        return np.fromiter((numbers[item_id] for item_id in item_ids), np.int64, len(item_ids))
