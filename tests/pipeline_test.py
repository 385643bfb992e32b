"""Tiny models through the real command line, from tables to report."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.sids.codes import check_same_version, read_sids

TINY = [
    "--gin_file=gin/runs/demo.gin",
    "--gin.simulated_shop.SimulatedShop.items=400",
    "--gin.simulated_shop.SimulatedShop.queries=200",
    "--gin.prepare.run.vocabulary_size=900",
    "--gin.quantizer_config.QuantizerConfig.codebook_sizes=(16, 8, 8)",
    "--gin.quantizer_config.QuantizerConfig.pin_depth=1",
    "--gin.encode/settings.Training.epochs=2",
    "--gin.quantize/settings.Training.epochs=4",
    "--gin.generate/settings.Training.epochs=1",
    "--gin.relevance/settings.Training.epochs=2",
    "--gin.towers.TwoTowers.dim=32",
    "--gin.t5.T5Config.emb_dim=16",
    "--gin.t5.T5Config.num_encoder_layers=1",
    "--gin.t5.T5Config.num_decoder_layers=1",
]


# A `dsirm` that gets a SIGKILL before the fourth step of the stage named first.
KILLED = """
import os, signal, sys
from dsirm_jax import cli
from dsirm_jax.training import loop

def fatal(stream, *, name, initial, **given):
    for done, element in enumerate(shown(stream, name=name, initial=initial, **given), initial):
        if (name, done) == (sys.argv[1], 3):
            os.kill(os.getpid(), signal.SIGKILL)
        yield element

