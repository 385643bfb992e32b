"""Counts that threads add to."""

from __future__ import annotations

import collections
import threading
from collections.abc import Iterable


class Counts:
    """How often what has a name has happened."""

    def __init__(self, names: Iterable[str]):
        """Begins with none of each name."""
        self._counts = collections.Counter(dict.fromkeys(names, 0))
        self._adding = threading.Lock()

    def add(self, name: str, by: int = 1) -> None:
        """Adds to a name's count."""
        with self._adding:
            self._counts[name] += by

    def now(self) -> dict[str, int]:
        """Returns the counts, all of one moment."""
        with self._adding:
            return dict(self._counts)
