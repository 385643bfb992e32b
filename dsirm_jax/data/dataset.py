"""The TFDS dataset `shop_search`, made of the tables that `prepare` wrote."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import tensorflow_datasets as tfds

from dsirm_jax.data.schema import SPLITS, TRAIN

_BATCH = 65_536  # rows

_JUDGEMENT_FEATURES = {
    "query": tfds.features.Text(doc="what the customer typed"),
    "text": tfds.features.Text(doc="the item's text"),
    "query_index": tfds.features.Scalar(np.int64, doc="row of queries.parquet"),
    "item_index": tfds.features.Scalar(np.int64, doc="row of items.parquet"),
    "gain": tfds.features.Scalar(np.float32, doc="gain of the label"),
    "relevant": tfds.features.Scalar(np.bool_, doc="whether the label counts as relevant"),
    "weight": tfds.features.Scalar(np.float32, doc="importance in training losses"),
}
_ITEM_FEATURES = {
    "text": tfds.features.Text(doc="the item's text"),
    "item_index": tfds.features.Scalar(np.int64, doc="row of items.parquet"),
}


class ShopSearch(tfds.core.GeneratorBasedBuilder):
    """Judged pairs of queries and items (config `judgements`), and the catalogue (`items`)."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(
            name="judgements",
            description="One example per judged pair; a query's pairs are all in one split.",
        ),
        tfds.core.BuilderConfig(name="items", description="One example per item."),
    ]

    def __init__(self, *, prepare_dir: str | os.PathLike[str] | None = None, **kwargs: Any):
        """Takes the folder of the tables beside TFDS's own arguments; reading needs none."""
        self._prepare_dir = None if prepare_dir is None else Path(prepare_dir)
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        """Names the features of each config."""
        judged = self.builder_config.name == "judgements"
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(_JUDGEMENT_FEATURES if judged else _ITEM_FEATURES),
            description="A shop's search: queries, items and how well they match.",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        """Nothing is downloaded: the tables are there."""
        del dl_manager
        if self.builder_config.name == "items":
            return {TRAIN: self._generate_examples()}
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(
        self, split: str | None = None
    ) -> Iterator[tuple[int | str, dict[str, Any]]]:
        """Yields one split of the judgements, or the items, with keys that do not repeat."""
        if split is None:
            for row in _rows("SELECT text, item_index FROM items", self._prepare_dir):
                yield row["item_index"], row
            return
        joined = "SELECT {} FROM judgements JOIN items USING (item_index) WHERE split = '{}'"
        for row in _rows(joined.format(", ".join(_JUDGEMENT_FEATURES), split), self._prepare_dir):
            # The pair, not its position: the join promises no order, and TFDS orders by key.
            yield f"{row['query_index']} {row['item_index']}", row


def _rows(query: str, prepare_dir: Path) -> Iterator[dict[str, Any]]:
    """Yields the rows that a query finds, holding one batch of them in memory."""
    with duckdb.connect() as engine:
        for table in ("items", "judgements"):
            engine.read_parquet(str(prepare_dir / f"{table}.parquet")).create_view(table)
        for batch in engine.sql(query).to_arrow_reader(_BATCH):
            yield from batch.to_pylist()


def build(*, prepare_dir: str | os.PathLike[str], data_dir: str | os.PathLike[str]) -> None:
    """Writes the TFDS dataset; a finished one is written anew, a half-written one is discarded.

    Args:
      prepare_dir: folder with `items.parquet` and `judgements.parquet`.
      data_dir: where `shop_search/` goes.

    Source: this project; the format is TFDS's.
    """
    tfds.disable_progress_bar()
    for config in ("judgements", "items"):
        builder = ShopSearch(prepare_dir=prepare_dir, config=config, data_dir=data_dir)
        # TFDS announces a download on standard output, though there is none.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(
                    download_mode=tfds.GenerateMode.REUSE_CACHE_IF_EXISTS, try_download_gcs=False
                )
            )
