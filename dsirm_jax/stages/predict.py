"""The SIDs of a user's own queries, by the generator of a finished run, which stays as it is."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from dsirm_jax.io.checks import check_whole
from dsirm_jax.run.layout import Layout
from dsirm_jax.run.runner import Stage
from dsirm_jax.stages import generate
from dsirm_jax.training import processes


def run(
    layout: Layout,
    *,
    table: str,
    beams: int,
    columns: dict[str, str],
    run_columns: dict[str, str],
) -> None:
    """a table of query texts -> their most probable SIDs, from the generator as it is.

    Args:
      layout: the run.
      table: the file, see `query_files.read_query_file`.
      beams: SIDs that the generator writes for a query.
      columns: our column name to that of the file, where they differ.
      run_columns: likewise of the run's judgements, where the file calls them so.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from dsirm_jax.data.vocabularies import folder
    from dsirm_jax.generator.fitted import load_with_sids
    from dsirm_jax.generator.predict import join_query_shards, predict_shards
    from dsirm_jax.ingestion.query_files import read_query_file
    from dsirm_jax.io.files import replacing

    check_whole("generate.run.beams", beams, least=1)
    fitted, existing, _ = load_with_sids(layout.generator, sids=layout.sids)
    vocabulary = folder.of_generator(layout.generator_vocabulary, of_run=layout.vocabulary)
    queries = layout.stage("predict") / "queries.parquet"
    schema = pa.schema([("query", pa.string())])

    def read() -> None:
        with replacing(queries) as partial, pq.ParquetWriter(partial, schema) as writer:
            for texts in read_query_file(table, columns=columns, of_run=run_columns):
                writer.write_batch(pa.record_batch([pa.array(texts, pa.string())], schema=schema))

    processes.first(read)
    written = predict_shards(
        fitted=fitted,
        trie=existing,
        queries=queries,
        encode=fitted.reading(vocabulary).pieces,
        pattern=layout.stage("predict") / "query_sids-*.parquet",
        beams=beams,
    )
    join = functools.partial(
        join_query_shards, into=layout.predicted, sid_version=fitted.sid_version
    )
    processes.first(functools.partial(join, written))


def predicted(layout: Layout, *, queries: Sequence[str], beams: int, titles: int = 3) -> str:
    """Returns the SIDs of queries, their probabilities and some of their items, as text.

    Raises:
      InputError: a query is empty or too long.
    """
    import pyarrow.parquet as pq

    from dsirm_jax.data.limits import cleaned_query
    from dsirm_jax.data.vocabularies import folder
    from dsirm_jax.generator.fitted import load_with_sids
    from dsirm_jax.generator.predict import predict_sids
    from dsirm_jax.sids import trie

    texts = [cleaned_query(query, name="--query") for query in queries]
    fitted, existing, sids = load_with_sids(layout.generator, sids=layout.sids)
    vocabulary = folder.of_generator(layout.generator_vocabulary, of_run=layout.vocabulary)
    pieces = fitted.reading(vocabulary).pieces(texts)
    best = predict_sids(
        fitted=fitted, trie=existing, pieces=pieces, beams=beams, batch_size=len(queries)
    )
    postings = trie.postings(sids, sizes=existing.sizes)
    names = pq.read_table(layout.items, columns=["title"])["title"]
    lines = []
    for row, query in enumerate(texts):
        lines.append(query)
        for sid, log_prob in zip(
            best.sids[row][best.valid[row]], best.log_probs[row][best.valid[row]], strict=True
        ):
            rows = trie.items_below(existing, postings, sid)
            shown = " | ".join(names.take(rows[:titles]).to_pylist())
            more = f" … {len(rows):,} items" if len(rows) > titles else ""
            lines.append(f"  {'-'.join(map(str, sid)):<12} {np.exp(log_prob):6.1%}  {shown}{more}")
    return "\n".join(lines)


STAGE = Stage(name="predict", function=run, needs=(generate.STAGE,), reads_run=True)
