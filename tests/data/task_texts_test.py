"""Texts of tasks: the pieces that predictions read, in a prompt and a vocabulary of its own."""

import itertools
import re

import numpy as np
import pytest

from dsirm_jax.data import tasks, vocabulary
from dsirm_jax.data.vocabularies.prompt import Prompted
from dsirm_jax.data.vocabularies.sentence_piece import SentencePiece
from dsirm_jax.data.vocabularies.trimming import Trimmed, trimmed
from tests.data.task_rows import (
    ITEMS,
    QUERIES,
    RELEVANT,
    SIZES,
    TRAINED,
    item_text,
    padded,
    query_text,
)
from tests.data.vocabularies import tiny


@pytest.fixture(scope="module")
def prompted(tmp_path_factory):
    """A language model's tokenizer, trimmed, in a prompt that the titles are cut in."""
    whole = tiny.byte_level(tmp_path_factory.mktemp("tokenizer"))
    kept = trimmed(whole, map(query_text, range(QUERIES)))
    return Prompted(vocabulary=Trimmed(whole=whole, kept=kept), prompt="a {query} now", most=30)


@pytest.mark.parametrize("host, hosts", [(0, 1), (1, 3)])
def test_a_language_models_pieces_are_those_that_predictions_read(
    run, sids, prompted, read_once, host, hosts
):
    """In its order for each host, from any step on."""
    shared = {"tfds_dir": run["tfds_dir"], "vocabulary": None, "sids": sids, "sizes": SIZES}
    of_texts = {
        tuple(padded(pieces, 30)): text
        for texts in (map(query_text, range(QUERIES)), map(item_text, range(ITEMS)))
        for text in texts
        for pieces in prompted.pieces([text])
    }
    assert len(of_texts) == QUERIES + ITEMS

    def stream(start):
        return tasks.batches(
            task=tasks.text_sid(**shared, title_rate=0.5, prompted=prompted),
            lengths={"inputs": 30, "targets": 3},
            batch_size=4,
            seed=3,
            start_step=start,
            host=host,
            hosts=hosts,
            block_rows=8,
            read=read_once,
        )

    whole = list(itertools.islice(stream(0), 16))
    first = prompted.vocabulary.size + np.array([0, 4, 12])
    for batch in whole:
        for row, target in zip(batch["inputs"].tolist(), batch["targets"], strict=True):
            number = int(re.findall(r"\d+", of_texts[tuple(row)])[0])
            is_title = of_texts[tuple(row)].startswith("Chair")
            of_query = [item for query, item in RELEVANT if query == number]
            codes = [sids[item].tolist() for item in ([number] if is_title else of_query)]
            assert (target - first).tolist() in codes
    for start in (1, 7, 15):
        again = next(stream(start))
        for name in again:
            np.testing.assert_array_equal(again[name], whole[start][name])


def test_texts_stand_in_a_prompt_whose_end_stays(run, sids):
    whole = SentencePiece.read(run["vocabulary"])
    prompted = Prompted(vocabulary=whole, prompt="a {query} in oak", most=8)
    shared = {**run, "sids": sids, "sizes": SIZES, "prompted": prompted}
    (ending,) = vocabulary.text_pieces(run["vocabulary"], ["in oak"])
    lengths = {"inputs": 8, "targets": 3}
    for task, texts, long in (
        (tasks.query_sid(**shared), [query_text(query) for query in TRAINED], False),
        (tasks.title_sid(**shared), [item_text(item) for item in range(ITEMS)], True),
    ):
        pieces = vocabulary.text_pieces(run["vocabulary"], [f"a {text} in oak" for text in texts])
        cut = [ids[: 8 - len(ending)] + ending if len(ids) > 8 else ids for ids in pieces]
        assert (cut != pieces) == long
        rows = tasks.num_rows(task)
        batch = next(tasks.batches(task=task, lengths=lengths, batch_size=rows, seed=0))
        assert {*map(tuple, batch["inputs"].tolist())} == {padded(ids, 8) for ids in cut}
        assert batch["inputs"].dtype == np.int32
