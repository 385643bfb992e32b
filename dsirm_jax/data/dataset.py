"""The TFDS dataset `shop_search`, made of the tables that `prepare` wrote."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from dsirm_jax.data.schema import HEAD, TEST, TRAIN, TRAIN_IRRELEVANT, TRAIN_RELEVANT
from dsirm_jax.io.errors import InputError

_SPLITS = {
    "judgements": {
        TRAIN_RELEVANT: (pc.field("split") == TRAIN) & pc.field("relevant"),
        TRAIN_IRRELEVANT: (pc.field("split") == TRAIN) & ~pc.field("relevant"),
        HEAD: pc.field("split") == HEAD,
        TEST: pc.field("split") == TEST,
    },
    "items": {TRAIN: pc.scalar(True)},
}
_FILES = {"judgements": "examples.parquet", "items": "items.parquet"}
_KEYS = {"judgements": ("query_index", "item_index"), "items": ("item_index",)}
_FEATURES = {
    "judgements": {
        "query": tfds.features.Text(doc="what the customer typed"),
        "text": tfds.features.Text(doc="the item's text"),
        "query_index": tfds.features.Scalar(np.int64, doc="row of queries.parquet"),
        "item_index": tfds.features.Scalar(np.int64, doc="row of items.parquet"),
        "gain": tfds.features.Scalar(np.float32, doc="gain of the label"),
        "relevant": tfds.features.Scalar(np.bool_, doc="whether the label counts as relevant"),
        "weight": tfds.features.Scalar(np.float32, doc="importance in training losses"),
    },
    "items": {
        "text": tfds.features.Text(doc="the item's text"),
        "item_index": tfds.features.Scalar(np.int64, doc="row of items.parquet"),
    },
}


class _SortedWriter(tfds.core.ExampleWriter):
    """Writes the features of an example in one order.

    They are a map, which protobuf otherwise writes in an order of each process's own.
    """

    def write(self, path: Any, examples: Iterable[tuple[Any, bytes]]) -> Any:
        return super().write(path, ((key, _sorted(example)) for key, example in examples))


def _sorted(example: bytes) -> bytes:
    parsed = tf_example_pb2.Example.FromString(example)
    return parsed.SerializeToString(deterministic=True)


class ShopSearch(tfds.core.GeneratorBasedBuilder):
    """Judged pairs of queries and items (config `judgements`), and the catalogue (`items`).

    A query's pairs are all in `head`, all in `test`, or all in `train_relevant+train_irrelevant`.
    A split without rows is left out.
    """

    VERSION = tfds.core.Version("2.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name="judgements", description="One example per judged pair."),
        tfds.core.BuilderConfig(name="items", description="One example per item."),
    ]

    def __init__(
        self,
        *,
        prepare_dir: str | os.PathLike[str] | None = None,
        beam: bool = False,
        **kwargs: Any,
    ):
        """Takes what `build` needs beside TFDS's own arguments; reading needs neither."""
        self._prepare_dir = None if prepare_dir is None else Path(prepare_dir)
        self._beam = beam
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        """Names the features of each config."""
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(_FEATURES[self.builder_config.name]),
            description="A shop's search: queries, items and how well they match.",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        """Nothing is downloaded: the tables are there."""
        del dl_manager
        table = pyarrow.dataset.dataset(self._file)
        return {
            split: self._generate_examples(rows)
            for split, rows in _SPLITS[self.builder_config.name].items()
            if table.count_rows(filter=rows)  # TFDS writes no split without rows
        }

    def _generate_examples(self, rows: pc.Expression) -> Any:
        """Returns the examples of some rows: an iterator, or what makes them under Beam."""
        config = self.builder_config.name
        read = functools.partial(
            _read, file=self._file, rows=rows, keys=_KEYS[config], columns=tuple(_FEATURES[config])
        )
        row_groups = range(pq.read_metadata(self._file).num_row_groups)
        if not self._beam:
            return itertools.chain.from_iterable(map(read, row_groups))
        import apache_beam

        return apache_beam.Create(row_groups) | apache_beam.Reshuffle() | apache_beam.FlatMap(read)

    def _example_writer(self) -> tfds.core.ExampleWriter:
        return _SortedWriter(file_format=self.info.file_format)

    @property
    def _file(self) -> Path:
        assert self._prepare_dir is not None  # a builder that reads has it, see `write_dataset`
        return self._prepare_dir / _FILES[self.builder_config.name]


def _read(
    row_group: int, *, file: Path, rows: pc.Expression, keys: Sequence[str], columns: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the examples in one row group of a Parquet file, with keys that do not repeat.

    TFDS orders by a hash of the key, so a key names the example, whatever row it is in.
    """
    (whole,) = pyarrow.dataset.dataset(file).get_fragments()
    part = whole.subset(row_group_ids=[row_group])
    for row in part.to_table(columns=list(columns), filter=rows).to_pylist():
        yield " ".join(str(row[key]) for key in keys), row


def write_dataset(
    *,
    prepare_dir: str | os.PathLike[str],
    data_dir: str | os.PathLike[str],
    beam_runner: str | None = None,
    beam_options: Sequence[str] = (),
) -> None:
    """Writes the TFDS dataset; a finished one is written anew, a half-written one is discarded.

    The same tables give the same bytes. The examples and their order are also the same under Beam,
    which may cut them into files elsewhere. Without it, up to 1 GB of examples are sorted in
    memory, and more on disk.

    Args:
      prepare_dir: folder with `items.parquet` and `examples.parquet`.
      data_dir: where `shop_search/` goes.
      beam_runner: Apache Beam's runner to write with, e.g. `DirectRunner`; in this process when
        not given.
      beam_options: of the runner, e.g. `("--direct_num_workers=2",)`.

    Raises:
      InputError: a runner without Apache Beam.

    Source: this project; the format is TFDS's.
    """
    options = beam_pipeline_options(beam_options) if beam_runner else None
    tfds.disable_progress_bar()
    for config in _FILES:
        builder = ShopSearch(
            prepare_dir=prepare_dir, beam=beam_runner is not None, config=config, data_dir=data_dir
        )
        # TFDS announces a download on standard output, though there is none.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(
                    download_mode=tfds.GenerateMode.REUSE_CACHE_IF_EXISTS,
                    try_download_gcs=False,
                    beam_runner=beam_runner,
                    beam_options=options,
                )
            )


def beam_pipeline_options(flags: Sequence[str]) -> Any:
    """Returns Apache Beam's options of some flags.

    Raises:
      InputError: Apache Beam is not installed.
    """
    try:
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise InputError(
            "beam_runner needs Apache Beam: pip install '.[beam]' in a checkout, or bind None to it"
        ) from error
    return PipelineOptions(list(flags))
