"""What engines are told: each one's score is worked out from its files, beside the beams' own."""

import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.serving import engines
from dsirm_jax.serving.engines.documents import write_documents
from dsirm_jax.serving.engines.engine import prefixes_of
from dsirm_jax.sids.codes import write_versioned
from tests.serving.engines.shop import ITEMS, QUERIES, TITLE, VERSION


def lines_of(folder, kind):
    text = "".join(path.read_text("utf-8") for path in sorted(folder.glob(f"{kind}-*")))
    return text.removesuffix("\n").split("\n")


def lucene(folder):
    """Documents by id, and of each query the weights of its terms."""
    lines = [json.loads(line) for line in lines_of(folder, "documents")]
    actions, documents = lines[::2], lines[1::2]
    asked = {}
    for line in lines_of(folder, "queries"):
        known = json.loads(line)
        found = known["body"]["query"]["bool"]
        assert found["filter"] == [{"term": {"sid_version": {"value": VERSION}}}]
        should = [clause["constant_score"] for clause in found["should"]]
        terms = {part["filter"]["term"]["sid_prefixes"]["value"]: part["boost"] for part in should}
        asked[known["query"]] = terms
    by_id = dict(zip((of["index"]["_id"] for of in actions), documents, strict=True))
    return by_id, asked, lambda document: document["sid_prefixes"]


def solr(folder):
    documents = {of["id"]: of for of in map(json.loads, lines_of(folder, "documents"))}
    asked = {}
    for line in lines_of(folder, "queries"):
        known = json.loads(line)
        assert known["body"]["filter"] == [f'sid_version:"{VERSION}"']
        weighted = re.findall(r'"([\d.]+)"\^=(\S+?)[ )]', known["body"]["query"])
        asked[known["query"]] = {prefix: float(weight) for prefix, weight in weighted}
    return documents, asked, lambda document: document["sid_prefixes"]


def vespa(folder):
    documents, asked = {}, {}
    for line in map(json.loads, lines_of(folder, "documents")):
        assert line["put"] == f"id:shop:shop::{line['fields']['item_id']}"
        documents[line["fields"].pop("item_id")] = line["fields"]
    for line in lines_of(folder, "queries"):
        known = json.loads(line)
        weights = re.search(r"dotProduct\(sid_prefixes, (\{.*?\})\)", known["body"]["yql"])[1]
        asked[known["query"]] = {prefix: w / 1e6 for prefix, w in json.loads(weights).items()}
        assert known["body"]["yql"].endswith(f"sid_version contains '{VERSION}'")
    return documents, asked, lambda document: document["sid_prefixes"]


def postgres(folder):
    unescape = {"\\\\": "\\", "\\t": "\t", "\\n": "\n", "\\r": "\r"}
    names = ("title", "brand", "colour", "category", "sid", "sid_version", "vector")
    documents, asked = {}, {}
    for line in lines_of(folder, "documents"):
        item_id, *cells = (
            None if cell == "\\N" else re.sub(r"\\.", lambda at: unescape[at[0]], cell)
            for cell in line.split("\t")
        )
        documents[item_id] = dict(zip(names, cells, strict=len(cells) == len(names)))
    for line in lines_of(folder, "queries"):
        text, prefixes, weights, version = line.split("\t")
        text = re.sub(r"\\.", lambda at: unescape[at[0]], text)
        assert version == VERSION
        prefixes, weights = (of.strip("{}").split(",") for of in (prefixes, weights))
        known = zip(prefixes, weights, strict=True)
        asked[text] = {prefix: float(weight) for prefix, weight in known if prefix}
    ranges = {prefix for terms in asked.values() for prefix in terms}
    # As by_prefix.sql compares them, by bytes.
    return documents, asked, lambda of: {p for p in ranges if p <= of["sid"] < f"{p[:-1]}/"}


READERS = {
    "elasticsearch": lucene,
    "opensearch": lucene,
    "postgres": postgres,
    "solr": solr,
    "vespa": vespa,
}


def test_every_engine_is_tested():
    assert engines.names() == tuple(READERS)


