"""A scorer of a small simulated shop, in memory: what HTTP and the explorer are tested with.

`python -m tests.serving.stand_in` serves it; `served` runs that.
"""

import argparse
import contextlib
import re
import subprocess
import sys
import threading
import time

import numpy as np

from dsirm_jax.ingestion.readers.simulated_shop import SimulatedShop
from dsirm_jax.io.errors import InputError
from dsirm_jax.serving import Branch, Item, QuerySids, Scored, Scorer
from dsirm_jax.serving.bundle.manifest import FeatureColumn

SCHEMA = (
    FeatureColumn(name="cosine", group="dense", about="cosine of query and item"),
    FeatureColumn(
        name="overlap", group="lexical", about="share of the query's words in the item's text"
    ),
    FeatureColumn(
        name="beam_mass_1", group="prefix", about="P(beam | query) over beams that agree at 1"
    ),
    FeatureColumn(
        name="beam_mass_2", group="prefix", about="P(beam | query) over beams that agree at 2"
    ),
    FeatureColumn(
        name="beam_mass_3", group="prefix", about="P(beam | query) over beams that agree at 3"
    ),
)
BEAMS, QUOTED = 8, '12" & up'


class StandIn(Scorer):
    """Its SIDs are type, brand and number; what it makes of a query follows from shared words.

    Args:
      items: size of the shop.
      seconds: that every call takes.
    """

    def __init__(self, *, items=400, seconds=0.0):
        source = SimulatedShop(items=items, queries=50).read()
        rows = [row for part in source.items for chunk in part() for row in chunk.table.to_pylist()]
        types = sorted({row["truth_type"] for row in rows})
        brands = sorted({row["brand"] or "" for row in rows})
        self._items = [
            Item(
                item_id=row["item_id"],
                title=row["title"],
                sid=(types.index(row["truth_type"]), brands.index(row["brand"] or ""), number % 4),
                attributes={name: row[name] for name in ("brand", "colour") if row[name]}
                | ({"category": " > ".join(row["category"])} if row["category"] else {}),
            )
            for number, row in enumerate(rows)
        ]
        self._place = {item.item_id: place for place, item in enumerate(self._items)}
        self._sids = np.array([item.sid for item in self._items], np.int32)
        self._words = [set(_words(item.title)) for item in self._items]
        self._departments = np.array([(row["category"] or [""])[0] for row in rows])
        self.schema, self.sizes = SCHEMA, (len(types), len(brands), 4)
        self.seconds, self.calls = seconds, 0

    def close(self):
        pass

    def warm(self, *batches):
        self.warmed = batches

    def _overlap(self, query):
        if not query.strip():
            raise InputError("the query is empty")
        self.calls += 1
        time.sleep(self.seconds)
        words = set(_words(query))
        return np.array([len(words & own) / max(len(words), 1) for own in self._words], np.float32)

    def score(self, query, item_ids, *, deadline=None):
        overlap, beams = self._overlap(query), self.query_sids(query)
        known = [item_id in self._place for item_id in item_ids]
        rows = np.array([self._place.get(item_id, 0) for item_id in item_ids])
        agree = np.cumprod(beams.sids[:, None] == self._sids[rows], axis=2)  # [beam, item, level]
        mass = np.einsum("b,bil->il", beams.probabilities, agree)
        cosine = 0.3 + 0.6 * overlap[rows]
        features = np.column_stack([cosine, overlap[rows], mass]).astype(np.float32)
        dense_only = 1 / (1 + np.exp(3 - 6 * overlap[rows]))
        full = 1 / (1 + np.exp(4 - 5 * overlap[rows] - 4 * mass[:, 0] - 2 * mass[:, 1]))
        return Scored(
            probabilities=np.where(known, full, np.nan).astype(np.float32),
            dense_only=np.where(known, dense_only, np.nan).astype(np.float32),
            source=beams.source,
            features=np.where(np.array(known)[:, None], features, np.nan),
            unknown=tuple(i for i, is_known in zip(item_ids, known) if not is_known),
        )

    def query_sids(self, query, *, deadline=None):
        overlap = self._overlap(query)
        if deadline is not None and deadline < 0.001:
            nothing = np.zeros((0, 3), np.int32), np.zeros(0, np.float32)
            return QuerySids(sids=nothing[0], probabilities=nothing[1], source="fallback")
        best = np.argsort(-overlap, kind="stable")[:BEAMS]
        sids, first = np.unique(self._sids[best], axis=0, return_index=True)
        order = np.argsort(first)
        weights = np.exp(8 * overlap[best][first])[order]
        probabilities = (0.9 * weights / weights.sum()).astype(np.float32)
        by_probability = np.argsort(-probabilities, kind="stable")
        return QuerySids(
            sids=sids[order][by_probability],
            probabilities=probabilities[by_probability],
            source="cached" if query == self._items[0].title else "live",
        )

    def items(self, sid_prefix, *, most=50):
        return [self._items[row] for row in self._below(sid_prefix)[:most]]

    def children(self, sid_prefix):
        rows, level = self._below(sid_prefix), len(sid_prefix)
        if level == len(self.sizes):
            return []
        return [
            self._branch(int(code), rows[self._sids[rows, level] == code])
            for code in np.unique(self._sids[rows, level])
        ]

    def _branch(self, code, rows):
        names, counts = np.unique(self._departments[rows], return_counts=True)
        return Branch(
            code=code,
            items=len(rows),
            category=str(names[counts.argmax()]) or None,
            purity=float(counts.max() / len(rows)),
            titles=tuple(self._items[row].title for row in rows[:3]),
        )

    def candidates(self, query, *, most=50, deadline=None):
        best = np.argsort(-self._overlap(query), kind="stable")[:most]
        return [self._items[row].item_id for row in best]

    def described(self, item_ids):
        return [self._items[self._place[item_id]] for item_id in item_ids]

    def examples(self, *, most=12):
        return [f"toy {QUOTED}", "red plush toy", "shoe insoles", self._items[0].title][:most]

    def statistics(self):
        return {"items": len(self._items), "waiting": 0, "cached": 0, "live": self.calls}

    def _below(self, prefix):
        agree = (self._sids[:, : len(prefix)] == np.array(prefix, np.int64)).all(axis=1)
        if not agree.any():
            raise InputError(f"no item has the prefix {'.'.join(map(str, prefix))}")
        return np.flatnonzero(agree)


