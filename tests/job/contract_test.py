"""What a run writes is what docs/contract.md says."""

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.sids.codes import check_same_version, read_sids
from tests.job.tiny import dsirm


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


def test_belief_is_of_the_queries_of_hits_and_its_parts_agree(run):
    model_dir, _ = run
    hits = pq.read_table(model_dir / "generate/hits.parquet").to_pydict()
    found = json.loads((model_dir / "relevance/metrics.json").read_text())["belief"]
    assert found["types"] == "category" and set(found["rungs"]) == {"full", "unsupervised"}
    assert found["queries"] == len(hits["query_index"])
    full = found["rungs"]["full"]
    for level in range(3):
        # A hit among the beams is a right prefix of theirs, and the beams have no more than all.
        for ranks, right in zip(hits["ranks"], hits["prefix_right"], strict=True):
            assert (ranks[level] > 0) == any(right[level])
        of = full[f"level_{level + 1}"]
        branch = [of_query[level] for of_query in hits["branch"]]
        assert of["branch"]["value"] == pytest.approx(np.mean(branch))
        assert of["beams"]["value"] <= min(of["branch"]["value"], full["mass"]["value"]) + 1e-6
        masses = [sum(of_query[level]) for of_query in hits["prefix_mass"]]
        assert full["mass"]["value"] == pytest.approx(np.mean(masses), rel=1e-4)
    for probabilities, (masses, *_) in zip(
        hits["first_probability"], hits["prefix_mass"], strict=True
    ):
        assert (np.array(masses) <= np.array(probabilities) * (1 + 1e-4)).all()


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


def test_fine_grained_pairs_are_of_the_shops_truth_and_of_every_rung(run):
    model_dir, *_ = run
    metrics = json.loads((model_dir / "relevance/metrics.json").read_text())
    found = metrics["fine_grained"]
    assert found["source"] == "truth"
    assert set(found["rungs"]) == set(metrics["rungs"])
    assert set(found["lifts"]) == set(metrics["lifts"])
    assert found["pairs"] == sum(counts["pairs"] for counts in found["kinds"].values())
    for of_rung in found["rungs"].values():
        assert set(of_rung) == {"all", *found["kinds"]}
        assert all(0 <= of["low"] <= of["value"] <= of["high"] <= 1 for of in of_rung.values())


def test_the_end_names_metrics_and_report(run):
    model_dir, done = run
    assert "roc_auc" in done.stdout
    assert f"report: {model_dir}/report/index.html" in done.stdout
