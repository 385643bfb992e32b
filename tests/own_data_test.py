"""docs/own_data.md is true: its messy table is read as it says, and what it starts from runs."""

import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

PAGE = Path("docs/own_data.md").read_text("utf-8")
MESSY = PAGE.split("## A messy table")[1].split("\n## ")[0]


def blocks(language):
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", MESSY, re.S | re.M)
    return [text for name, text in fenced if name == language]


def run(folder, *arguments):
    command = [sys.executable, *arguments]
    environment = {"PYTHONPATH": str(Path.cwd()), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_messy_table_is_read_as_the_page_says(tmp_path):
    (program,) = blocks("python")
    (command,) = blocks("bash")
    said, draft = blocks("")
    run(tmp_path, "-c", program)
    assert run(tmp_path, "-m", "dsirm_jax", *command.split()[1:]) == said
    assert (tmp_path / "own.gin").read_text("utf-8") == draft
    flags = ["--gin_file=own.gin", "--gin.MODEL_DIR='out'", "--gin.prepare.run.vocabulary_size=300"]
    run(tmp_path, "-m", "dsirm_jax", "prepare", *flags)
    items = pq.read_table(tmp_path / "out/prepare/items.parquet").to_pylist()
    assert [item["title"] for item in items][:4] == [
        *("red chair", "blue chair", "black chair", "café chair"),
    ]
    assert [item["brand"] for item in items][:2] == [None, "Arvo"]
    assert items[0]["category"] == ["Home", "chair"]
