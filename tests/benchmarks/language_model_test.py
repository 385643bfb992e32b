"""What `benchmarks/language_model.py` learns from, and how it counts, on arrays by hand."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import compilation

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
LLAMA = Path(__file__).parents[1] / "generator" / "golden" / "llama"
SIDS = np.array([[0, 1], [0, 2], [1, 0], [1, 1], [2, 0]], np.int32)
# Query 1 is another spelling of query 0; queries 4 and 5 are asked in the test.
DATA = {
    "sids": SIDS,
    "sizes": np.array([3, 3]),
    "train": np.array([[0, 0], [1, 0], [1, 1], [2, 2], [3, 4]]),
    "weight": np.array([1.0, 0.1, 1.0, 1.0, 0.1], np.float32),
    "test": np.array([[4, 1], [4, 2], [5, 4]]),
    "segment": np.array(["head", "head", "tail", "tail", "head", "tail"]),
    "identity": np.array([0, 0, 2, 3, 4, 5]),
    "nearest": np.array([[0, 0, 2, 1], [3, 2, 1, 0]]),
}
TEXTS = {
    "queries": np.array([[1, 2], [2, 1], [3, 0], [4, 0], [5, 1], [5, 0]], np.int32),
    "items": np.array([[1, 1], [2, 2], [3, 3], [4, 4], [5, 5]], np.int32),
    "rows": np.array([0, 40, 7, 95, 3, 60]),
    "marks": np.array([0, 0]),
}


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import language_model

    return language_model


@pytest.fixture
def fit(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import language_model_fit

    return language_model_fit


@pytest.fixture
def arrays(tmp_path):
    folder = tmp_path / "shop-0"
    folder.mkdir()
    np.savez(folder / "data.npz", **DATA)
    np.savez(folder / "run.npz", **TEXTS)
    np.savez(folder / "llama.npz", **TEXTS)
    return folder


@pytest.fixture
def task(fit, arrays):
    return fit.Task.read(arrays, vocabulary="run")


@pytest.fixture
def tiny(module, task):
    return module.T5_TINY.fitted_to(text_vocab_size=len(task.rows), sid_sizes=task.sizes)


def test_queries_of_one_identity_are_held_out_together(fit, task):
    drawn = [fit.held_out_pairs(task, seed=seed) for seed in range(20)]
    for held_out in drawn:
        assert held_out.any() and not held_out.all()
        assert held_out[0] == held_out[1] == held_out[2]  # queries 0 and 1
    assert len({tuple(each) for each in drawn}) > 1


def test_titles_come_first_and_then_half_of_the_rows(fit, task, tiny):
    learnt = np.array([3, 4])
    feed = fit.batches(task, learnt, config=tiny, rows=4, title_steps=2, seed=0, snippets=0.0)
    titles = {tuple(text) for text in task.items}
    first, second, third = (next(feed) for _ in range(3))
    for batch in (first, second):
        assert {tuple(text) for text in batch["encoder_input_tokens"]} <= titles
        assert (batch["decoder_loss_weights"] == 1).all()
    read = third["encoder_input_tokens"]
    assert {tuple(text) for text in read[:2]} <= titles
    # Query 2 asks for item 2, query 3, of little gain, for item 4.
    answers = {(3, 0): ([6 + 1, 9 + 0], 1.0), (4, 0): ([6 + 2, 9 + 0], 0.1)}
    for number in (2, 3):
        target, weight = answers[tuple(read[number])]
        assert third["decoder_target_tokens"][number].tolist() == target
        np.testing.assert_allclose(third["decoder_loss_weights"][number], weight)


def test_titles_alone_are_read_in_snippets(fit, task, tiny):
    items = np.repeat(np.array([[1, 2, 3, 4, 5]], np.int32), 5, axis=0)
    queries = np.pad(task.queries, ((0, 0), (0, 3)))
    task = dataclasses.replace(task, items=items, queries=queries)
    settings = {"config": tiny, "rows": 20, "title_steps": 1, "seed": 0}
    for snippets, wanted in ((0.0, {True}), (0.5, {True, False})):
        feed = fit.batches(task, np.array([3, 4]), **settings, snippets=snippets)
        for count in (20, 10):  # rows of titles
            read = next(feed)["encoder_input_tokens"]
            assert {text.tolist() == [1, 2, 3, 4, 5] for text in read[:count]} == wanted
            assert {tuple(text) for text in read[count:]} <= {(3, 0, 0, 0, 0), (4, 0, 0, 0, 0)}
    assert (task.items == [1, 2, 3, 4, 5]).all()


def test_snippets_are_some_pieces_in_a_row_within_the_marks(fit):
    text = np.array([[8, 1, 2, 3, 4, 5, 9, 0, 0], [8, 6, 9, 0, 0, 0, 0, 0, 0]])
    random = np.random.default_rng(0)
    drawn = fit.snippets_of(np.repeat(text, 500, axis=0), marks=(1, 1), random=random)
    rows = {tuple(row[row > 0].tolist()) for row in drawn}
    expected = {(8, *range(a, b), 9) for a in range(1, 5) for b in range(a + 2, 7)}
    assert rows == expected | {(8, 6, 9)}
    assert all((row[len(row[row > 0]) :] == 0).all() for row in drawn)


def test_the_loss_held_out_counts_every_pair_once(fit, task, tiny):
    batches = list(fit.whole_batches(task, np.arange(5), config=tiny, rows=2))
    assert [len(batch["encoder_input_tokens"]) for batch in batches] == [2, 2, 2]
    weights = np.concatenate([batch["decoder_loss_weights"][:, 0] for batch in batches])
    np.testing.assert_allclose(weights, [1.0, 0.1, 1.0, 1.0, 0.1, 0.0])


def test_a_language_model_starts_with_the_rows_of_the_pieces_that_are_kept(fit, task):
    from safetensors.numpy import load_file

    config, params = fit.started(LLAMA, task, seed=0)
    (file,) = LLAMA.glob("*.safetensors")
    embedding = load_file(file)["model.embed_tokens.weight"]
    assert (config.text_vocab_size, config.sid_sizes) == (6, (3, 3))
    np.testing.assert_array_equal(params["text"]["embedding"][:6], embedding[task.rows])
    assert not params["text"]["embedding"][6:].any()
    assert params["sid"]["head_1"].shape == (config.emb_dim, 3)


def test_nearest_items_count_each_sid_once(module):
    # Query 4: items 0, 0, 2, 1 are SIDs (0, 1), (1, 0), (0, 2), of which the last two are relevant;
    # query 5: no near item begins with code 2.
    assert module.nearest_ranks(DATA).tolist() == [[1, 2], [0, 0]]


def test_hits_are_means_over_seeds(module):
    seeds = [np.array([[1, 6]]), np.array([[7, 0]])]
    np.testing.assert_allclose(
        module.hits_of(seeds), [[[0.5, 0.5, 1, 1], [0, 0, 0.5, 0.5]]]
    )  # at 1, 5, 10, 100 of each level


def test_folds_are_one_data_set_and_what_lacks_one_is_left_out(module, tmp_path, arrays, capsys):
    other, out = arrays.with_name("shop-1"), tmp_path / "out"
    other.mkdir()
    out.mkdir()
    np.savez(other / "data.npz", **DATA | {"identity": DATA["identity"] + 10})
    for folder, ranks in ((arrays, [[1, 0], [1, 0]]), (other, [[0, 0], [1, 1]])):
        file = module.ranks_file(out, folder, "ours", 0)
        np.savez(file, queries=np.array([4, 5]), ranks=np.array(ranks))
    np.savez(
        module.ranks_file(out, arrays, "half", 0),
        queries=np.array([4, 5]),
        ranks=np.ones((2, 2), int),
    )
    cases = module.compared("shop", [arrays, other], ["ours", "half"], out=out, seeds=1)
    found = {case["case"]: (case["ours"], case["other"]) for case in cases}
    assert found["hits/shop/level 1/1/ours"] == (0.75, 0.75)
    assert found["hits/shop/head/level 1/1/ours"] == (0.5, 0.5)
    assert found["hits/shop/tail/level 2/1/ours"] == (0.5, 0.5)
    assert found["hits/shop/head/level 1/1/nearest"] == (1.0, 0.5)
    assert not any("half" in name for name in found)
    said = capsys.readouterr().out
    assert "| shop/head | 2 | 1 | nearest | 100.0 % (+0.500, +0.000 to +1.000)" in said


def test_weights_that_are_not_there_are_said(module, arrays, tmp_path, capsys):
    course = dataclasses.replace(module.QUICK)
    chosen = module.parts(
        arrays, [tmp_path / "gemma", LLAMA], course=course, seed=0, rows=None, out=tmp_path
    )
    assert [part.name for part in chosen] == [
        *("shop-0/t5_tiny/0", "shop-0/t5_small/0", "shop-0/llama/0"),
    ]
    said = capsys.readouterr().out
    assert f"shop-0/gemma is skipped: no {tmp_path / 'gemma' / 'config.json'}" in said


@pytest.mark.slow
def test_what_is_fitted_stays_and_is_not_made_again(arrays, tmp_path):
    command = [
        *(sys.executable, str(BENCHMARKS / "language_model.py"), str(arrays), "--quick"),
        *(f"--out={tmp_path / 'out'}", "--only", "t5_tiny", "llama", f"--weights={LLAMA}"),
        *("--minutes=30", "--rows=4", f"--json={tmp_path / 'cases.jsonl'}"),
    ]
    environment = os.environ | {
        "PYTHONPATH": str(BENCHMARKS.parent),
        "XLA_FLAGS": compilation.QUICK,
    }

    def made():
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "FAILED" not in done.stdout, done.stdout + done.stderr
        cases = [json.loads(line) for line in (tmp_path / "cases.jsonl").read_text().splitlines()]
        return {case["case"]: case["ours"] for case in cases}

    first = made()
    for name in ("t5_tiny", "llama"):
        assert first[f"shop-0-{name}-0/loss held out"] > 0
        assert f"hits/shop/tail/level 2/100/{name}" in first
    second = made()
    hits = {name: value for name, value in first.items() if name.startswith("hits/")}
    assert second == hits
