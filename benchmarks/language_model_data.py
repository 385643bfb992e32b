"""Arrays that `benchmarks/language_model.py` learns from and is judged on.

    python benchmarks/language_model_data.py --out DIR --scratch DIR [--esci DIR] [--chorus DIR]
        [--minilm DIR] [--weights DIR ...] [--pieces N] [--quick]

Runs `dsirm prepare`, `encode` and `quantize` as gin/runs/ has them, with the vectors of a
pretrained encoder where its folder is given, and writes a folder of arrays a run: ESCI has its own
split, Chorus a run for each of five folds, as `dsirm ablate` makes them; without either, a
simulated shop. --weights are Hugging Face folders of language models, whose tokenizers split the
texts; of those that can spell bytes, only the pieces that these texts use are kept. In --scratch an
interrupted run goes on where it stopped.

data.npz          sids `[item, level]`, sizes; train `[pair, 2]` (query, item) with weight; test
                  `[pair, 2]`, the relevant ones of test queries; of every query its segment and
                  identity; nearest, for each test query, the items nearest by the run's vectors
NAME.npz          of a tokenizer, NAME being its folder's, `run` for the run's own: queries and
                  items, `[text, piece]`, 0 is padding; rows, the embedding's row of each piece;
                  marks, how many pieces before and behind a text are no part of it
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from dsirm_jax.data.identity import identities_in
from dsirm_jax.data.pairs import relevant_pairs
from dsirm_jax.data.schema import TEST, TRAIN
from dsirm_jax.data.vectors import read_vectors
from dsirm_jax.data.vocabularies import folder as vocabularies
from dsirm_jax.data.vocabularies.prompt import Prompted
from dsirm_jax.data.vocabularies.protocol import Marks, Vocabulary
from dsirm_jax.data.vocabularies.sentence_piece import SentencePiece
from dsirm_jax.data.vocabularies.trimming import Trimmed, trimmed
from dsirm_jax.data.vocabulary import rectangle
from dsirm_jax.metrics.retrieval import HITS_AT
from dsirm_jax.relevance.nearest.exact import nearest_rows
from dsirm_jax.run.layout import Layout
from dsirm_jax.sids.codes import read_sids

STAGES = ("prepare", "encode", "quantize")
FOLDS = 5
PIECES = 24
RUN = "run"
CHORUS = (
    "--gin_file=gin/runs/chorus.gin",
    "--gin.quantizer_config.QuantizerConfig.title_language='en'",
    "--gin.quantizer_config.QuantizerConfig.pin_depth=0",
)


def main() -> None:
    """Runs what is not finished, then writes the arrays."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of all arrays")
    parser.add_argument("--scratch", type=Path, required=True, help="folder of all runs, kept")
    parser.add_argument("--esci", type=Path, help="folder of the official ESCI files")
    parser.add_argument("--chorus", type=Path, help="products.jsonl.gz and judgments.csv of Chorus")
    parser.add_argument("--minilm", type=Path, help="folder of a pretrained encoder")
    parser.add_argument("--weights", type=Path, nargs="*", default=[], help="of language models")
    parser.add_argument("--pieces", type=int, default=PIECES, help=f"of a text; {PIECES}")
    parser.add_argument("--quick", action="store_true", help="a shop of 1,000 items, one fold")
    given = parser.parse_args()
    encoder = []
    if given.minilm:
        folder = str(given.minilm.absolute())
        encoder = ["--gin_file=gin/models/minilm.gin", f"--gin.ENCODER={folder!r}"]
    for name, flags in _runs(given):
        layout = _run([*flags, *encoder], given.scratch / name)
        write(given.out / name, layout, weights=given.weights, pieces=given.pieces)
        print(given.out / name, flush=True)


