"""A ladder of some rungs on its own, of tables in the layout of KuaiSearch."""

import json

import numpy as np
import pytest

from dsirm_jax.run.layout import Layout
from tests.job.tiny import SMALL, dsirm

COLOURS = ("红", "蓝", "绿", "黑", "白", "灰")
THINGS = ("水壶", "椅子", "台灯", "杯子", "锅", "地毯", "沙发", "花瓶", "书桌", "碗")
SESSIONS = 12
"""Of each query, more than the impressions that a click model asks for."""
RUNGS = {
    "prf": "@prf/groups.without_sids()",
    "no_sid": "@groups.without_sids()",
    "judged": "@judged/groups.without_sids()",
    "neighbours": "@neighbours/groups.without_sids()",
    "full": "@groups.all_groups()",
}


def write(folder):
    """Writes 120 items, and the sessions of 60 queries: of a colour and thing clicks are likely."""
    toss = np.random.default_rng(3)
    names = [(colour, thing) for colour in COLOURS for thing in THINGS for _ in range(2)]
    items = [
        {
            "item_id": number,
            "item_title": f"{colour}色 {thing} {number}",
            "brand_id": 1,
            "brand_name": "无品牌",
            "seller_id": 1,
            "seller_name": "店",
            "category_level1_name": "家居",
            "category_level2_name": thing,
            "category_level3_name": "UNKNOWN",
        }
        for number, (colour, thing) in enumerate(names)
    ]
    sessions = []
    for place, (colour, thing) in enumerate(names[::2]):
        shown = np.unique([*toss.permutation(len(names))[:9], 2 * place, 2 * place + 1]).tolist()
        alike = [(names[item][0] == colour) + (names[item][1] == thing) for item in shown]
        for session in range(SESSIONS):
            clicked = [
                item
                for item, shared in zip(shown, alike, strict=True)
                if toss.random() < 0.02 + 0.3 * shared
            ]
            sessions.append(
                {
                    **dict.fromkeys(("user_id", "session_id", "time_index"), session),
                    "query": f"{colour}色 {thing}",
                    "split": "train",
                    "impressed_item_ids": shown,
                    "clicked_item_ids": clicked,
                    "purchased_item_ids": [],
                }
            )
    for name, rows in (("items", items), ("recall", sessions)):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


@pytest.mark.slow
def test_some_rungs_of_tables_of_kuaisearch(tmp_path):
    write(tmp_path)
    rungs = ", ".join(f"'{rung}': {groups}" for rung, groups in RUNGS.items())
    done = dsirm(
        "ablate",
        tmp_path / "ladder",
        f"--gin.relevance.run.rungs={{{rungs}}}",
        *("--gin.FOLDS=2", "--gin.job.Job.rungs=()", "--gin.prepare.run.vocabulary_size=500"),
        base=[
            *("--gin_file=gin/runs/kuaisearch.gin", "--gin_file=gin/runs/ablate.gin"),
            f"--gin.DATA_DIR='{tmp_path}'",
            *SMALL,
        ],
    )
    layout = Layout(model_dir=tmp_path / "ladder")
    found = json.loads(layout.ladder.read_text())
    assert list(found["rungs"]) == list(RUNGS)
    assert found["controls"] == ["prf", "no_sid", "judged"]
    assert done.stdout.startswith(f"{found['queries']} queries, {found['pairs']} pairs: detectable")
    share = found["share_within"]["value"]
    assert 0 < share < 0.1
    for lift in found["lifts"].values():
        parts = [lift[kind]["value"] for kind in ("auc_within", "auc_between")]
        whole = share * parts[0] + (1 - share) * parts[1]
        assert whole == pytest.approx(lift["roc_auc"]["value"], abs=1e-9)
        assert lift["power"]["standard_error"] > 0
    assert "the strongest of 3 controls without codes." in done.stdout
    assert "full over judged: detectable lift in ROC-AUC ±" in done.stdout
    assert f"report: {layout.report}" in done.stdout
    page = layout.report.read_text("utf-8")
    assert "the strongest of 3 controls without codes." in page
    assert 'id="ladder"' in page and "no verdict yet" not in page
