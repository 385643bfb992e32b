"""Jobs that are run again, go on from another, or from pretrained weights."""

import json
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
from tests.job.tiny import NO_ABLATION, TINY, command, dsirm, environment

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


def test_an_unchanged_run_is_skipped_and_a_changed_binding_reruns_what_depends_on_it(run, tmp_path):
    model_dir = shutil.copytree(run[0], tmp_path / "run")
    before = (model_dir / "quantize/sids.parquet").stat().st_mtime_ns
    # Where and how the work is done is no part of what comes out.
    again = dsirm("run", model_dir, "--gin.prepare.run.workers=1")
    assert again.stderr.count("finished and unchanged, skipped") == 11
    changed = dsirm("relevance", model_dir, "--gin.linear.Linear.l2=50.0")
    assert "binding head changed" in changed.stderr
    assert (model_dir / "replaced/relevance-1/metrics.json").is_file()
    assert (model_dir / "quantize/sids.parquet").stat().st_mtime_ns == before


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


def contents(model_dir, *further):
    """All figures that must repeat, further tables among them."""
    own = ("quantize/sids.parquet", "generate/query_sids.parquet", "relevance/predictions.parquet")
    tables = [*own, *further]
    return [pq.read_table(model_dir / name) for name in tables], json.loads(
        (model_dir / "relevance/metrics.json").read_text()
    )


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
def test_codes_that_carry_attributes_are_rungs(tmp_path):
    files = ("attribute_text", "attribute_codes")
    # The others are other weights, or kinds of the test above: they take the full model's SIDs.
    rungs = ("residual_opq", "predicted", "aligned")
    own = f"--gin.job.Job.rungs={rungs}"
    dsirm("run", tmp_path, *(f"--gin_file=gin/runs/{name}.gin" for name in files), own)
    versions = {
        read_sids(tmp_path / f"ablation/{rung}/quantize/sids.parquet").version for rung in rungs
    }
    assert len(versions) == len(rungs)
    items = pq.read_table(tmp_path / "prepare/items.parquet").to_pylist()
    for item in items:
        assert (f"brand: {item['brand']}; " in item["text"]) == bool(item["brand"])
        assert item["text"].startswith("type: ")
    metrics = json.loads((tmp_path / "relevance/metrics.json").read_text())
    others = {"unsupervised", "residual_kmeans", "weak", "strong"}
    assert set(metrics["rungs"]) == {"no_sid", "full", *others, *rungs}


@pytest.mark.slow
def test_the_same_seed_gives_the_same_tables_and_metrics(run, tmp_path):
    dsirm("run", tmp_path)
    of_rung = "ablation/unsupervised/quantize/sids.parquet"
    first, second = contents(run[0], of_rung), contents(tmp_path, of_rung)
    assert all(x.equals(y) for x, y in zip(first[0], second[0], strict=True))
    assert first[1] == second[1]


@pytest.mark.slow
def test_a_run_killed_in_quantize_and_in_generate_ends_as_an_uninterrupted_one(tmp_path):
    often = [
        *NO_ABLATION,
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
