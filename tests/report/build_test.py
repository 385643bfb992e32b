import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest

from dsirm_jax.relevance.nearest.lists import Lists, Measured, lists_file, save
from dsirm_jax.relevance.nearest.search import VOTERS
from dsirm_jax.report.build import colours, write_report
from dsirm_jax.report.errors import changes
from dsirm_jax.report.plot import lift_plot

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


class Page(HTMLParser):
    """A page as a browser's parser sees it: elements, their attributes, texts and scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts, self.scripts = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.cdata_elem == "script":
            self.scripts[-1] += data
        else:
            self.texts.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))


def page_of(layout, **arguments):
    return Page(write_report(layout=layout, **{"title": "A run"} | arguments).read_text("utf-8"))


def test_the_page_loads_nothing(logged):
    path = write_report(layout=logged, title="A run")
    assert path == logged.report
    assert [file.name for file in path.parent.iterdir()] == ["index.html"]
    text = path.read_text("utf-8")
    page = Page(text)
    addresses = [value for name, value in page.attributes if name in ("src", "href", "action")]
    assert all(re.match(r"#\w+$|data:,$", address) for address in addresses)
    assert not re.search(r"@import|url\(|https?://", text)


def test_the_page_runs_no_script_but_its_own(layout):
    page = page_of(layout)
    policy = next(value for _, value in page.attributes if value and "default-src" in value)
    _, script = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy


def test_texts_of_the_shop_stay_text(layout, hostile):
    page = page_of(layout, title=hostile)
    assert page.tags.count("script") == 2
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    data = json.loads(page.scripts[0])
    assert hostile in data["titles"].values()
    assert hostile in [example["query"] for example in data["queries"]["examples"]]
    assert "toy <b>kettle</b>" in data["titles"].values()
    # In the heading, the labels, the categories and the configuration.
    assert sum(hostile.strip() in text for text in page.texts) >= 4


def test_the_page_tells_the_numbers_of_the_run(layout):
    text = page_of(layout).text
    for told in (
        "5 items, 4 queries and 6 judgements",
        "SID) of 3 codes, coarse to fine, from 2 × 2 × 3",
        "SIDs raise ROC-AUC by +0.2000 [+0.0500, +0.3000] over no SID",
        "cannot be told apart from unsupervised SIDs: +0.0200 [−0.0100, +0.0500]",
        "0.9000 0.8000 – 1.0000",
        "+0.2000 * +0.0500 … +0.3000",
        "items 8 5 3 37.5 % 2 empty title 1 duplicate item_id",
        "judgements 7 7 0 –",
        "6 judged pairs. The vocabulary has 900 pieces",
        "test 3 5 3 60.0 % only the evaluation",
        "Queries by segment head 1 25.0 % torso 0 0.0 % tail 3 75.0 %",
        "1-2 4 80.0 % 3-4 0 0.0 %",
        "Kitchen 1 25.0 %",
        "irrelevant pairs whose codes agree, level by level 12.5 % · 0.0 % · 0.0 %",
        "1 items are of 1 smaller categories",
        "SEED = 0",
        "12 s",
    ):
        assert told in text, told
    assert "+0.0200 *" not in text


def test_the_page_shows_the_floor_of_ece_and_the_tasks_that_a_head_can_do(layout):
    assert "The tasks of ESCI" not in page_of(layout).text
    metrics = json.loads(layout.metrics.read_text())
    about = {"value": 0.75, "low": 0.5, "high": 1.0}
    metrics["rungs"]["full"]["ece"] = about | {"floor": 0.0625}
    metrics["esci"] = {"rungs": {"full": {"task_1_ndcg": about}}, "lifts": {}}
    layout.metrics.write_text(json.dumps(metrics))
    text = page_of(layout).text
    assert "ECE lower is better – – 0.7500 0.5000 – 1.0000 floor 0.0625" in text
    assert "metric full model task 1, ranking: nDCG 0.7500 0.5000 – 1.0000" in text
    assert "task 2" not in text.split("The tasks of ESCI")[1]


def test_the_page_shows_the_ladder_and_the_leak(layout):
    text = page_of(layout).text
    assert "each query is a test query of one of 5 folds" in text
    assert "metrics are means over 2 seeds" in text
    assert "ROC-AUC over no SID full model +0.2000 * +0.0500 … +0.3000" in text
    assert "ROC-AUC of the full model over each" in text
    assert "What a leak would have shown" in text


def test_pairs_that_sids_fixed_and_broke_are_shown_with_their_match(layout):
    found = changes(layout)
    # No SID says .5 of all pairs.
    scores = {(row["query"], row["title"]): row for rows in found.values() for row in rows}
    fixed, broken = ([row["full"] for row in found[kind]] for kind in ("fixed", "broken"))
    assert fixed == [1.0, 0.375] and broken == [0.25, 0.75]
    tea = scores["tea", "kettle"]
    assert (tea["label"], tea["no_sid"], tea["depth"], tea["place"]) == ("E", 0.5, 2, 1)
    assert tea["beam"] == [1, 0, 2] and tea["probability"] == pytest.approx(0.0625)
    assert "Broken query item judged no SID full match" in page_of(layout).text


def test_the_lifts_are_a_picture_of_their_own(layout):
    text = lift_plot(json.loads(layout.ladder.read_text()))
    tree = xml.etree.ElementTree.fromstring(text)
    shapes = [element.tag.split("}")[1] for element in tree]
    assert shapes.count("circle") == 1
    assert "+0.2000 [+0.0500, +0.3000] *" in "".join(tree.itertext())


def test_every_title_that_the_tree_or_an_example_names_is_there(layout):
    data = json.loads(page_of(layout).scripts[0])

    def rows(nodes):
        return {row for node in nodes for row in (*node[4], *rows(node[5]))}

    named = rows(data["tree"]["nodes"])
    for example in data["queries"]["examples"]:
        named |= {row for beam in example["beams"] for row in beam["rows"]}
        named |= {item["row"] for item in example["judged"]}
    assert set(data["titles"]) == set(map(str, named)) == set("01234")


def test_the_same_run_gives_the_same_page(logged):
    first = write_report(layout=logged, title="A run").read_bytes()
    assert write_report(layout=logged, title="A run").read_bytes() == first


@pytest.mark.parametrize(
    "missing, gone, kept",
    [
        pytest.param(
            "metrics", "results", ("codebooks", "tree", "queries", "input", "run"), id="metrics"
        ),
        pytest.param(
            "query_sids",
            "queries",
            ("results", "codebooks", "tree", "input", "run"),
            id="query_sids",
        ),
        pytest.param(
            "health", "tree", ("results", "codebooks", "input", "run"), id="health"
        ),  # Another rung has SIDs.
        pytest.param(
            "predictions", None, ("results", "tree", "queries", "input", "run"), id="predictions"
        ),
        pytest.param("config", None, ("results", "tree", "queries", "input", "run"), id="config"),
    ],
)
def test_a_stage_that_has_not_run_leaves_its_section_out(layout, missing, gone, kept):
    getattr(layout, missing).unlink()
    page = page_of(layout)
    sections = [value for name, value in page.attributes if name == "id"]
    links = [value[1:] for name, value in page.attributes if name == "href" and value[0] == "#"]
    assert gone not in sections
    assert set(kept) <= set(sections)
    assert set(links) <= set(sections)
    assert len(sections) == len(set(sections))


def test_a_run_that_is_only_prepared_has_a_page(layout):
    for stage in ("quantize", "generate", "relevance", "ablate"):
        shutil.rmtree(layout.stage(stage))
    shutil.rmtree(layout.model_dir / "ablation")
    text = page_of(layout).text
    assert "there is no verdict yet" in text
    assert "2 empty title" in text


def test_a_ladder_alone_has_a_page(layout):
    kept = json.loads(layout.ladder.read_text())
    kept["share_within"] = {"value": 0.0125, "low": 0.01, "high": 0.015}
    for lift in kept["lifts"].values():
        lift |= {kind: lift["roc_auc"] for kind in ("auc_between", "auc_within", "ndcg@10")}
    for path in layout.model_dir.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    layout.ladder.parent.mkdir()
    layout.ladder.write_text(json.dumps(kept))
    layout.ladder_config.write_text("FOLDS = 5\n")
    page = page_of(layout)
    for told in (
        "3 queries and 5 judged items",
        "SIDs raise ROC-AUC by +0.2000 [+0.0500, +0.3000] over no SID",
        "within a query +0.2000 [+0.0500, +0.3000]",
        "1.25 % are within a query",
        "AUC within queries over no SID full model +0.2000 * +0.0500 … +0.3000",
        "AUC between queries of the full model over each",
        "nDCG@10 of the full model over each",
        "FOLDS = 5",
    ):
        assert told in page.text, told
    sections = [value for name, value in page.attributes if name == "id"]
    links = [value[1:] for name, value in page.attributes if name == "href" and value[0] == "#"]
    assert set(links) == {"ladder", "run"} and set(links) <= set(sections)
    assert "no verdict yet" not in page.text


def test_how_well_lists_find_is_told(layout):
    measured = Measured(probes=3, recall=0.9912, target=0.99, k=50, queries=256, candidates=12_345)
    lists = Lists(
        centroids=np.eye(4, dtype=np.float32),
        starts=np.arange(5),
        rows=np.arange(4, dtype=np.int32),
        measured=measured,
    )
    assert "exhaustive search" not in page_of(layout).text
    layout.stage("features").mkdir()
    save(lists_file(layout.stage("features"), VOTERS), lists)
    text = page_of(layout).text
    assert "Nearest training queries: the vectors of 3 lists are read" in text
    assert "99.1 % of the 50 nearest of all 12,345 (wanted 99.0 %" in text
    assert "Nearest items" not in text


def test_every_rung_has_a_colour_of_its_own():
    metrics = {"rungs": dict.fromkeys(["no_sid", "tiger", "full", "dsi"])}
    found = colours({"metrics": metrics, "health": {"full": 0, "dsi": 0}, "curves": []})
    assert found.keys() == {"no_sid", "tiger", "full", "dsi"}
    assert len(set(found.values())) == 4


PROBE = """
const after = ([step, ...rest]) => {
  step();
  if (rest.length) setTimeout(after, 60, rest);
};
const all = (selector) => [...document.querySelectorAll(selector)];
const seen = {};
after([
  () => { seen.closed = all("#sid-tree .sid").length; },
  () => { all("#sid-tree summary")[0].click(); },
  () => { seen.opened = all("#sid-tree .sid").length; },
  () => { all("#examples .example:first-child .sid")[0].click(); },
  () => {
    seen.marked = all("#sid-tree .marked .sid")[0].textContent;
    seen.leaves = all("#sid-tree .leaf").map((leaf) => leaf.textContent).join("|");
    seen.images = all("img").length;
    seen.examples = all(".example").length;
    const filter = document.getElementById("filter");
    filter.value = "TEA";
    filter.dispatchEvent(new Event("input"));
    seen.filtered = all(".example .query").map((query) => query.textContent).join("|");
    const root = document.documentElement;
    seen.width = innerWidth;
    seen.overflow = root.scrollWidth - root.clientWidth;
    parent.postMessage(JSON.stringify(seen), "*");
  },
]);
"""
# A browser's window has a least width, a frame has none.
FRAME = """<!doctype html><meta charset="utf-8"><pre></pre><script>
addEventListener("message", (event) => { document.querySelector("pre").textContent = event.data; });
</script><iframe src="{page}" width="{width}" height="800"></iframe>"""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on the PATH")
@pytest.mark.parametrize("width", [360, 1280])
def test_in_a_browser_the_tree_opens_and_the_filter_finds(logged, hostile, tmp_path, width):
    page = write_report(layout=logged, title=f"A run {hostile}")
    digest = base64.b64encode(hashlib.sha256(PROBE.encode()).digest()).decode()
    text = page.read_text("utf-8")
    text = text.replace("script-src '", f"script-src 'sha256-{digest}' '", 1)
    page.write_text(text.replace("</body>", f"<script>{PROBE}</script></body>"), "utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.replace("{page}", page.as_uri()).replace("{width}", str(width)))
    done = subprocess.run(
        [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
            *("--no-first-run", "--disable-background-networking", "--disable-sync"),
            *("--disable-component-update", "--enable-logging=stderr"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,900"),
            *("--virtual-time-budget=5000", "--dump-dom", frame.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=1200,
        env=os.environ | {"LANG": "C.UTF-8"},
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    seen = json.loads("".join(Page(done.stdout).texts))
    assert (seen["closed"], seen["opened"]) == (2, 4)
    # The first example is the query "shoes", its first beam is the SID of items 0 and 1.
    assert seen["marked"] == "0 · 0 · 0"
    assert seen["leaves"] == f"red shoe|{hostile}"
    assert (seen["images"], seen["examples"], seen["filtered"]) == (0, 3, "tea")
    assert (seen["width"], seen["overflow"]) == (width, 0)
