"""Records as version 0.2.0 wrote them."""

import json
import os

import pytest

from dsirm_jax.run.old_record import old_record, stale_parts

QUANTIZE = {
    "bindings": {
        "config": {
            "": "QuantizerConfig",
            "codebook_sizes": [16, 8, 8],
            "hidden_dim": 256,
            "kind": "rq_vae",
            "latent_dim": 64,
            "pin_depth": 1,
        },
        "objective": {"": "Objective", "commitment": 1.0, "contrastive": 0.1, "temperature": 0.1},
        "seed": 0,
    },
    "fingerprint": "f" * 64,
    "finished": True,
    "inputs": {"encode": "e" * 64, "prepare": "a" * 64},
    "seconds": 1.5,
    "stage": "ablation/unsupervised/quantize",
    "version": "0.2.0",
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "stage.json"


def read(path, record):
    path.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
    return old_record(path)


def test_what_moved_is_told_in_the_words_of_today(path):
    old = read(path, QUANTIZE)
    assert old.bindings == {
        "config": {
            "": "QuantizerConfig",
            "codebook_sizes": [16, 8, 8],
            "kind": {"": "RqVae", "hidden_dim": 256, "latent_dim": 64},
            "pin_depth": 1,
        },
        "objective": {
            "": "QuantizerObjective",
            "commitment": 1.0,
            "contrastive": 0.1,
            "temperature": 0.1,
        },
        "seed": 0,
    }
    assert (old.stage, old.finished, old.seconds) == (QUANTIZE["stage"], True, 1.5)


def test_kinds_without_settings_lose_those_of_another(path):
    config = QUANTIZE["bindings"]["config"] | {"kind": "residual_kmeans"}
    old = read(path, QUANTIZE | {"bindings": {"config": config}})
    assert old.bindings["config"] == {
        "": "QuantizerConfig",
        "codebook_sizes": [16, 8, 8],
        "kind": {"": "ResidualKmeans"},
        "pin_depth": 1,
    }


@pytest.mark.parametrize(
    "changes",
    [{"version": "0.3.0"}, {"files": {}}, {"checksum": "a"}],
    ids=["a later version", "with files", "sealed"],
)
def test_what_another_version_wrote_is_no_old_record(path, changes):
    assert read(path, QUANTIZE | changes) is None


def test_why_a_stage_is_stale(path):
    old = read(path, QUANTIZE)
    now = {"bindings": old.bindings, "inputs": dict(QUANTIZE["inputs"])}
    assert stale_parts(old, **now) == []
    assert stale_parts(old, **now | {"bindings": old.bindings | {"seed": 1}}) == ["binding seed"]
    inputs = now["inputs"] | {"encode": None}
    assert stale_parts(old, **now | {"inputs": inputs}) == ["input encode"]


def test_files_that_nobody_touched_are_the_same(path, tmp_path):
    table = tmp_path / "items.csv"
    table.write_text("item_id,title\n")
    os.utime(table, ns=(10**18, 10**18))
    old = read(path, QUANTIZE | {"bindings": {"files": {str(table): [14, 10**18]}}})
    now = {"files": {str(table): "by its contents"}}
    assert stale_parts(old, bindings=now, inputs=old.inputs) == []
    os.utime(table)
    assert stale_parts(old, bindings=now, inputs=old.inputs) == ["binding files"]
