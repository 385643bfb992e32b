from __future__ import annotations

import codecs
import collections
import gzip
import json

import pytest

from dsirm_jax.ingestion.judgement_files.kind import JudgementKind
from dsirm_jax.ingestion.judgement_files.recognition import all_kinds, recognised
from dsirm_jax.ingestion.readers.tables import Tables
from dsirm_jax.io.errors import InputError
from tests.ingestion.reading import raw_rows, values

JUDGED = [("red shoe", "A1", "2"), ("red shoe", "007", "0"), ("café «noir»", "A1", "1")]


def ratings():
    found = collections.defaultdict(dict)
    for query, item_id, label in JUDGED:
        found[query][item_id] = label
    return found


LAYOUTS = {
    "judged.qrels": "".join(f"{query}\t0\t{item}\t{label}\n" for query, item, label in JUDGED),
    "judged.tsv": "".join(f"{query}\tQ0\t{item}\t{label}\n" for query, item, label in JUDGED),
    "judged.letor": "".join(f"{label} qid:1 1:.5 # {item} {q}\n" for q, item, label in JUDGED),
    "judged.svm": "".join(f"{label} qid:7 # {item}\t{query}\n" for query, item, label in JUDGED),
    "workbench.json": json.dumps(
        {
            "judgmentRatings": [
                {"query": query, "ratings": [{"docId": k, "rating": v} for k, v in rated.items()]}
                for query, rated in ratings().items()
            ]
        }
    ),
    "quepid.json": json.dumps(
        {"queries": [{"query": query, "ratings": rated} for query, rated in ratings().items()]}
    ),
    "detailed.csv": "Team Name,Case Name,Case ID,Query Text,Doc ID,Doc Position,Title,Rating\n"
    + "".join(f"T,C,1,{query},{item},1,a title,{label}\n" for query, item, label in JUDGED),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("name", list(LAYOUTS))
def test_every_layout_gives_the_same_judgements(tmp_path, name, packed):
    path = tmp_path / (f"{name}.gz" if packed else name)
    data = LAYOUTS[name].encode()
    path.write_bytes(gzip.compress(data) if packed else data)
    (tmp_path / "items.csv").write_text("item_id,title\nA1,shoe\n")
    source = Tables(items=str(tmp_path / "items.csv"), judgements=str(path)).read()
    rows, unreadable = raw_rows(source.judgements)
    assert values(rows, "query", "item_id", "label") == JUDGED
    assert unreadable == []
    said, *_ = (finding for finding in source.findings if finding.table == "judgements")
    assert f"{path} read as" in said.text


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks(tmp_path, encoding):
    path = tmp_path / "judged.qrels"
    path.write_text(LAYOUTS["judged.qrels"], encoding=encoding)
    assert path.read_bytes().startswith((codecs.BOM_UTF8, codecs.BOM_UTF16))
    kind, _ = recognised([str(path)])
    parts, _ = kind.read([str(path)], queries=[])
    assert values(raw_rows(parts)[0], "query", "item_id", "label") == JUDGED


def test_every_kind_keeps_the_protocol():
    assert all(isinstance(kind, JudgementKind) for kind in all_kinds())
    assert len({kind.title for kind in all_kinds()}) == len(all_kinds()) >= 6


@pytest.mark.parametrize(
    "text",
    [
        "query,item_id,label\nred shoe,A1,2\n",
        "query,docid,rating\nred shoe,A1,2\n",
        "query\titem_id\tlabel\n7\tA1\t2\n",
        '{"query": "red shoe", "item_id": "A1", "label": "2"}\n',
        '[{"query": "red shoe", "item_id": "A1", "label": "2"}]',
    ],
    ids=["CSV", "other names", "TSV", "JSON lines", "array"],
)
def test_a_table_stays_one(tmp_path, text):
    path = tmp_path / "judged.tsv"
    path.write_text(text, encoding="utf-8")
    assert recognised([str(path)]) == (None, [])


def test_a_file_of_no_known_layout_is_named(tmp_path):
    path = tmp_path / "judged.qrels"
    path.write_text("red shoe;A1;2\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"judged.qrels: its lines .*LETOR.* bind Tables.judgem"):
        recognised([str(path)])


def test_files_of_several_layouts_are_refused(tmp_path):
    for name in ("judged.qrels", "workbench.json"):
        (tmp_path / name).write_text(LAYOUTS[name], encoding="utf-8")
    files = [str(tmp_path / name) for name in ("judged.qrels", "workbench.json")]
    with pytest.raises(InputError, match="several layouts: .*is TREC qrels; .*Workbench"):
        recognised(files)
    (tmp_path / "more.qrels").write_text(LAYOUTS["judged.qrels"], encoding="utf-8")
    kind, (finding,) = recognised([files[0], str(tmp_path / "more.qrels")])
    assert kind.title == "TREC qrels" and "and 1 others read as TREC qrels" in finding.text
