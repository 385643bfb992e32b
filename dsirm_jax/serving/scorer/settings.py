"""How a scorer serves."""

from __future__ import annotations

import dataclasses
import os
import threading

from dsirm_jax.data.limits import QUERY_CHARACTERS
from dsirm_jax.io.checks import is_whole
from dsirm_jax.io.errors import InputError
from dsirm_jax.serving.limits import seconds, whole
from dsirm_jax.serving.queries.table import QueryStore
from dsirm_jax.serving.scorer.generation import SID_WIDTHS
from dsirm_jax.serving.scorer.judging import PROGRAM_PAIRS

MOST_ITEMS = min(SID_WIDTHS[-1], PROGRAM_PAIRS[-1])
"""Items of a call that programs exist for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScorerSettings:
    """How a scorer serves.

    Attributes:
      batch: most queries that the generator reads at once.
      waiting: most queries that wait for it; a further one is refused.
      deadline: seconds that a caller waits for the generator where it names no deadline.
      warm: batch sizes compiled when the bundle is opened; others are when they first occur.
      most_items: most items of one call, up to `MOST_ITEMS`.
      most_characters: of a query.
      warm_items: items of a call that programs are compiled for when the bundle is opened.
      remembered: cached queries of which what is read from the bundle is kept in memory.
      remembered_items: items whose numbers are kept likewise.
      remembered_answers: answers about cached queries that are kept for whoever asks about the same
        items again, some 25 kB each where there are 100 items; 0: none.
      programs: folder where compiled programs are kept for the next start, which then compiles
        none; None: where JAX is configured to keep them, if at all.
      queries: a store of further cached queries, such as `redis_store.RedisQueries`, which is asked
        about those that the bundle lacks; None: there is none.

    Raises:
      InputError: one of them is not what it has to be; the message names it.
    """

    batch: int = 32
    waiting: int = 256
    deadline: float = 1.0
    warm: tuple[int, ...] = (1,)
    most_items: int = MOST_ITEMS
    most_characters: int = QUERY_CHARACTERS
    warm_items: int = 100
    remembered: int = 4096
    remembered_items: int = 1 << 16
    remembered_answers: int = 1024
    programs: str | os.PathLike[str] | None = None
    queries: QueryStore | None = None

    def __post_init__(self) -> None:
        def check(name: str, *, least: int, most: int | None = None) -> None:
            whole(f"ScorerSettings.{name}", getattr(self, name), least=least, most=most)

        for name in ("batch", "waiting", "most_characters"):
            check(name, least=1)
        for name in ("remembered", "remembered_items", "remembered_answers"):
            check(name, least=0)
        check("most_items", least=1, most=MOST_ITEMS)
        check("warm_items", least=0, most=MOST_ITEMS)
        seconds("ScorerSettings.deadline", self.deadline, most=threading.TIMEOUT_MAX)
        if not isinstance(self.warm, tuple):
            raise InputError(f"ScorerSettings.warm is {self.warm!r}; give a tuple of batch sizes")
        for size in self.warm:
            if not is_whole(size, least=1):
                raise InputError(
                    f"ScorerSettings.warm is {self.warm!r}; give batch sizes of at least 1"
                )
        if not isinstance(self.programs, str | os.PathLike | None) or self.programs == "":
            raise InputError(
                f"ScorerSettings.programs is {self.programs!r}; give the path of a folder, or None"
            )