shown, loop.progress = loop.progress, fatal
sys.exit(cli.main(sys.argv[2:]))
"""


def command(stage, model_dir, *more):
    flags = [*TINY, f"--gin.MODEL_DIR='{model_dir}'", *more]
    return [sys.executable, "-m", "dsirm_jax", stage, *flags]


def environment():
    # One device, as on a user's machine; the tests' own process has eight.
    return {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"PYTHONPATH": os.getcwd()}


def dsirm(stage, model_dir, *more):
    done = subprocess.run(
        command(stage, model_dir, *more), capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    model_dir = tmp_path_factory.mktemp("run")
    return model_dir, dsirm("run", model_dir)


def test_every_file_of_the_contract_exists(run):
    model_dir, _ = run
    text = Path("docs/contract.md").read_text("utf-8")
    folder, named = "", []
    for line in text.splitlines():
        if heading := re.match(r"## `(\w+)/`", line):
            folder = heading[1]
        elif row := re.match(r"\| `([^`]+)` \|", line):
            named.append(f"{folder}/{row[1]}")
    assert len(named) >= 14
    for pattern in [*named, "config.gin", "report/index.html", "prepare/rejected.parquet"]:
        assert list(model_dir.glob(pattern.replace("RUNG", "full"))), pattern
    for name in ("sids.parquet", "health.json"):
        assert (model_dir / "ablation/unsupervised/quantize" / name).is_file()


def test_tables_have_the_columns_of_the_contract(run):
    model_dir, _ = run
    sids = pq.read_schema(model_dir / "quantize/sids.parquet")
    assert sids.field("item_id").type == pa.string()
    assert sids.field("sid").type == pa.list_(pa.int32())
    health = json.loads((model_dir / "quantize/health.json").read_text())
    assert [len(health["agreement"][kind]) for kind in ("relevant", "irrelevant")] == [3, 3]
    beams = pq.read_schema(model_dir / "generate/query_sids.parquet")
    assert beams.field("sids").type == pa.list_(pa.list_(pa.int32()))
    assert beams.field("log_probs").type == pa.list_(pa.float32())
    predictions = pq.read_table(model_dir / "relevance/predictions.parquet")
    rungs = ["no_sid", "unsupervised", "full"]
    about = ["query", "item_id", "label", "gain", "relevant", "split"]
    assert predictions.column_names == [*about, *rungs]
    assert set(predictions["split"].to_pylist()) == {"head", "test"}
    metrics = json.loads((model_dir / "relevance/metrics.json").read_text())
    assert set(metrics["rungs"]) == set(rungs)
    assert set(metrics["lifts"]["full"]["roc_auc"]) == {"value", "low", "high", "relative"}
    assert set(metrics["leak"]["rungs"]) == {"full", "full_on_seen"}
    assert set(metrics["esci"]["rungs"]["full"]) == {"task_1_ndcg"}  # of a binary head
    for folder in ("", "ablation/unsupervised/"):
        features = pq.read_schema(model_dir / folder / "match/features.parquet")
        assert features.field("match_depth").metadata == {b"group": b"paper_match"}
    judged = pq.read_metadata(model_dir / "prepare/judgements.parquet").num_rows
    assert pq.read_metadata(model_dir / "features/features.parquet").num_rows == judged


def test_every_beam_is_the_sid_of_an_item(run):
    for folder in (run[0], run[0] / "ablation/unsupervised"):
        sids, beams = folder / "quantize/sids.parquet", folder / "generate/query_sids.parquet"
        check_same_version(sids, beams, folder / "generate/pair_log_probs.parquet")
        existing = set(map(tuple, pq.read_table(sids)["sid"].to_pylist()))
        for found in pq.read_table(beams)["sids"].to_pylist():
            assert len(found) == min(10, len(existing))
            assert set(map(tuple, found)) <= existing


def test_hits_are_those_of_test_queries_with_a_relevant_item(run):
    model_dir, _ = run
    judged = pq.read_table(
        model_dir / "prepare/judgements.parquet", filters=[("split", "=", "test")]
    ).to_pydict()
    asked = {q for q, good in zip(judged["query_index"], judged["relevant"], strict=True) if good}
    hits = pq.read_table(model_dir / "generate/hits.parquet").to_pydict()
    assert hits["query_index"] == sorted(asked)
    # Down to more levels a hit comes later or never.
    for ranks in hits["ranks"]:
        seen = [rank or 101 for rank in ranks]
        assert len(ranks) == 3 and seen == sorted(seen)
    found = json.loads((model_dir / "relevance/metrics.json").read_text())["hits"]
    assert found["queries"] == len(asked) and set(found["rungs"]) == {"full", "unsupervised"}
    first = [ranks[0] == 1 for ranks in hits["ranks"]]
    value = found["rungs"]["full"]["level_1"]["hit@1"]["value"]
    assert value == pytest.approx(sum(first) / len(first))


def test_queries_are_predicted_from_a_finished_run(run, tmp_path):
    model_dir, _ = run
    whole = pq.read_table(model_dir / "generate/query_sids.parquet").slice(0, 3).to_pydict()
    table = tmp_path / "queries.csv"
    table.write_text("query\n" + "".join(f"  {query} \n" for query in whole["query"]))
    config = f"--gin_file={model_dir}/config.gin"
    done = subprocess.run(
        [
            *(sys.executable, "-X", "importtime", "-m", "dsirm_jax", "predict-sids", config),
            *(f"--query={whole['query'][0]}", f"--queries={table}"),
        ],
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert " tensorflow\n" not in done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == whole["query"][0] and len(lines) == 1 + len(whole["sids"][0])
    assert lines[1].split()[0] == "-".join(map(str, whole["sids"][0][0]))
    found = pq.read_table(model_dir / "predict/query_sids.parquet")
    assert found["query"].to_pylist() == whole["query"]
    assert found["sids"].to_pylist() == whole["sids"]
    check_same_version(
        model_dir / "predict/query_sids.parquet", model_dir / "quantize/sids.parquet"
    )


def test_pairs_are_scored_as_the_run_scored_them(run, tmp_path):
    model_dir, _ = run
    judged = pq.read_table(model_dir / "relevance/predictions.parquet")
    judged = judged.take(np.random.default_rng(0).permutation(len(judged))[:40]).to_pydict()
    pairs = list(zip(judged["query"], judged["item_id"], judged["full"], strict=True))
    rows = [f"{query},{item}" for query, item, _ in pairs]
    # Case is folded everywhere: a spelling that the run has not met means the same. (That of a head
    # query would have its judgements vote.)
    of_tests = [pair for pair, split in zip(pairs, judged["split"], strict=True) if split == "test"]
    rows += [f"{query.upper()},{item}" for query, item, _ in of_tests[:5]]
    rows.insert(7, f"{pairs[0][0]},no such item")
    table = tmp_path / "pairs.csv"
    table.write_text("query,item_id\n" + "\n".join(rows))
    config = f"--gin_file={model_dir}/config.gin"
    arguments = [sys.executable, "-m", "dsirm_jax", "score", config, f"--pairs={table}"]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr[-3000:]
    found = pq.read_table(model_dir / "score/scores.parquet").to_pydict()
    assert [f"{q},{i}" for q, i in zip(found["query"], found["item_id"], strict=True)] == rows
    scores = found["score"]
    assert scores.pop(7) is None
    assert len(of_tests) >= 5
    expected = [score for *_, score in (*pairs, *of_tests[:5])]
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    rejected = pq.read_table(model_dir / "score/rejected.parquet").to_pylist()
    assert [(row["row"], row["reason"]) for row in rejected] == [(8, "unknown item_id")]
    files = sorted(path.name for path in (model_dir / "score").iterdir())
    assert files == ["rejected.parquet", "scores.parquet", "stage.json"]
    # More than the run's share of bad rows is refused.
    table.write_text(f"query,item_id\nshoe,no such item\n{rows[0]}\n")
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment())
    assert done.returncode == 2
    assert f"{table}: 1 of 2 rows cannot be scored; the first: row 1 column item_id" in done.stderr


@pytest.mark.slow
def test_a_scorer_gives_what_the_command_gives(run, tmp_path):
    from dsirm_jax.relevance.schema import FeatureTable
    from dsirm_jax.serving import Scorer, ScorerSettings
    from dsirm_jax.serving.bundle.contents import open_bundle
    from dsirm_jax.serving.bundle.manifest import FULL
    from dsirm_jax.serving.verification.answers import Answers
    from dsirm_jax.serving.verification.comparison import comparison, probabilities_beside

    model_dir, _ = run
    config, table = f"--gin_file={model_dir}/config.gin", tmp_path / "pairs.parquet"
    known = pq.read_table(model_dir / "prepare/queries.parquet")["query"].to_pylist()[::40]
    ids = pq.read_table(model_dir / "prepare/items.parquet")["item_id"].to_pylist()[::9]
    queries = [*known, "red shoes without laces", "64 gb phone", "Geschenk"]
    asked = [(query, item) for query in queries for item in ids]
    columns = dict(zip(("query", "item_id"), zip(*asked, strict=True), strict=True))
    pq.write_table(pa.table({name: list(of) for name, of in columns.items()}), table)
    for stage, *more in (("export",), ("score", f"--pairs={table}")):
        arguments = [sys.executable, "-m", "dsirm_jax", stage, config, *more]
        done = subprocess.run(arguments, capture_output=True, text=True, env=environment())
        assert done.returncode == 0, done.stderr[-3000:]
    expected = pq.read_table(model_dir / "score/scores.parquet")["score"].to_numpy()
    settings = ScorerSettings(deadline=600.0, warm=())
    with Scorer.open(model_dir / "export/bundle", settings=settings) as scorer:
        found = [scorer.score(query, ids) for query in queries]
        names = [feature.name for feature in scorer.schema]
    assert [of.source for of in found[-3:]] == ["live"] * 3
    # Trees jump: where a feature lies within rounding of a threshold, either side of it is right.
    head = open_bundle(model_dir / "export/bundle").models.heads[FULL]
    read = [names.index(name) for name in head.features]
    features = FeatureTable(
        names=head.features,
        groups=head.features,
        values=np.concatenate([of.features for of in found])[:, read],
    )
    beside = probabilities_beside(head, features)
    others = {
        "sids": np.zeros((len(asked), 1, 1), np.int32),
        "log_probs": np.zeros((len(asked), 1), np.float32),
        "vector": np.zeros((len(asked), 0), np.float32),
    }
    scores = np.concatenate([of.probabilities for of in found])
    answers = [Answers(probability=each, **others) for each in (expected, scores)]
    same = comparison(*answers, beside=beside, form="the command", batch=len(asked))
    assert same.agrees, same
    assert same.on_a_step <= len(asked) // 100


def test_a_run_is_compared_with_another(run, tmp_path):
    model_dir, _ = run
    shutil.copytree(model_dir / "relevance", tmp_path / "relevance")
    text = (model_dir / "config.gin").read_text()
    (tmp_path / "config.gin").write_text(text.replace("SEED = 0", "SEED = 3"))
    done = subprocess.run(
        [sys.executable, "-m", "dsirm_jax", "compare", model_dir, tmp_path],
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    blocks = [line for line in done.stdout.splitlines() if line.startswith("── ")]
    assert blocks == ["── no_sid ──", "── unsupervised ──", "── full ──"]
    assert done.stdout.count("+0.0000 [+0.0000, +0.0000]") == 3 * 8
    assert done.stdout.splitlines()[-3:] == ["  SEED", "    A  0", "    B  3"]


def test_no_stage_learns_from_a_query_of_a_later_one(run, tmp_path):
    """Test queries teach nothing; head queries the head, and vote for others but themselves."""
    from dsirm_jax.data import tasks, vocabulary
    from dsirm_jax.quantizer.config import QuantizerConfig
    from dsirm_jax.quantizer.kinds.residual_kmeans import ResidualKmeans
    from dsirm_jax.quantizer.training_tables import read_training_items
    from dsirm_jax.relevance import tables
    from dsirm_jax.relevance.lessons import lessons_of
    from dsirm_jax.run.layout import Layout
    from dsirm_jax.stages import features as features_stage

    model_dir, _ = run
    for name in ("prepare", "encode", "quantize", "generate", "features", "match"):
        (tmp_path / name).symlink_to(model_dir / name)
    layout = Layout(model_dir=tmp_path)
    table = pq.read_table(layout.queries).to_pydict()
    of_split = {name: set() for name in ("train", "head", "test")}
    for number, split in enumerate(table["split"]):
        of_split[split].add(number)
    assert all(of_split.values())

    def drawn(task, **lengths):
        batches = tasks.batches(task=task, lengths=lengths, batch_size=64, seed=0)
        rows = list(itertools.islice(batches, 2 + tasks.num_rows(task) // 64))
        return {name: np.concatenate([batch[name] for batch in rows]) for name in rows[0]}

    given = {"tfds_dir": layout.tfds, "vocabulary": layout.vocabulary}
    sids = read_sids(layout.sids).sids
    seen = drawn(tasks.query_item(**given), query=8, item=8)["query_index"]
    assert set(seen) <= of_split["train"] and len(set(seen)) > 20
    task = tasks.query_sid(**given, sids=sids, sizes=(8, 8, 8))
    inputs = drawn(task, inputs=32, targets=3)["inputs"]
    pieces = [tuple(ids) for ids in vocabulary.text_pieces(layout.vocabulary, table["query"])]
    texts = {tuple(row[row > 0]) for row in inputs}
    assert texts <= {pieces[number] for number in of_split["train"]}
    catalogue = read_training_items(
        items=layout.items,
        queries=layout.queries,
        judgements=layout.judgements,
        item_vectors=layout.item_vectors,
        query_vectors=layout.query_vectors,
        config=QuantizerConfig(codebook_sizes=(8,), kind=ResidualKmeans()),
        scratch=tmp_path,
    )
    assert set(catalogue.pairs[:, 0]) <= of_split["train"]
    voting, _ = features_stage.voting_pairs(layout.judgements)
    assert set(voting[:, 0]) == of_split["train"] | of_split["head"]
    # And these are whose judgements the run's features have, in the order of their numbers.
    judged = tables.read_surroundings(layout.surroundings).judged
    assert len(judged.items) == len(set(voting[:, 0]))
    for row, query in enumerate(sorted(set(voting[:, 0]))):
        items = judged.items[row][judged.verdicts[row] != 0]
        assert set(items) <= set(voting[voting[:, 0] == query, 1]) and len(items)
    judgements = pq.read_table(layout.judgements, columns=["query", "split"])
    query, split = (judgements[name].to_numpy() for name in ("query", "split"))
    lessons = lessons_of(("no_sid", "full"), seen=(split == "train")[None], tested=split == "test")
    named = {split: {table["query"][number] for number in of_split[split]} for split in of_split}
    taught = {name: set(query[lesson.rows]) for name, lesson in lessons.items()}
    assert list(taught) == ["no_sid", "full", "full_on_seen"]
    assert taught["no_sid"] and taught["no_sid"] <= named["head"]
    assert taught["full"] == taught["no_sid"]
    assert taught["full_on_seen"] and taught["full_on_seen"] <= named["train"]
    # What lessons leave out is not learnt: tests/stages/relevance_test.py.


@pytest.mark.slow
def test_of_shuffled_labels_nothing_is_learnt_in_any_fold_or_half(run, tmp_path):
    model_dir, _ = run
    columns = ["query", "item_id", "label"]
    judged = pq.read_table(model_dir / "prepare/judgements.parquet", columns=columns).to_pydict()
    judged["label"] = np.random.default_rng(0).permutation(judged["label"])
    pq.write_table(pa.table(judged), tmp_path / "judgements.parquet")
    flags = [
        *("--gin_file=gin/runs/tables.gin", "--gin_file=gin/runs/ablate.gin"),
        f"--gin.ITEMS='{model_dir}/prepare/items.parquet'",
        f"--gin.JUDGEMENTS='{tmp_path}/judgements.parquet'",
        "--gin.RELEVANT_LABELS=('E',)",
        "--gin.LABEL_GAINS={'E': 1.0, 'S': 0.1, 'C': 0.01, 'I': 0.0}",
        *("--gin.FOLDS=2", "--gin.CROSSFIT=True", "--gin.job.Job.rungs=()"),
        # Long enough to learn by heart, if there were a way for that to pay.
        "--gin.encode/settings.Training.epochs=12",
        "--gin.relevance/settings.Training.epochs=20",
    ]
    done = dsirm("ablate", tmp_path / "ladder", *flags)
    ladder = json.loads((tmp_path / "ladder/ablate/ablation.json").read_text())
    assert ladder["pairs"] == len(judged["query"])
    assert ladder["queries"] == len(set(judged["query"]))
    found = {rung: of["roc_auc"] for rung, of in ladder["rungs"].items()}
    assert len(found) > 12
    relevant = np.sum(judged["label"] == "E")
    # The standard deviation of the AUC of two samples of one distribution.
    spread = np.sqrt((ladder["pairs"] + 1) / (12 * relevant * (ladder["pairs"] - relevant)))
    for rung, of in found.items():
        assert abs(of["value"] - 0.5) < 4 * spread, (rung, of)
        assert f"{rung} " in done.stdout
    predictions = pq.read_table(tmp_path / "ladder/ablate/predictions.parquet")
    assert predictions.num_rows == ladder["pairs"]
    again = dsirm("ablate", tmp_path / "ladder", *flags)
    assert "starts" not in again.stderr


@pytest.mark.slow
def test_a_run_starts_from_an_imported_t5(tmp_path):
    import safetensors.numpy

    from dsirm_jax.data.vocabulary import train_vocabulary
    from dsirm_jax.generator.architectures.t5_text import load_text_params

    source = Path(shutil.copytree("tests/generator/golden/t5_1_1", tmp_path / "source"))
    texts = [f"{colour} shoe {size}" for colour in ("red", "blue") for size in range(60)]
    pieces = train_vocabulary(texts=iter(texts), size=300, path=source / "spiece.model", seed=0)
    arrays = safetensors.numpy.load_file(source / "model.safetensors")
    for name in ("shared.weight", "lm_head.weight"):
        arrays[name] = np.random.default_rng(0).normal(size=(384, 16)).astype("f4")
    arrays = {name: array for name, array in arrays.items() if "embed_tokens" not in name}
    safetensors.numpy.save_file(arrays, source / "model.safetensors")
    out = tmp_path / "t5"
    done = subprocess.run(
        [sys.executable, "-m", "dsirm_jax", "import-t5", f"--from={source}", f"--to={out}"],
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert done.returncode == 0 and f"{out}/model.gin" in done.stdout, done.stderr[-3000:]
    assert load_text_params(out / "t5.safetensors")[0].text_vocab_size == pieces
    flags = [flag for flag in TINY if "T5Config" not in flag]
    for stage in ("prepare", "encode", "quantize", "generate"):
        done = subprocess.run(
            [
                *(
                    sys.executable,
                    "-m",
                    "dsirm_jax",
                    stage,
                    flags[0],
                    f"--gin_file={out}/model.gin",
                ),
                *(*flags[1:], f"--gin.MODEL_DIR='{tmp_path}/run'", "--gin.job.Job.rungs=()"),
            ],
            capture_output=True,
            text=True,
            env=environment(),
        )
        assert done.returncode == 0, done.stderr[-3000:]
    started = out / "t5.safetensors"
    trained = safetensors.numpy.load_file(tmp_path / "run/generate/generator.safetensors")
    before = safetensors.numpy.load_file(started)
    # One epoch moves the weights a little: they are still those that it started from.
    name = "encoder/layers_1/mlp/wo/kernel"
    assert np.corrcoef(trained[name].ravel(), before[name].ravel())[0, 1] > 0.9
    assert not np.array_equal(trained[name], before[name])


def test_the_end_names_metrics_and_report(run):
    model_dir, done = run
    assert "roc_auc" in done.stdout
    assert f"report: {model_dir}/report/index.html" in done.stdout


def test_an_unchanged_run_is_skipped_and_a_changed_binding_reruns_what_depends_on_it(run):
    model_dir, _ = run
    before = (model_dir / "quantize/sids.parquet").stat().st_mtime_ns
    # Where and how the work is done is no part of what comes out.
    again = dsirm("run", model_dir, "--gin.prepare.run.workers=1")
    assert again.stderr.count("finished and unchanged, skipped") == 11
    changed = dsirm("relevance", model_dir, "--gin.linear.Linear.l2=50.0")
    assert "binding head changed" in changed.stderr
    assert (model_dir / "replaced/relevance-1/metrics.json").is_file()
    assert (model_dir / "quantize/sids.parquet").stat().st_mtime_ns == before


def test_further_items_get_the_sids_that_the_catalogue_has(run, tmp_path):
    model_dir, _ = run
    vectors = tmp_path / "new.parquet"
    items = pq.read_table(model_dir / "prepare/items.parquet", columns=["item_id", "category"])
    (shard,) = (model_dir / "encode").glob("items-*.parquet")
    with_category = pq.read_table(shard).append_column("category", items["category"])
    pq.write_table(with_category.slice(100, 50), vectors)
    dsirm("assign", model_dir, "--gin_file=gin/runs/assign.gin", f"--gin.VECTORS='{vectors}'")
    assigned = pq.read_table(model_dir / "assign/sids.parquet")
    before = pq.read_table(model_dir / "quantize/sids.parquet").slice(100, 50)
    assert assigned.select(["item_id", "sid"]).equals(before.select(["item_id", "sid"]))
    assert assigned.schema.metadata == before.schema.metadata


def test_a_later_catalogue_keeps_its_sids_and_gives_new_items_theirs(run, tmp_path):
    model_dir, _ = run
    names = ["item_id", "title", "description", "brand", "colour", "category"]
    items = pq.read_table(model_dir / "prepare/items.parquet", columns=names)
    new = items.slice(0, 50)
    ids = pa.array([f"new {number}" for number in range(50)])
    new_items = new.set_column(0, items.schema.field("item_id"), ids)
    pq.write_table(pa.concat_tables([new_items, items]), tmp_path / "items.parquet")
    judged = pq.read_table(
        model_dir / "prepare/judgements.parquet", columns=["query", "item_id", "label"]
    )
    pq.write_table(judged, tmp_path / "judgements.parquet")
    later = [
        *("--gin_file=gin/runs/tables.gin", "--gin_file=gin/runs/update.gin"),
        f"--gin.PREVIOUS='{model_dir}'",
        f"--gin.ITEMS='{tmp_path}/items.parquet'",
        f"--gin.JUDGEMENTS='{tmp_path}/judgements.parquet'",
        "--gin.RELEVANT_LABELS=('E',)",
        "--gin.LABEL_GAINS={'E': 1.0, 'S': 0.1, 'C': 0.01, 'I': 0.0}",
        *("--gin.encode/settings.Training.epochs=0", "--gin.quantize/settings.Training.epochs=0"),
    ]
    for stage in ("prepare", "encode", "quantize"):
        dsirm(stage, tmp_path / "later", *later)
    health = json.loads((tmp_path / "later/quantize/health.json").read_text())
    assert health["churn"] == {"items": 400, "changed": [0.0, 0.0, 0.0]}
    tables = [folder / "quantize/sids.parquet" for folder in (model_dir, tmp_path / "later")]
    check_same_version(*tables)
    before, after = (
        {row["item_id"]: row["sid"] for row in pq.read_table(path).to_pylist()} for path in tables
    )
    for copy, original in zip(ids.to_pylist(), new["item_id"].to_pylist(), strict=True):
        assert after[copy] == before[original]


def test_the_saved_configuration_runs_the_same_job(run):
    model_dir, _ = run
    saved = [sys.executable, "-m", "dsirm_jax", "quantize", f"--gin_file={model_dir}/config.gin"]
    done = subprocess.run(saved, capture_output=True, text=True, env=environment())
    assert done.stderr.count("finished and unchanged, skipped") == 2, done.stderr[-3000:]


def contents(model_dir):
    """All figures that must repeat."""
    tables = [
        *("quantize/sids.parquet", "generate/query_sids.parquet", "relevance/predictions.parquet"),
        "ablation/unsupervised/quantize/sids.parquet",
    ]
    return [pq.read_table(model_dir / name) for name in tables], json.loads(
        (model_dir / "relevance/metrics.json").read_text()
    )


@pytest.mark.slow
def test_every_kind_of_quantizer_is_a_rung(tmp_path):
    dsirm("run", tmp_path, "--gin_file=gin/runs/kinds.gin")
    kinds = ("residual_kmeans", "hierarchical_kmeans", "no_category", "unsupervised")
    sids = {kind: tmp_path / f"ablation/{kind}/quantize/sids.parquet" for kind in kinds}
    versions = {kind: read_sids(path).version for kind, path in sids.items()}
    assert len(set(versions.values())) == len(kinds)
    metrics = json.loads((tmp_path / "relevance/metrics.json").read_text())
    assert set(metrics["rungs"]) == {"no_sid", "full", *kinds}
    health = json.loads((sids["no_category"].parent / "health.json").read_text())
    assert health["pinned_categories"] == [] and health["sizes"] == [16, 8, 8]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_tables_and_metrics(tmp_path):
    dsirm("run", tmp_path / "a")
    dsirm("run", tmp_path / "b")
    first, second = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert all(x.equals(y) for x, y in zip(first[0], second[0], strict=True))
    assert first[1] == second[1]


@pytest.mark.slow
def test_a_run_killed_in_quantize_and_in_generate_ends_as_an_uninterrupted_one(tmp_path):
    often = [
        "--gin.quantize/settings.Training.checkpoint_every=1",
        "--gin.generate/settings.Training.checkpoint_every=1",
        "--gin.encode/settings.Training.held_out=0.2",
        "--gin.generate/settings.Training.held_out=0.2",
    ]
    dsirm("run", tmp_path / "whole", *often)
    for stage in ("quantize", "generate"):
        arguments = command("run", tmp_path / "killed", *often)[3:]
        done = subprocess.run(
            [sys.executable, "-c", KILLED, stage, *arguments],
            capture_output=True,
            text=True,
            env=environment(),
        )
        assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
        saved = tmp_path / "killed" / stage / "checkpoints"
        assert [path for path in saved.iterdir() if path.name.isdecimal()]
        record = json.loads((tmp_path / "killed" / stage / "stage.json").read_text())
        assert not record["finished"]
    done = dsirm("run", tmp_path / "killed", *often)
    assert "generate: was interrupted, goes on" in done.stderr
    assert "generate: the parameters are those of step" in done.stderr
    whole, killed = contents(tmp_path / "whole"), contents(tmp_path / "killed")
    for one, other in zip(whole[0], killed[0], strict=True):
        assert one.equals(other)
    assert whole[1] == killed[1]