def _runs(given: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """Yields the name and flags of each run."""
    if given.esci:
        folder = str(given.esci.absolute())
        yield "esci", ["--gin_file=gin/runs/esci.gin", f"--gin.DATA_DIR={folder!r}"]
    if given.chorus:
        files = {"ITEMS": "products.jsonl.gz", "JUDGEMENTS": "judgments.csv"}
        bound = (
            f"--gin.{name}={str(given.chorus.absolute() / file)!r}" for name, file in files.items()
        )
        flags = [*CHORUS, *bound]
        for number in range(1 if given.quick else FOLDS):
            fold = f"--gin.prepare.run.fold=({number}, {FOLDS})"
            yield f"chorus-{number}", [*flags, fold]
    if not (given.esci or given.chorus):
        small = ["--gin.simulated_shop.SimulatedShop.items=1000"] if given.quick else []
        yield "shop", ["--gin_file=gin/runs/demo.gin", *small]


def _run(flags: Sequence[str], folder: Path) -> Layout:
    """Runs the stages that are not finished yet."""
    own = f"--gin.MODEL_DIR={str(folder.absolute())!r}"
    for stage in STAGES:
        done = subprocess.run([sys.executable, "-m", "dsirm_jax", stage, *flags, own])
        if done.returncode:
            raise SystemExit(done.returncode)
    return Layout(model_dir=folder)


def write(folder: Path, layout: Layout, *, weights: Sequence[Path], pieces: int) -> None:
    """Writes the arrays of a run; see this module.

    Args:
      folder: where to.
      layout: of a run whose quantizer is fitted.
      weights: Hugging Face folders with a tokenizer.
      pieces: read of a text.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = pq.read_table(layout.queries, columns=["query", "segment"])
    queries, segments = (table[name].to_pylist() for name in ("query", "segment"))
    items = pq.read_table(layout.items, columns=["item_id", "text"])
    judged = pq.read_table(layout.judgements).to_pydict()
    weight = np.asarray(judged["gain"], np.float32) * np.asarray(judged["weight"], np.float32)
    pairs = np.stack([judged["query_index"], judged["item_index"]], axis=1)
    learnt = (np.asarray(judged["split"]) == TRAIN) & (weight > 0)
    test = relevant_pairs(layout.judgements, split=TEST)
    asked = np.unique(test[:, 0])
    found = nearest_rows(
        queries=read_vectors(layout.query_vectors, ids=queries, id_column="query")[asked],
        candidates=read_vectors(layout.item_vectors, ids=items["item_id"], id_column="item_id"),
        k=max(HITS_AT),
    )
    np.savez(
        folder / "data.npz",
        sids=np.asarray(read_sids(layout.sids).sids, np.int32),
        sizes=json.loads(layout.health.read_text("utf-8"))["sizes"],
        train=pairs[learnt],
        weight=weight[learnt],
        test=test,
        segment=np.array(segments),
        identity=identities_in(layout.queries),
        nearest=found.row,
    )
    texts = [*queries, *items["text"].to_pylist()]
    own = SentencePiece.read(layout.vocabulary)
    known = {RUN: (own, np.arange(own.size))}
    known |= {path.resolve().name: small(path, texts) for path in weights}
    for name, (vocabulary, rows) in known.items():
        split = Prompted(vocabulary=vocabulary, most=pieces).pieces(texts)
        whole = rectangle(split, shape=(len(texts), pieces))
        found = {"queries": whole[: len(queries)], "items": whole[len(queries) :]}
        marks = [len(ids) for ids in vocabulary.marks]
        np.savez(folder / f"{name}.npz", **found, rows=rows, marks=marks)


def small(folder: Path, texts: Sequence[str]) -> tuple[Vocabulary, np.ndarray]:
    """Returns a tokenizer with the pieces that texts use, and the embedding's row of each.

    One that cannot spell what is left out in bytes, as T5's, keeps all.
    """
    whole = _read(folder)
    if not whole.byte_pieces:
        return whole, np.arange(whole.size)
    kept = trimmed(whole, texts)
    rows = whole.kept[kept] if isinstance(whole, Trimmed) else kept
    return Trimmed(whole=whole, kept=kept), rows


def _read(folder: Path) -> Vocabulary:
    tokenizer = vocabularies.tokenizer_file(folder)
    if tokenizer.suffix == ".json" or (folder / vocabularies.DESCRIPTION).is_file():
        return vocabularies.read(folder)
    return SentencePiece.read(tokenizer, marks=_marks(folder))


def _marks(folder: Path) -> Marks:
    """Returns what a model whose SentencePiece does not say so wants around a text."""
    described = json.loads((folder / "config.json").read_text("utf-8"))
    if "t5" in described["model_type"]:
        return (), (described["eos_token_id"],)
    return (described["bos_token_id"],), ()


if __name__ == "__main__":
    main()
