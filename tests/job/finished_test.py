"""What commands make of a finished run, which stays as it is."""

import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.sids.codes import check_same_version
from tests.job.tiny import dsirm, environment


def test_queries_are_predicted_from_a_finished_run(run, tmp_path):
    model_dir, _ = run
    whole = pq.read_table(model_dir / "generate/query_sids.parquet").slice(0, 3).to_pydict()
    table = tmp_path / "queries.csv"
    table.write_text("search\n" + "".join(f"  {query} \n" for query in whole["query"]))
    config = f"--gin_file={model_dir}/config.gin"
    done = subprocess.run(
        [
            *(sys.executable, "-X", "importtime", "-m", "dsirm_jax", "predict-sids", config),
            *(f"--query={whole['query'][0]}", f"--queries={table}"),
            "--columns=query=search",
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
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-6)
    rejected = pq.read_table(model_dir / "score/rejected.parquet").to_pylist()
    assert [(row["row"], row["reason"]) for row in rejected] == [(8, "unknown item_id")]
    files = sorted(path.name for path in (model_dir / "score").iterdir())
    assert files == ["config.gin", "rejected.parquet", "scores.parquet", "stage.json"]
    features_are_those_of_the_run(model_dir, arguments)
    # More than the run's share of bad rows is refused.
    table.write_text(f"search,sku\nshoe,no such item\n{rows[0]}\n")
    arguments += ["--columns=query=search,item_id=sku"]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment())
    assert done.returncode == 2
    assert f"{table}: 1 of 2 rows cannot be scored; the first: row 1 column sku = " in done.stderr


def features_are_those_of_the_run(model_dir, arguments):
    """With `--features` the stage writes what `features` and `match` wrote of the same pairs."""
    scores = pq.read_table(model_dir / "score/scores.parquet")
    done = subprocess.run(
        [*arguments, "--features"], capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = pq.read_table(model_dir / "score/features.parquet")
    kept = scores.filter(scores["score"].is_valid())
    np.testing.assert_allclose(found["score"], kept["score"], rtol=0, atol=1e-6)
    judgements = pq.read_table(model_dir / "prepare/judgements.parquet").to_pandas()
    tables = [model_dir / "features/features.parquet", model_dir / "match/features.parquet"]
    of_run = [pq.read_table(table).to_pandas() for table in tables]
    keys = ["query", "item_id"]
    judged = judgements[[*keys, "split", "label", "gain"]].join(
        [of.drop(columns=["query_index", "item_index"]) for of in of_run]
    )
    rows = found.to_pandas()
    beside = rows[keys].merge(judged, how="left", on=keys)
    is_judged = beside["label"].notna()
    assert is_judged.sum() == 45
    assert rows.loc[is_judged, "split"].tolist() == beside.loc[is_judged, "split"].tolist()
    assert rows.loc[is_judged, "label"].tolist() == beside.loc[is_judged, "label"].tolist()
    names = [field.name for field in found.schema if (field.metadata or {}).get(b"group")]
    assert set(names) == set(judged.columns) - {*keys, "split", "label", "gain"}
    np.testing.assert_allclose(
        rows.loc[is_judged, names], beside.loc[is_judged, names], rtol=0, atol=1e-5
    )
    for part in ("head", "test"):
        lines = (model_dir / f"score/letor/{part}.txt").read_text().splitlines()
        ids = [line.rpartition("# ")[2] for line in lines if not line.startswith("#")]
        of_part = is_judged & (rows["split"] == part)
        assert sorted(ids) == sorted(rows.loc[of_part, "item_id"])
    assert len((model_dir / "score/letor/features.tsv").read_text().splitlines()) == len(names)


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
    other = shutil.copytree(model_dir, tmp_path / "other")
    dsirm("relevance", other, "--gin.linear.Linear.l2=77.0")
    arguments = [sys.executable, "-m", "dsirm_jax", "compare", model_dir, other]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr[-3000:]
    blocks = [line for line in done.stdout.splitlines() if line.startswith("── ")]
    assert blocks == ["── no_sid ──", "── unsupervised ──", "── full ──"]
    lines = done.stdout.splitlines()
    place = lines.index(next(line for line in lines if line.endswith("linear.Linear.l2")))
    assert lines[place + 2] == "    B  77.0"
    # What it reads is sealed, and so are the bindings that it prints.
    config = other / "relevance/config.gin"
    config.write_text(config.read_text().replace("77.0", "78.0"))
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment())
    assert done.returncode == 2
    assert done.stderr == (
        f"dsirm: {config} is not what was written; `dsirm relevance` makes it again\n"
    )


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
