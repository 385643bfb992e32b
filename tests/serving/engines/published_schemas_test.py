"""What engines are sent has the form that their published schemas give it.

ENGINE_SCHEMAS names a folder with `elasticsearch.json`, an OpenAPI file of
https://github.com/elastic/elasticsearch-specification (output/openapi), and `opensearch`, the
folder spec/schemas of https://github.com/opensearch-project/opensearch-api-specification.
"""

import functools
import json
import os
from pathlib import Path

import jsonschema_rs
import numpy as np
import pytest
import yaml

from dsirm_jax.serving import engines
from dsirm_jax.serving.engines.engine import Document, Index, prefixes_of, terms_of

PUBLISHED = Path(os.environ.get("ENGINE_SCHEMAS", "not/given"))
pytestmark = pytest.mark.skipif(not PUBLISHED.is_dir(), reason="ENGINE_SCHEMAS names no folder")

ELASTICSEARCH = {
    "query": "elasticsearch.json#/components/schemas/_types.query_dsl.QueryContainer",
    "index": "elasticsearch.json#/paths/~1{index}/put/requestBody/content/application~1json/schema",
    "action": "elasticsearch.json#/components/schemas/_global.bulk.OperationContainer",
}
OPENSEARCH = {
    "query": "opensearch/_common.query_dsl.yaml#/components/schemas/QueryContainer",
    "mappings": "opensearch/_common.mapping.yaml#/components/schemas/TypeMapping",
    "settings": "opensearch/indices._common.yaml#/components/schemas/IndexSettings",
    "action": "opensearch/_core.bulk.yaml#/components/schemas/OperationContainer",
}
TERMS = terms_of([[12, 87, 3], [12, 9, 41]], [0.62, 0.21])
TEXT = 'mug "20 cm" \\ \u3042'


@functools.cache
def loaded(file):
    text = (PUBLISHED / file).read_text("utf-8")
    return json.loads(text) if file.endswith(".json") else yaml.safe_load(text)


def at(reference):
    file, _, pointer = reference.partition("#")
    schema = loaded(file)
    for part in pointer.strip("/").split("/"):
        schema = schema[part.replace("~1", "/").replace("~0", "~")]
    return schema


def absolute(reference, *, file):
    name, _, pointer = reference.partition("#")
    # Paths of the files go from one to the other; all lie in one folder.
    return f"{(Path(file).parent / Path(name).name).as_posix() if name else file}#{pointer}"


def names_in(schema, *, file):
    """The properties that an object of a schema may have; None where it may have any."""
    if "$ref" in schema:
        there = absolute(schema["$ref"], file=file)
        return names_in(at(there), file=there.partition("#")[0])
    if schema.get("additionalProperties"):
        return None
    names = set(schema.get("properties", {}))
    for part in [part for kind in ("allOf", "oneOf", "anyOf") for part in schema.get(kind, ())]:
        more = names_in(part, file=file)
        if more is None:
            return None
        names |= more
    return names


class Closed:
    """A schema that refuses properties which are not described: published ones let any pass."""

    def __init__(self, reference):
        self.definitions, self.numbers = {}, {}
        self.root = self.reference(reference, is_open=False)

    def reference(self, reference, *, is_open):
        key = reference, is_open
        if key not in self.numbers:  # schemas may name themselves
            name = self.numbers[key] = str(len(self.numbers))
            file = reference.partition("#")[0]
            self.definitions[name] = self.schema(at(reference), file=file, is_open=is_open)
        return {"$ref": f"#/$defs/{self.numbers[key]}"}

    def schema(self, schema, *, file, is_open):
        if "$ref" in schema:
            return self.reference(absolute(schema["$ref"], file=file), is_open=is_open)
        kept = {
            name: schema[name]
            for name in ("type", "enum", "const", "required", "minProperties", "maxProperties")
            if name in schema
        }
        for kind in ("allOf", "oneOf", "anyOf"):
            if kind in schema:
                # What is not kept, patterns and formats, may be all that tells the one from others.
                kept["anyOf" if kind == "oneOf" else kind] = [
                    self.schema(part, file=file, is_open=is_open or kind == "allOf")
                    for part in schema[kind]
                ]
        closed = functools.partial(self.schema, file=file, is_open=False)
        if "properties" in schema:
            kept["properties"] = {name: closed(part) for name, part in schema["properties"].items()}
        if isinstance(schema.get("additionalProperties"), dict):
            kept["additionalProperties"] = closed(schema["additionalProperties"])
        if "items" in schema:
            kept["items"] = closed(schema["items"])
        names = names_in(schema, file=file)
        if names and not is_open:
            kept["propertyNames"] = {"enum": sorted(names)}
        return kept


@functools.cache
def validator(reference):
    closed = Closed(reference)
    return jsonschema_rs.Draft202012Validator(closed.root | {"$defs": closed.definitions})


def written(name, *, dim):
    engine = engines.named(name)
    index = Index(name="items", sid_version="9f2c41d07ab35e86", dim=dim)
    vector = None if dim is None else np.full(dim, 0.5, np.float32)
    item = Document(
        item_id="P17",
        prefixes=prefixes_of([12, 87, 3]),
        fields={"title": TEXT, "brand": "Acme", "colour": "red", "category": "Home > Mugs"},
        vector=vector,
    )
    action, source = map(json.loads, engine.document(item, index=index).splitlines())
    query = json.loads(engine.query(TEXT, TERMS, index=index))["body"]["query"]
    return json.loads(engine.index_files(index)["index.json"]), action, source, query


@pytest.mark.parametrize("dim", [None, 4], ids=["plain", "with vectors"])
def test_elasticsearch(dim):
    index, action, source, query = written("elasticsearch", dim=dim)
    validator(ELASTICSEARCH["index"]).validate(index)
    validator(ELASTICSEARCH["action"]).validate(action)
    validator(ELASTICSEARCH["query"]).validate(query)
    assert set(source) <= set(index["mappings"]["properties"])


@pytest.mark.parametrize("dim", [None, 4], ids=["plain", "with vectors"])
def test_opensearch(dim):
    index, action, source, query = written("opensearch", dim=dim)
    validator(OPENSEARCH["mappings"]).validate(index["mappings"])
    validator(OPENSEARCH["settings"]).validate(index.get("settings", {}))
    validator(OPENSEARCH["action"]).validate(action)
    validator(OPENSEARCH["query"]).validate(query)
    assert set(source) <= set(index["mappings"]["properties"])


@pytest.mark.parametrize("published", [ELASTICSEARCH, OPENSEARCH], ids=["elastic", "opensearch"])
def test_what_is_not_described_is_refused(published):
    check = validator(published["query"])
    check.validate({"term": {"sid_prefixes": {"value": "12", "boost": 0.5}}})
    for wrong in (
        {"terms_of": {}},
        {"constant_score": {"filter": {"term": {"a": "1"}}, "weight": 1.0}},
        {"constant_score": {"boost": 1.0}},
        {"bool": {"should": [{"nothing": {}}]}},
        {"bool": {"should": [], "minimum_should": 1}},
    ):
        assert not check.is_valid(wrong), wrong
