"""A pretrained sentence encoder beside the from-scratch towers, on real judgements; and its speed.

    python benchmarks/encoder.py --encoder DIR [--esci DIR] [--chorus DIR] [--json FILE]
        [--scratch DIR]

Figures: ROC-AUC of the plain cosine over all judged pairs of head queries, which no encoder has
seen in training; the test split is not read. Intervals are a bootstrap over queries, those of
differences paired. Speed: item texts a second on the CPU, tokenisation included, against
transformers on the same weights where it is installed.

--encoder is the Hugging Face folder of a BERT-architecture sentence encoder, such as
all-MiniLM-L6-v2. With --scratch an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from lines import line, print_heading, print_row, write

from dsirm_jax.data import wordpieces
from dsirm_jax.data.schema import HEAD
from dsirm_jax.data.vectors import read_vectors
from dsirm_jax.encoder import hugging_face
from dsirm_jax.encoder.embed import embed_by_length
from dsirm_jax.encoder.kinds.pretrained import Pretrained
from dsirm_jax.encoder.kinds.protocol import RunTables
from dsirm_jax.metrics.bootstrap import (
    bootstrap,
    interval,
    per_query_auc_statistic,
    roc_auc_statistic,
)
from dsirm_jax.run.layout import Layout
from dsirm_jax.training.settings import Training

TOWERS = "two towers, from scratch"
NOTHING = Training(epochs=0, batch_size=64, learning_rate=0.0)
PROJECTION = Training(epochs=8, batch_size=256, learning_rate=3e-4)
WEIGHTS = Training(epochs=2, batch_size=64, learning_rate=3e-5, warmup_share=0.1)
VARIANTS = {
    "frozen": {"training": NOTHING},
    "frozen + projection": {"training": PROJECTION, "dim": 384},
    "frozen + projection, hard negatives": {
        "training": PROJECTION,
        "dim": 384,
        "hard_negatives": 1,
    },
    "fine-tuned": {"training": WEIGHTS, "frozen": False},
    "fine-tuned, hard negatives": {"training": WEIGHTS, "frozen": False, "hard_negatives": 1},
}
RESAMPLES = 1000
ITEM_PIECES = 48
SPEED_TEXTS = 2048


def main() -> None:
    """Makes all vectors, then prints a table of them and one of speed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", type=Path, required=True, help="Hugging Face folder")
    parser.add_argument("--esci", type=Path, help="folder of the official ESCI files")
    parser.add_argument("--chorus", type=Path, help="products.jsonl.gz and judgments.csv of Chorus")
    parser.add_argument("--json", type=Path, help="file of one JSON object a line")
    parser.add_argument("--scratch", type=Path, help="folder of all runs, kept and gone on with")
    arguments = parser.parse_args()
    bindings = {}
    if arguments.esci:
        bindings["esci"] = {"DATA_DIR": str(arguments.esci.absolute())}
    if arguments.chorus:
        folder = arguments.chorus.absolute()
        bindings["chorus"] = {
            "ITEMS": str(folder / "products.jsonl.gz"),
            "JUDGEMENTS": str(folder / "judgments.csv"),
        }
    with tempfile.TemporaryDirectory() as temporary:
        scratch = arguments.scratch or Path(temporary)
        layouts = {name: _towers(name, macros, scratch / name) for name, macros in bindings.items()}
        lines = [*_quality(layouts, arguments.encoder), *_speed(layouts, arguments.encoder)]
    write(arguments.json, lines)


def _towers(data: str, bindings: Mapping[str, str], folder: Path) -> Layout:
    """Prepares the data and trains the towers, as gin/runs/ has it."""
    flags = [
        f"--gin.{key}={value!r}"
        for key, value in (bindings | {"MODEL_DIR": str(folder.absolute())}).items()
    ]
    for stage in ("prepare", "encode"):
        command = [sys.executable, "-m", "dsirm_jax", stage, f"--gin_file=gin/runs/{data}.gin"]
        subprocess.run([*command, *flags], check=True)
    return Layout(model_dir=folder)