class Gated(StandIn):
    """Every call waits until it is let through."""

    def __init__(self):
        super().__init__(items=40)
        self.gate = threading.Event()

    def query_sids(self, query, *, deadline=None):
        assert self.gate.wait(600)
        return super().query_sids(query, deadline=deadline)


def _words(text):
    return re.findall(r"\w+", text.lower())


@contextlib.contextmanager
def served(*, seconds=0.0, port=0, **settings):
    """Serves a stand-in in a process of its own, and yields the process and its address."""
    given = {"seconds": seconds, "port": port, **settings}
    flags = [f"--{name}={value}" for name, value in given.items()]
    command = [sys.executable, "-m", "tests.serving.stand_in", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, process.stdout.readline().split()[1].rstrip("/")
        finally:
            process.kill()


def main():
    from dsirm_jax.serving.http.server import serve
    from dsirm_jax.serving.http.settings import ServerSettings

    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--port", type=int)
    for name in ("workers", "waiting", "goodbye_seconds"):
        parser.add_argument(f"--{name}", type=int, default=getattr(ServerSettings, name))
    given = vars(parser.parse_args())
    scorer, port = StandIn(seconds=given.pop("seconds")), given.pop("port")
    serve(scorer, host="127.0.0.1", port=port, settings=ServerSettings(**given))


if __name__ == "__main__":
    main()
