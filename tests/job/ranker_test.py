"""The program of docs/rankers.md on a finished run."""

import re
import subprocess
import sys
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tests.job.tiny import environment

pytestmark = pytest.mark.slow
TEXT = Path("docs/rankers.md").read_text("utf-8")


def test_a_ranker_is_taught_with_and_without_sids(run, tmp_path):
    model_dir, _ = run
    judged = pq.read_table(model_dir / "prepare/judgements.parquet", columns=["query", "item_id"])
    pyarrow.csv.write_csv(judged, tmp_path / "judgements.csv")
    command = [sys.executable, "-m", "dsirm_jax", "score", f"--gin_file={model_dir}/config.gin"]
    command += [f"--pairs={tmp_path / 'judgements.csv'}", "--features"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr[-3000:]
    (program,) = re.findall(r'^```python title="lightgbm"\n(.*?)^```$', TEXT, re.M | re.S)
    (tmp_path / "ranker.py").write_text(program.replace("out/demo", str(model_dir)))
    command = [sys.executable, tmp_path / "ranker.py"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr[-3000:]
    lines = re.findall(r"^nDCG@10 ([\w ]+): (\S+) \[(\S+), (\S+)\]$", done.stdout, re.M)
    found = {name: tuple(map(float, numbers)) for name, *numbers in lines}
    assert [*found] == ["without SIDs", "with SIDs", "difference"]
    for value, low, high in found.values():
        assert low <= value <= high <= 1
    gain = found["with SIDs"][0] - found["without SIDs"][0]
    assert found["difference"][0] == pytest.approx(gain, abs=2e-4)
