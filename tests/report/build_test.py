import json
import re
import shutil
import subprocess

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.layout import FULL, Layout
from dsirm_jax.metrics import codebook
from dsirm_jax.report import gather
from dsirm_jax.report.build import build
from dsirm_jax.sids.codes import write_sids, write_versioned

HOSTILE = "</script><img src=x onerror=alert(1)> “quote\" & 'ṩ' 👟 שלום"
SIZES = (2, 2, 3)
# Two categories; items 0 and 1 share a SID.
SIDS = np.array([[0, 0, 0], [0, 0, 0], [0, 1, 2], [1, 0, 1]], np.int32)
TITLES = ["red shoe", HOSTILE, "blue shoe", "kettle"]


def interval(value):
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


@pytest.fixture
def layout(tmp_path):
    found = Layout(model_dir=tmp_path)
    for stage in ("prepare", "quantize", "generate", "relevance"):
        found.stage(stage).mkdir()
    items = {
        "item_index": range(4),
        "item_id": list("abcd"),
        "title": TITLES,
        "category": [["Shoes"], ["Shoes"], None, ["Kitchen", "Kettles"]],
    }
    pq.write_table(pa.table({k: list(v) for k, v in items.items()}), found.items)
    queries = {
        "query_index": [0, 1],
        "query": ["shoes", HOSTILE],
        "split": ["test", "test"],
        "frequency": [2.0, 1.0],
        "segment": ["head", "tail"],
    }
    pq.write_table(pa.table(queries), found.queries)
    judged = {
        "query_index": [0, 0, 1],
        "item_index": [1, 2, 3],
        "query": ["shoes", "shoes", HOSTILE],
        "item_id": ["b", "c", "d"],
        "label": ["E", "S", "I"],
        "relevant": [True, False, False],
        "split": ["test"] * 3,
    }
    pq.write_table(pa.table(judged), found.judgements)
    scores = {"no_sid": pa.array([0.5] * 3, "f4"), "full": pa.array([0.75, 0.25, 0.125], "f4")}
    columns = {name: judged[name] for name in ("query", "item_id", "label", "split")}
    pq.write_table(pa.table(columns | scores), found.predictions)
    write_sids(found.sids, item_ids=list("abcd"), sids=SIDS, distances=SIDS * 1.0, version="v")
    health = codebook.health(SIDS, SIZES, {"category": np.array(["s", "s", None, "k"], object)})
    found.health.write_text(
        json.dumps(
            {"sizes": SIZES, "pinned_categories": [], "reconstruction_error": 0.25, **health}
        )
    )
    beams = pa.table(
        {
            "query": ["shoes", HOSTILE],
            "sids": pa.array([[[0, 0, 0], [1, 0, 1]], [[0, 1, 2]]], pa.list_(pa.list_(pa.int32()))),
            "log_probs": pa.array([np.log([0.5, 0.25]), np.log([0.125])], pa.list_(pa.float32())),
        }
    )
    write_versioned(found.query_sids, beams, version="v")
    rungs = {"no_sid": {"roc_auc": interval(0.7)}, "full": {"roc_auc": interval(0.9)}}
    lifts = {
        "full": {
            "rung": "full",
            "over": "no_sid",
            "roc_auc": {"value": 0.2, "low": 0.05, "high": 0.3, "relative": 0.2857},
        }
    }
    part = {"queries": 2, "pairs": 3, "rungs": rungs, "lifts": lifts}
    found.metrics.write_text(json.dumps({**part, "resamples": 100, "segments": {"head": part}}))
    found.config.write_text(f"# {HOSTILE}\nSEED = 0\n")
    return found


def test_the_page_is_one_file_that_loads_nothing(layout):
    text = build(layout=layout, title="A run").read_text()
    assert not re.search(r'(src|href)="(?!#)', text.replace("src=x", ""))
    assert "@import" not in text
    assert "url(" not in text
    assert "+28.57 %" in text
    assert "raise ROC-AUC" in text


def test_texts_of_the_shop_cannot_break_out_of_the_page(layout):
    text = build(layout=layout, title=HOSTILE).read_text()
    assert "<img src=x" not in text
    assert text.count("</script>") == 2
    data = json.loads(re.search(r'id="report-data">(.*?)</script>', text, re.S)[1])
    titles = [t for c in data["tree"]["children"] for t in c["titles"]]
    assert HOSTILE in titles


