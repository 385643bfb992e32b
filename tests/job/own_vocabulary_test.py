"""A language model with its own tokenizer, from tables to a bundle, through the command line."""

import json
import re
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from dsirm_jax.data.vocabularies import folder
from tests.data.vocabularies import tiny as vocabularies
from tests.job.tiny import SMALL, TINY, dsirm, environment

GIN = """
from __gin__ import dynamic_registration

from dsirm_jax.generator.architectures import decoder_only
from dsirm_jax.stages import generate

generate.run.config = @decoder_only.DecoderConfig()
generate.run.prompt = 'find: {{query}}'
generate.run.vocabulary = {vocabulary!r}
decoder_only.DecoderConfig:
  emb_dim = 16
  num_heads = 2
  num_kv_heads = 1
  head_dim = 8
  mlp_dim = 16
  num_layers = 1
"""


@pytest.mark.slow
def test_the_same_beams_from_run_bundle_scorer_and_saved_model(tmp_path):
    vocabularies.byte_level(tmp_path, size=400)
    folder.write(tmp_path / "own", tokenizer=tmp_path / "tokenizer.json")
    (tmp_path / "lm.gin").write_text(GIN.format(vocabulary=str(tmp_path / "own")))
    flags = [flag for flag in TINY if "T5Config" not in flag]
    base = [flags[0], f"--gin_file={tmp_path / 'lm.gin'}", *flags[1:]]
    assert len(base) > len(SMALL) - 3
    run = tmp_path / "run"
    dsirm("run", run, "--gin.job.Job.rungs=()", base=base)
    (tmp_path / "own").rename(tmp_path / "elsewhere")  # the run has its own
    dsirm("export", run, "--gin.job.Job.rungs=()", base=base)
    bundle = run / "export/bundle"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        kept = [tmp_path / "elsewhere", run / "generate/vocabulary", bundle / "model/vocabulary"]
        assert len({(place / name).read_bytes() for place in kept}) == 1
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert "model/vocabulary/tokenizer.json" in manifest["files"]

    done = subprocess.run(
        [sys.executable, "-m", "dsirm_jax", "verify-bundle", str(bundle), "--pairs=4"],
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert {"StableHLO", "SavedModel", "scorer,"} <= {*done.stdout.split()}

    table = pq.read_table(run / "generate/query_sids.parquet").slice(0, 5)
    queries = table["query"].to_pylist()
    from dsirm_jax.serving import Scorer

    with Scorer.open(bundle) as scorer:
        for row, query in enumerate(queries):
            answer = scorer.query_sids(query)
            assert answer.sids.tolist() == table["sids"][row].as_py()
            expected = np.exp(table["log_probs"][row].as_py())
            np.testing.assert_allclose(answer.probabilities, expected, atol=1e-5)
    asked = [f"--query={query}" for query in queries[:2]]
    shown = dsirm("predict-sids", run, "--gin.job.Job.rungs=()", *asked, base=base).stdout
    found = re.findall(r"^  ([\d-]+) ", shown, flags=re.MULTILINE)
    best = ["-".join(map(str, sid)) for row in range(2) for sid in table["sids"][row].as_py()]
    assert found == best
