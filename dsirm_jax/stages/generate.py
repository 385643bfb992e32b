"""Stage `generate`: query texts to their most probable SIDs."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsirm_jax.data.vocabularies.prompt import QUERY, Prompted, check_prompt
from dsirm_jax.io.checks import check_choice, check_holds, check_text, check_whole
from dsirm_jax.run.layout import Layout
from dsirm_jax.run.runner import Stage
from dsirm_jax.stages import prepare, quantize
from dsirm_jax.training import processes

if TYPE_CHECKING:
    import numpy as np

    from dsirm_jax.data.tasks import Curriculum
    from dsirm_jax.data.vocabularies.protocol import Vocabulary
    from dsirm_jax.generator.alignment.alignment import Alignment
    from dsirm_jax.generator.architectures.architecture import Architecture
    from dsirm_jax.generator.code_start import Directions
    from dsirm_jax.generator.losses import GeneratorObjective
    from dsirm_jax.sids.trie import Trie
    from dsirm_jax.training.settings import Training

CODE_STARTS = (None, "titles", "codewords")
"""What codes are read by before training; see `generator/code_start.py`."""


def run(
    layout: Layout,
    *,
    seed: int,
    config: Architecture,
    objective: GeneratorObjective,
    training: Training,
    curriculum: Curriculum,
    max_pieces: int,
    beams: int,
    prompt: str = QUERY,
    vocabulary: str | None = None,
    start: str | None = None,
    code_start: str | None = None,
    alignment: Alignment | None = None,
    model_parallel: int = 1,
) -> None:
    """query texts -> their most probable SIDs, and exact log-probs of the judged pairs."""
    import pyarrow.parquet as pq

    from dsirm_jax.data import tasks
    from dsirm_jax.data.limits import log_cut
    from dsirm_jax.data.pairs import read_judgements
    from dsirm_jax.data.vocabularies import folder
    from dsirm_jax.generator import fitted as generators
    from dsirm_jax.generator.architectures.architecture import check_architecture, init_params
    from dsirm_jax.generator.code_start import started
    from dsirm_jax.generator.hits import write_hits
    from dsirm_jax.generator.predict import join_query_shards, predict_shards
    from dsirm_jax.generator.score import score_pairs, write_pair_log_probs
    from dsirm_jax.generator.train import train
    from dsirm_jax.sids import trie
    from dsirm_jax.sids.codes import read_sids

    check_whole("generate.run.max_pieces", max_pieces, least=1)
    check_whole("generate.run.beams", beams, least=1)
    check_whole("generate.run.model_parallel", model_parallel, least=1)
    table = read_sids(layout.sids)
    sizes = tuple(json.loads(layout.health.read_text("utf-8"))["sizes"])
    own = layout.generator_vocabulary
    if vocabulary:
        processes.first(functools.partial(folder.copy, Path(vocabulary), own))
    tokenizer = folder.of_generator(own, of_run=layout.vocabulary)
    prompted = Prompted(vocabulary=tokenizer, prompt=prompt, most=max_pieces)
    config = check_architecture(config).fitted_to(text_vocab_size=tokenizer.size, sid_sizes=sizes)
    batches, num_rows, held_out = tasks.text_sid_batches(
        tfds_dir=layout.tfds,
        vocabulary=None if vocabulary else layout.vocabulary,
        sids=table.sids,
        sizes=sizes,
        prompted=prompted,
        curriculum=curriculum,
        training=training,
        queries=layout.queries,
        judgements=layout.judgements,
        seed=seed,
    )
    params = config.pretrained(Path(start), seed=seed, vocabulary=tokenizer) if start else None
    if code_start:
        params = params or init_params(config, seed=seed)
        directions = _directions(
            layout, code_start, config=config, params=params, tokenizer=tokenizer, seed=seed
        )
        params = started(config, params, directions)
    params = train(
        config=config,
        objective=objective,
        training=training,
        batches=batches,
        num_rows=num_rows,
        held_out=held_out,
        directory=layout.stage("generate"),
        seed=seed,
        params=params,
        model_parallel=model_parallel,
    )
    as_fitted = functools.partial(
        generators.FittedGenerator,
        config=config.unscanned(),
        max_pieces=max_pieces,
        sid_version=table.version,
        prompt=prompt,
    )
    existing = trie.build(table.sids, sizes=sizes)
    texts = pq.read_table(layout.queries, columns=["query"])["query"].to_pylist()
    whole = prompted.whole(texts)
    log_cut(whole, most=max_pieces, name="generate")
    pieces = prompted.cut(whole)
    if alignment:
        supervised = as_fitted(params=config.unstacked(params))
        processes.first(functools.partial(generators.save, layout.supervised_generator, supervised))
        params = _aligned(
            layout,
            alignment,
            config=config,
            params=params,
            existing=existing,
            sids=table.sids,
            pieces=pieces,
            max_pieces=max_pieces,
            seed=seed,
            model_parallel=model_parallel,
        )
    fitted = as_fitted(params=config.unstacked(params))
    processes.first(functools.partial(generators.save, layout.generator, fitted))
    written = predict_shards(
        fitted=fitted,
        trie=existing,
        queries=layout.queries,
        encode=prompted.pieces,
        pattern=layout.query_sid_shards,
        beams=beams,
    )
    join = functools.partial(join_query_shards, into=layout.query_sids, sid_version=table.version)
    processes.first(functools.partial(join, written))
    pairs = read_judgements(layout.judgements, "query_index", "item_index")
    log_probs = score_pairs(
        fitted=fitted,
        pieces=pieces,
        query_index=pairs["query_index"],
        sids=table.sids[pairs["item_index"]],
    )
    write_pair_log_probs(
        layout.pair_log_probs, **pairs, log_probs=log_probs, sid_version=table.version
    )
    write_hits(
        layout.hits,
        fitted=fitted,
        trie=existing,
        pieces=pieces,
        sids=table.sids,
        judgements=layout.judgements,
        log_probs=log_probs,
    )


def _directions(
    layout: Layout,
    code_start: str,
    *,
    config: Architecture,
    params: Any,
    tokenizer: Vocabulary,
    seed: int,
) -> Directions:
    """Returns where the rows of codes point before training, see `code_start`."""
    import numpy as np
    import pyarrow.parquet as pq

    from dsirm_jax.generator.code_start import codeword_directions, title_directions
    from dsirm_jax.quantizer import fitted as quantizers
    from dsirm_jax.sids.codes import read_sids

    sids = read_sids(layout.sids).sids
    embedding = np.asarray(config.text_embedding(params))
    if code_start == "titles":
        titles = pq.read_table(layout.items, columns=["title"])["title"].to_pylist()
        pieces = tokenizer.encode(titles)
        return title_directions(embedding, pieces, sids, sizes=config.sid_sizes)
    codebooks = quantizers.load(layout.quantizer).codebooks
    return codeword_directions(codebooks, sids, width=embedding.shape[1], seed=seed)


def _aligned(
    layout: Layout,
    alignment: Alignment,
    *,
    config: Architecture,
    params: Any,
    existing: Trie,
    sids: np.ndarray,
    pieces: Sequence[Sequence[int]],
    max_pieces: int,
    seed: int,
    model_parallel: int,
) -> Any:
    """Returns the parameters after alignment, and writes what came of it."""
    from dsirm_jax.data.pairs import held_out_queries
    from dsirm_jax.generator.alignment.queries import rewarded_queries
    from dsirm_jax.generator.alignment.train import align
    from dsirm_jax.io.files import write_json

    pairs = alignment.reward.of_pairs(
        items=layout.items, queries=layout.queries, judgements=layout.judgements
    )
    queries = rewarded_queries(pairs, sids=sids, sizes=config.sid_sizes, pieces=pieces)
    share = alignment.training.held_out
    held_out = held_out_queries(layout.queries, share=share, seed=seed)[queries.numbers]
    aligned = align(
        config=config,
        alignment=alignment,
        params=params,
        trie=existing,
        queries=queries,
        held_out=held_out,
        max_pieces=max_pieces,
        directory=layout.alignment,
        seed=seed,
        model_parallel=model_parallel,
    )
    result = {
        "queries": int((~held_out).sum()),
        "held_out": int(held_out.sum()),
        "reward": {"supervised": aligned.before, "aligned": aligned.after},
        "is_aligned": aligned.is_better,
    }
    processes.first(functools.partial(write_json, layout.alignment_result, result))
    return aligned.params


def check(bindings: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises InputError where the prompt, the vocabulary or the start of codes is none.

    Or where alignment would be measured by queries that supervised training has learnt.
    """
    from dsirm_jax.data.vocabularies import folder

    bound = bindings["generate"]
    check_prompt("gin binding generate.run.prompt", bound.get("prompt", QUERY))
    if (vocabulary := bound.get("vocabulary")) is not None:
        check_text("generate.run.vocabulary", vocabulary)
        folder.read(Path(vocabulary))
    check_choice("generate.run.code_start", bound.get("code_start"), CODE_STARTS)
    if alignment := bound.get("alignment"):
        of_alignment, of_training = alignment.training.held_out, bound["training"].held_out
        check_holds(
            of_alignment <= of_training,
            binding="Training.held_out of Alignment.training",
            value=of_alignment,
            remedy=f"at most generate.run.training's, {of_training!r}: those held out from the one "
            f"must not be learnt by the other",
        )


STAGE = Stage(
    name="generate",
    function=run,
    needs=(prepare.STAGE, quantize.STAGE),
    per_half=True,
    per_rung=True,
    execution_only=("model_parallel",),
    paths=("start", "vocabulary"),
    check=check,
)