def _quality(layouts: Mapping[str, Layout], folder: Path) -> Iterator[dict]:
    print_heading(
        *("data", "encoder", "ROC-AUC (95 %)", "over the towers (95 %)"),
        *("per-query AUC (95 %)", "over the towers (95 %)"),
    )
    for name, layout in layouts.items():
        judged = _judged(layout)
        cosines = {TOWERS: _cosines(layout, judged)}
        for variant, settings in VARIANTS.items():
            own = Layout(model_dir=layout.model_dir / variant.replace(" ", "_"))
            encoder = Pretrained(
                folder=str(folder), max_query_pieces=24, max_item_pieces=ITEM_PIECES, **settings
            )
            tables = RunTables(
                items=layout.items,
                queries=layout.queries,
                item_vectors=own.item_vectors,
                query_vectors=own.query_vectors,
                judgements=layout.judgements,
                tfds_dir=layout.tfds,
                vocabulary=layout.vocabulary,
            )
            encoder.fit(tables, directory=own.stage("encode"), seed=0)
            cosines[variant] = _cosines(layout, judged, vectors=own)
        statistics = {}
        for variant, cosine in cosines.items():
            judgements = (judged["query_index"], judged["relevant"], cosine)
            statistics[variant, "ROC-AUC"] = roc_auc_statistic(*judgements)
            statistics[variant, "per-query AUC"] = per_query_auc_statistic(*judgements)
        values, samples = bootstrap(
            statistics,
            num_queries=len(np.unique(judged["query_index"])),
            num_pairs=len(judged["relevant"]),
            resamples=RESAMPLES,
            seed=0,
        )
        for variant in cosines:
            shown = []
            for metric in ("ROC-AUC", "per-query AUC"):
                ours, base = (variant, metric), (TOWERS, metric)
                estimate = interval(values[ours], samples[ours])
                gain = interval(values[ours] - values[base], samples[ours] - samples[base])
                shown.append(f"{estimate.value:.4f} ({estimate.low:.4f} to {estimate.high:.4f})")
                shown.append(f"{gain.value:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})")
                if variant != TOWERS:
                    ratios = samples[ours] / samples[base]
                    ratio = interval(values[ours] / values[base], ratios)
                    case = f"encoder/{name}/{variant}/{metric}"
                    bounds = {"ratio": ratio.value, "low": ratio.low, "high": ratio.high}
                    yield line(case, values[ours], values[base], "AUC", **bounds)
            print_row(name, variant, *shown)


def _judged(layout: Layout) -> dict[str, np.ndarray]:
    """Returns the judged pairs of the head queries."""
    names = ["query_index", "item_index", "relevant", "split"]
    table = pq.read_table(layout.judgements, columns=names)
    columns = {name: table[name].to_numpy() for name in names}
    held_out = columns.pop("split") == HEAD
    return {name: values[held_out] for name, values in columns.items()}


def _cosines(
    layout: Layout, judged: Mapping[str, np.ndarray], *, vectors: Layout | None = None
) -> np.ndarray:
    vectors = vectors or layout
    queries = pq.read_table(layout.queries, columns=["query"])["query"]
    items = pq.read_table(layout.items, columns=["item_id"])["item_id"]
    of_queries = read_vectors(vectors.query_vectors, ids=queries, id_column="query")
    of_items = read_vectors(vectors.item_vectors, ids=items, id_column="item_id")
    pairs = of_queries[judged["query_index"]], of_items[judged["item_index"]]
    return np.einsum("pd,pd->p", *pairs)


def _speed(layouts: Mapping[str, Layout], folder: Path) -> Iterator[dict]:
    print()
    print_heading("texts", "ours, texts/s", "transformers, texts/s", "ratio")
    encoder = hugging_face.read_folder(folder)
    for name, layout in layouts.items():
        texts = pq.read_table(layout.items, columns=["text"])["text"].to_pylist()[:SPEED_TEXTS]

        def ours(texts: list[str] = texts) -> np.ndarray:
            pieces = wordpieces.tokenize(
                encoder.tokenizer, texts, prefix="", max_pieces=ITEM_PIECES
            )
            arguments = {"module": encoder.module, "params": encoder.params, "pieces": pieces}
            return embed_by_length(**arguments, max_pieces=ITEM_PIECES, name="speed")

        rate = _rate(ours, len(texts))
        if importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"):
            other, difference = _transformers(folder, texts, ours())
            print_row(name, f"{rate:.0f}", f"{other:.0f}", f"{rate / other:.2f}")
            print(f"\nlargest difference of a coordinate: {difference:.1e}\n")
            yield line(f"encoder/{name}/speed", rate, other, "texts/s", ratio=rate / other)
        else:
            print_row(name, f"{rate:.0f}", "not installed", "")
            yield line(f"encoder/{name}/speed", rate, None, "texts/s", ratio=None)


def _rate(embed: Callable[[], np.ndarray], texts: int) -> float:
    """Returns texts a second, the best of three after one to compile."""
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        embed()
        seconds.append(time.perf_counter() - started)
    return texts / min(seconds[1:])


def _transformers(folder: Path, texts: list[str], ours: np.ndarray) -> tuple[float, float]:
    """Returns texts a second of transformers, texts of like length together, and how far it is.

    Batches are of 32 texts, as sentence-transformers has them; pooling is the mean.
    """
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
    vectors = np.empty_like(ours)

    def embed() -> np.ndarray:
        for start in range(0, len(order), 32):
            rows = order[start : start + 32]
            limits = {"padding": True, "truncation": True, "max_length": ITEM_PIECES}
            batch = tokenizer([texts[row] for row in rows], **limits, return_tensors="pt")
            with torch.inference_mode():
                states = model(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None]
            pooled = (states * mask).sum(1) / mask.sum(1)
            vectors[rows] = torch.nn.functional.normalize(pooled).numpy()
        return vectors

    rate = _rate(embed, len(texts))
    return rate, float(np.abs(vectors - ours).max())


if __name__ == "__main__":
    main()
