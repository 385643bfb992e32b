"""First codes named by titles: which rules named them, for further items and earlier files too."""

from __future__ import annotations

import dataclasses
import json
import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors
import safetensors.numpy

from dsirm_jax.data.title_types import TitleTypes
from dsirm_jax.data.vectors import write_vectors
from dsirm_jax.quantizer import fitted as quantizers
from dsirm_jax.quantizer.training_tables import read_training_items
from dsirm_jax.run.layout import Layout
from tests.quantizer.fitted_test import make
from tests.quantizer.further_items_test import ROWS, assigned, quantized, vectors_of
from tests.quantizer.training_items_test import CONFIG

RULES_2 = TitleTypes(language="en-x-rules2", noise=("product", "series"))


def test_a_file_says_which_rules_named_its_codes(tmp_path):
    before = dataclasses.replace(make(), types=RULES_2)
    quantizers.save(tmp_path / "q.safetensors", before)
    after = quantizers.load(tmp_path / "q.safetensors")
    assert after.title_types == RULES_2
    assert after.version == before.version
    assert after.title_types.of("Zorvik 6 qt. Cooker Series") == "cooker"


def test_the_version_has_the_rules_and_their_noise_but_of_earlier_files():
    quantizer = make()
    others = [RULES_2, TitleTypes(language="en-x-rules2")]
    versions = {dataclasses.replace(quantizer, types=types).version for types in (None, *others)}
    assert len(versions) == 3
    later = dataclasses.replace(quantizer.config, title_language="en", title_rules=2)
    assert dataclasses.replace(quantizer, config=later).version == quantizer.version


def test_a_file_without_rules_keeps_the_first(tmp_path):
    path = tmp_path / "q.safetensors"
    config = dataclasses.replace(make().config, title_language="en")
    before = dataclasses.replace(make(), config=config)
    quantizers.save(path, before)
    with safetensors.safe_open(path, "np") as file:
        header = json.loads(file.metadata()["quantizer"])
    assert "types" not in header
    del header["config"]["title_rules"]
    arrays = safetensors.numpy.load_file(path)
    safetensors.numpy.save_file(arrays, path, metadata={"quantizer": json.dumps(header)})
    after = quantizers.load(path)
    assert after.version == before.version
    assert after.title_types == TitleTypes(language="en")
    assert after.title_types.of("Zorvik Cooker 6 Qt") == "qt"


NOUNS = ["lamp", "chair", "hose", "mug", "shoe", "belt", "drill", "saw", "tile", "rug", "fan"]


def training_items(folder, *, titles=None, paths=None, types=None, **config):
    titles = titles or [f"Zorvik Series {noun} 5 gal." for noun in NOUNS * 2] + ["Big Saw Series"]
    ids = [f"i{row:03d}" for row in range(len(titles))]
    columns = {"item_id": ids, "title": titles}
    columns["category"] = pa.array(paths or [None] * len(ids), pa.list_(pa.string()))
    pq.write_table(pa.table(columns), folder / "items.parquet")
    pq.write_table(pa.table({"query": ["lamp"]}), folder / "queries.parquet")
    judged = {"query_index": [0], "item_index": [1], "relevant": [True], "split": ["train"]}
    pq.write_table(pa.table(judged), folder / "judgements.parquet")
    vectors = np.ones((len(ids), 4), np.float32)
    write_vectors(folder / "i.parquet", ids, vectors, id_column="item_id")
    write_vectors(folder / "q.parquet", ["lamp"], vectors[:1], id_column="query")
    return read_training_items(
        items=folder / "items.parquet",
        queries=folder / "queries.parquet",
        judgements=folder / "judgements.parquet",
        item_vectors=folder / "i.parquet",
        query_vectors=folder / "q.parquet",
        config=dataclasses.replace(CONFIG, codebook_sizes=(16, 4), **config),
        scratch=folder,
        types=types,
    )


def test_a_catalogue_without_categories_says_what_names_its_codes(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    read = training_items(tmp_path, title_language="en", title_rules=2)
    assert sorted(read.names) == sorted(NOUNS)
    assert read.names[0] == "saw"
    assert read.types == TitleTypes(language="en-x-rules2", noise=("series",))
    assert "pinned by product types of titles: 11 of them, for 100.0 % of the items" in caplog.text
    assert "QuantizerConfig.title_language = None to pin nothing" in caplog.text


def test_the_first_rules_call_units_types(tmp_path):
    read = training_items(tmp_path, title_language="en")
    assert set(read.names) == {"gal", "series"}
    assert read.types is None


def test_categories_win_and_need_no_rules(tmp_path):
    paths = [["Home"]] * 23
    read = training_items(tmp_path, paths=paths, title_language="en", title_rules=2)
    assert (read.names, read.types) == (("Home",), None)


def test_a_run_that_goes_on_keeps_the_rules_of_its_codes(tmp_path):
    read = training_items(tmp_path, types=RULES_2, title_language="en", title_rules=2)
    assert read.types == RULES_2


def test_a_catalogue_without_language_or_category_says_what_to_bind(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    read = training_items(tmp_path)
    assert (read.names, read.pinned, read.types) == ((), None, None)
    assert "bind LANGUAGE = 'en' where titles are English" in caplog.text


@pytest.mark.parametrize("rules", [0, 3, 1.5, None, "2"])
def test_rules_that_are_not_there_are_refused(rules):
    with pytest.raises(ValueError, match="QuantizerConfig.title_rules is "):
        dataclasses.replace(CONFIG, title_rules=rules)


def test_titles_of_further_items_are_read_by_the_rules_of_their_run(tmp_path):
    layout = Layout(model_dir=tmp_path / "run")
    sids = quantized(layout, vectors_of(), title_language="en", title_rules=2)
    assert json.loads(layout.health.read_text())["pinned_categories"] == ["lamp", "mug", "shoe"]
    titles = [f"acme 6 in. {['lamp', 'shoe', 'mug'][row % 3]} 6 qt" for row in range(ROWS)]
    assert assigned(layout, tmp_path / "v.parquet", title=titles)["sid"].to_pylist() == sids
    fitted = quantizers.load(layout.quantizer)
    assert fitted.types == TitleTypes(language="en-x-rules2")
