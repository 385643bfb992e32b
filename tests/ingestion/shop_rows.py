"""A small shop of rows in memory, and a reader of it."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dsirm_jax.data import schema
from dsirm_jax.data.schema import Chunk, Source

GAINS = {"E": 1.0, "S": 0.1, "C": 0.01, "I": 0.0}
SETTINGS = {
    "label_gains": GAINS,
    "relevant_labels": ("E",),
    "seed": 5,
    "vocabulary_size": 300,
    "workers": 1,
}


@dataclasses.dataclass(frozen=True)
class Rows:
    """A reader of rows in memory, in one or more files."""

    items: list[dict]
    judgements: list[dict]
    extras: pa.Schema = dataclasses.field(default_factory=lambda: pa.schema([]))
    parts: int = 1

    def files(self):
        return []

    def read(self):
        items = self._parts("items", self.items, [*schema.RAW_ITEMS, *self.extras])
        judgements = self._parts("judgements", self.judgements, schema.RAW_JUDGEMENTS)
        return Source(items=items, judgements=judgements, extras=self.extras)

    def _parts(self, name, rows, columns):
        return [
            functools.partial(
                chunks,
                f"{name}-{number}.csv",
                pa.Table.from_pylist(rows[number :: self.parts], pa.schema(columns)),
            )
            for number in range(self.parts)
        ]


def chunks(file, table):
    for start in range(0, len(table), 50):
        yield Chunk(
            table=table.slice(start, 50),
            file=file,
            first_row=start + 1,
            columns={"item_id": "sku"},
        )


def shop(queries=60, items=40, per_query=6, seed=0):
    random = np.random.default_rng(seed)
    catalogue = [
        {
            "item_id": f"i{number:03}",
            "title": f"{random.choice(['Red', 'Blue'])} shoe {number}",
            "brand": str(random.choice(["Acme", "Bolt"])),
            "category": ["shoes", str(random.choice(["men", "women"]))],
        }
        for number in range(items)
    ]
    judgements = [
        {
            "query": f"query {query}",
            "item_id": f"i{item:03}",
            "label": str(random.choice(list(GAINS), p=[0.5, 0.2, 0.1, 0.2])),
        }
        for query in range(queries)
        for item in random.choice(items, size=1 + random.integers(per_query), replace=False)
    ]
    return catalogue, judgements


def read(folder, name):
    return pq.read_table(folder / f"{name}.parquet").to_pylist()
