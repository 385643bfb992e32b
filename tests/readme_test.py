"""README.md is true: its commands run, its links and files exist."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.job.tiny import SMALL, TINY, environment

README = Path("README.md").read_text("utf-8")


def commands(program):
    """Yields the command lines of a program in the README, as lists of words."""
    for block in re.findall(r"```bash\n(.*?)```", README, re.S):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == [program]:
                yield words


def test_make_targets_exist():
    makefile = Path("Makefile").read_text("utf-8")
    targets = {words[1] for words in commands("make")}
    assert {"demo", "test", "proof"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M)


def test_links_and_paths_exist():
    named = re.findall(r"\]\(((?!http)[^)#]+)\)", README)
    named += re.findall(r"`((?:gin|launch|docs)/[\w./]+)`", README)
    assert len(named) > 5
    for path in named:
        assert Path(path).exists(), path


def test_the_demos_output_is_shown():
    shown = README.split("## What the demo prints")[1].split("```")[1]
    assert {"no_sid", "unsupervised", "full", "roc_auc", "ndcg@10", "report:"} <= set(shown.split())


def write_tables(folder):
    """The reader's own tables, with the columns that the README maps."""
    names = [f"{kind} number {n}" for n in range(15) for kind in ("shoe", "lamp", "kettle", "tent")]
    items = [f"s{n},{name},Shop > {name.split()[0]}" for n, name in enumerate(names)]
    (folder / "items.csv").write_text("\n".join(["sku,name,path", *items]))
    rows = ["search,sku,grade"]
    for n, name in enumerate(names):
        grades = [(n, "good"), ((n + 4) % 60, "fair"), ((n + 1) % 60, "bad")]
        rows += [f"{name} please,s{item},{grade}" for item, grade in grades]
    (folder / "judgements.csv").write_text("\n".join(rows))
    (folder / "queries.csv").write_text("query\nshoe please\nlamp\n")
    (folder / "pairs.csv").write_text("query,item_id\nshoe please,s0\nlamp,s1\n")
    (folder / "log.csv").write_text("search,sku\nshoe please,s0\nlamp,s1\n")


def write_esci(folder):
    """The official files of Shopping Queries, with a few rows."""
    kinds = ("shoe", "lamp", "kettle", "tent")
    products = [
        {
            "product_id": f"B{number}",
            "product_title": f"{kinds[number % 4]} number {number}",
            "product_description": None,
            "product_bullet_point": None,
            "product_brand": "Brand",
            "product_color": "Red",
            "product_locale": "us",
        }
        for number in range(60)
    ]
    examples = [
        {
            "example_id": 4 * number + place,
            "query": f"{kinds[number % 4]} {number}",
            "query_id": number,
            "product_id": f"B{(number + 3 * place) % 60}",
            "product_locale": "us",
            "esci_label": label,
            "small_version": 1,
            "large_version": 1,
            "split": "test" if number % 3 == 0 else "train",
        }
        for number in range(60)
        for place, label in enumerate("ESCI")
    ]
    for name, rows in (("products", products), ("examples", examples)):
        path = folder / f"shopping_queries_dataset_{name}.parquet"
        pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.mark.slow
def test_dsirm_commands_run(tmp_path):
    write_tables(tmp_path)
    write_esci(tmp_path)
    env = environment()
    ran = 0
    for words in commands("dsirm"):
        flags = [*SMALL, "--gin.prepare.run.vocabulary_size=700"]
        if "--help" in words:
            flags = []
        elif any("esci.gin" in word for word in words):
            # What it reads is all that is its own.
            words, flags = (
                ["dsirm", "prepare", *words[2:]],
                [*flags, f"--gin.DATA_DIR='{tmp_path}'"],
            )
        elif any("demo" in word for word in words):
            flags = TINY[1:]
        if words[1] == "assign":
            (shard,) = (tmp_path / "out/mine/encode").glob("items-*.parquet")
            items = pq.read_table(tmp_path / "out/mine/prepare/items.parquet")
            new = pq.read_table(shard).append_column("category", items["category"])
            pq.write_table(new, tmp_path / "new-0.parquet")
        if words[1] == "ablate":
            rungs = "{'no_sid': @groups.without_sids(), 'full': @groups.all_groups()}"
            flags += [
                "--gin.FOLDS=2",
                "--gin.job.Job.rungs=()",
                f"--gin.relevance.run.rungs={rungs}",
            ]
        if words[1] == "compare":
            flags = []
            shutil.copytree(tmp_path / "out/mine", tmp_path / "out/mine-again")
        if words[1] == "quantize" and flags:
            words = ["dsirm", "run", *words[2:]]  # a stage alone needs those before it
        if words[1] in ("export", "serve"):
            flags = []
        command = [sys.executable, "-m", "dsirm_jax", *words[1:], *flags]
        if words[1] == "serve":
            with subprocess.Popen(
                [*command, "--port=0"], cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True
            ) as process:
                address = process.stdout.readline().split()[1]
                with urllib.request.urlopen(f"{address}api/tree") as answer:
                    assert json.load(answer)["branches"]
                process.terminate()
            continue
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stderr[-2000:]}"
        ran += 1
    assert ran >= 4
    assert (tmp_path / "out/mine/report/index.html").is_file()
    assert (tmp_path / "out/mine/assign/sids.parquet").is_file()
    assert (tmp_path / "out/demo/predict/query_sids.parquet").is_file()
    assert (tmp_path / "out/mine/score/scores.parquet").is_file()
    assert (tmp_path / "out/demo/ablate/lifts.svg").is_file()