def test_the_verdict_is_honest_about_what_is_not_certain(layout):
    metrics = json.loads(layout.metrics.read_text())
    metrics["lifts"]["full"]["roc_auc"] |= {"low": -0.05}
    layout.metrics.write_text(json.dumps(metrics))
    assert "make no certain difference" in build(layout=layout, title="x").read_text()


def test_the_tree_counts_every_item_below_its_prefix(layout):
    tree = gather.sid_tree(gather.Catalogue(layout))
    assert tree["items"] == 4
    shoes, kitchen = tree["children"]
    assert (shoes["code"], shoes["items"], shoes["category"]) == (0, 3, "Shoes")
    assert (kitchen["code"], kitchen["category"], kitchen["titles"]) == (1, "Kettles", ["kettle"])
    assert [c["items"] for c in shoes["children"]] == [2, 1]
    leaf = shoes["children"][0]["children"][0]
    assert (leaf["code"], leaf["items"], leaf["titles"]) == (0, 2, TITLES[:2])


def test_the_tree_leaves_out_the_smallest_children_and_says_how_many(layout, monkeypatch):
    monkeypatch.setattr(gather, "CHILDREN_SHOWN", 1)
    shoes = gather.sid_tree(gather.Catalogue(layout))["children"][0]
    assert [c["items"] for c in shoes["children"]] == [2]
    assert shoes["hidden"] == 1


def test_examples_show_matches_by_level(layout):
    by_query = {e["query"]: e for e in gather.examples(layout, gather.Catalogue(layout))}
    shoes = by_query["shoes"]
    assert [(j["label"], j["depth"]) for j in shoes["judged"]] == [("E", 3), ("S", 1)]
    assert shoes["judged"][0]["scores"] == {"no_sid": 0.5, "full": 0.75}
    assert [(b["sid"], b["items"]) for b in shoes["beams"]] == [([0, 0, 0], 2), ([1, 0, 1], 1)]
    assert shoes["beams"][0]["probability"] == pytest.approx(0.5)
    assert by_query[HOSTILE]["judged"][0]["depth"] == 0


def test_curves_take_the_last_value_of_a_step_that_was_written_twice(tmp_path):
    from clu import metric_writers

    for values in ([3.0, 2.0], [1.5, 1.0]):
        writer = metric_writers.SummaryWriter(str(tmp_path))
        for step, value in enumerate(values, start=1 if values[0] == 3.0 else 2):
            writer.write_scalars(step, {"loss": value})
        writer.close()
    assert gather.curves(tmp_path) == {"loss": [(1, 3.0), (2, 1.5), (3, 1.0)]}


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
@pytest.mark.parametrize("width", [360, 1280])
def test_a_browser_shows_the_page_without_an_error(layout, tmp_path, width):
    page = build(layout=layout, title="A run")
    probe = """<script>
      document.querySelectorAll("#sid-tree details").forEach((d) => { d.open = true; });
      const filter = document.getElementById("filter");
      filter.value = "shoes"; filter.dispatchEvent(new Event("input"));
      setTimeout(() => {
        document.querySelectorAll("#sid-tree details").forEach((d) => { d.open = true; });
        setTimeout(() => {
          const root = document.documentElement;
          document.body.dataset.overflow = root.scrollWidth - root.clientWidth;
          document.body.dataset.nodes = document.querySelectorAll("#sid-tree .code").length;
          document.body.dataset.cards = document.querySelectorAll(".example:not([hidden])").length;
        }, 50);
      }, 50);
    </script></body>"""
    page.write_text(page.read_text().replace("</body>", probe))
    done = subprocess.run(
        [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-sync"),
            *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
            *("--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"),
            *(f"--window-size={width},900", "--virtual-time-budget=5000", "--dump-dom"),
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    body = re.search(r"<body[^>]*>", done.stdout)[0]
    assert 'data-nodes="8"' in body  # 2, 3 and 3 on the three levels
    assert 'data-cards="1"' in body
    assert 'data-overflow="0"' in body
    assert "CONSOLE" not in done.stderr


def test_the_full_model_comes_first(layout):
    assert gather.rungs_with_sids(layout) == [FULL]