@pytest.mark.parametrize("name", READERS)
def test_scores_are_the_mass_of_beams(layout, tmp_path, sids, beams, name):
    write_documents(
        layout, tmp_path / "out", engine=engines.named(name), name="shop", documents_a_file=10
    )
    documents, asked, terms_of = READERS[name](tmp_path / "out")
    assert [*documents] == [f"item {number}" for number in range(ITEMS)]
    assert [*asked] == QUERIES[:2]  # the last one has none
    for query, (of_query, probabilities) in zip(asked, beams, strict=False):
        agree = np.cumprod(of_query[:, None] == sids, axis=2)  # [beam, item, level]
        expected = np.einsum("b,bil->i", probabilities, agree)
        terms = asked[query]
        found = [
            sum(terms.get(prefix, 0.0) for prefix in terms_of(document))
            for document in documents.values()
        ]
        # A weight is rounded to six decimals, and a document has three.
        np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("name", READERS)
def test_documents_have_what_items_have(layout, tmp_path, sids, vectors, name):
    engine = engines.named(name)
    write_documents(layout, tmp_path / "out", engine=engine, name="shop", vectors=vectors)
    documents, _, _ = READERS[name](tmp_path / "out")
    for number, document in enumerate(documents.values()):
        assert document["title"] == (TITLE if number == 3 else f"mug {number}")
        assert document.get("brand") == (None if number % 2 else "Acme")
        assert document.get("colour") is None
        assert document.get("category") == ("Home > Mugs" if number % 3 else None)
        assert document["sid"].rstrip(".") == ".".join(map(str, sids[number]))
        assert document["sid_version"] == VERSION
        vector = document["vector"]
        vector = json.loads(vector) if isinstance(vector, str) else vector
        vector = vector["values"] if isinstance(vector, dict) else vector
        np.testing.assert_array_equal(np.float32(vector), vectors[number])


@pytest.mark.parametrize("name", READERS)
def test_the_index_is_made_for_its_documents(layout, tmp_path, vectors, name):
    engine = engines.named(name)
    write_documents(layout, tmp_path / "out", engine=engine, name="my-shop", vectors=vectors)
    written = {path.name: path.read_text("utf-8") for path in (tmp_path / "out").iterdir()}
    about = "".join(
        text for file, text in written.items() if not re.match("documents|queries", file)
    )
    names = ("title", "brand", "colour", "category", "sid", "sid_version", "vector")
    assert [name for name in names if name not in about] == []
    assert re.search(r"\b4\b", about)  # numbers of a vector
    for file, text in written.items():
        if file.endswith(".json"):
            json.loads(text)
        if file.endswith(".sd"):
            assert file == "my_shop.sd" and text.count("{") == text.count("}")
        assert "NAME" not in text and "VECTOR" not in text


@pytest.mark.parametrize("kind", ["documents", "queries"])
def test_what_was_interrupted_goes_on(layout, tmp_path, kind):
    engine, folder = engines.named("opensearch"), tmp_path / "out"
    write = {"engine": engine, "name": "shop", "documents_a_file": 2}
    write_documents(layout, folder, **write)
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sum(name.startswith("documents-") for name in whole) == 13
    kept, *lost = sorted(folder.glob(f"{kind}-*"))
    for path in lost:
        path.unlink()
    kept.write_text("as it was")
    write_documents(layout, folder, **write)
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert found == whole | {kept.name: b"as it was"}


def test_sids_of_other_items_are_refused(layout, tmp_path):
    table = pq.read_table(layout.sids)
    write_versioned(
        layout.sids, table.take([*range(12), 13, 12, *range(14, ITEMS)]), version=VERSION
    )
    with pytest.raises(InputError, match=r"sids\.parquet: rows 11 to 20 are not the items of"):
        write_documents(
            layout,
            tmp_path / "out",
            engine=engines.named("solr"),
            name="shop",
            documents_a_file=10,
        )


def test_prefixes_part_codes_by_dots():
    assert prefixes_of([1, 23]) == ("1", "1.23")
