import dataclasses
import re

import pytest
import yaml

from dsirm_jax.run.layout import Layout
from dsirm_jax.run.record import StageRecord, write_record
from dsirm_jax.serving.bundle.contents import open_bundle
from dsirm_jax.serving.card.card import Origin, Part, card, license_of, model_parts, origins
from dsirm_jax.serving.card.limits import limits
from tests.serving import tiny

HOSTILE = "</b> | [x](http://e.vil) `{{ 7 * 7 }}` \"q\" 'ṩ' 👟 שלום \u2028\n---\n# h\n- a: b\0"


def between(value, low, high, **more):
    return {"value": value, "low": low, "high": high, **more}


def metrics():
    """Figures of two rungs, by hand."""
    rungs = {
        "full": {
            "roc_auc": between(0.9, 0.88, 0.92),
            "log_loss": between(0.00003, 0.00001, 0.00005),
            "ndcg@10": between(0.75, 0.7, 0.8),
        },
        "no_sid": {"roc_auc": between(0.85, 0.82, 0.88), "ndcg@10": between(0.7, 0.65, 0.74)},
    }
    lift = {
        "rung": "full",
        "over": "no_sid",
        "roc_auc": between(0.05, 0.03, 0.07, relative=0.0588),
        "ndcg@10": between(-0.05, -0.07, 0.01, relative=-0.07),
        "power": {"standard_error": 0.01, "detectable": 0.028, "target_queries": 9},
    }
    part = {"queries": 1234, "pairs": 5678, "rungs": rungs, "lifts": {"full": lift}}
    segments = {
        "tail": part | {"queries": 1200},
        "unseen items": part | {"queries": 40, "pairs": 568},
        f"category {HOSTILE}": part | {"queries": 34},
    }
    attribute = {"full": {"all": between(0.875, 0.85, 0.9), "brand": between(1.0, 1.0, 1.0)}}
    level = {"branch": between(0.625, 0.6, 0.65), "ece": between(0.0125, 0.0, 0.02, floor=0.01)}
    return {
        **part,
        "resamples": 100,
        "controls": ["no_sid"],
        "segments": segments,
        "fine_grained": {
            "source": "truth",
            "queries": 11,
            "pairs": 22,
            "kinds": {"brand": {"queries": 3, "pairs": 4}},
            "rungs": attribute,
            "lifts": {},
        },
        "belief": {"queries": 1234, "types": "category", "rungs": {"full": {"level_1": level}}},
        "hits": {"rungs": {"full": {"level_1": {"hit@10": between(0.5, 0.4375, 0.5625)}}}},
        "leak": part,
    }


SUMMARY = {
    "items": {"kept": 4321},
    "judgements": {
        "kept": 9876,
        "labels": {"E": 6000, HOSTILE: 3876},
        "disagreement": {"pairs": 0},
    },
    "queries": {
        "segments": {"head": 1, "torso": 2, "tail": 2000},
        "splits": {
            "train": {"queries": 700, "judgements": 4000, "relevant": 2100},
            "test": {"queries": 1234, "judgements": 5678, "relevant": 3000},
        },
        "near_twins": {"test": 7},
    },
}


@pytest.fixture
def given(made):
    """What a card is made of."""
    manifest = open_bundle(made).manifest
    return {
        "title": HOSTILE,
        "reader": "SimulatedShop",
        "summary": SUMMARY,
        "metrics": metrics(),
        "manifest": manifest,
        "parts": [Part(name="encoder", about=HOSTILE)],
        "head": tiny.random_head(["bm25"], seed=0),
        "origins": [],
    }


def split(text):
    """Returns the head of a card as values, and the rest as lines."""
    empty, head, rest = re.split(r"^---$\n", text, maxsplit=2, flags=re.MULTILINE)
    assert not empty
    return yaml.safe_load(head), rest.splitlines()


def row(lines, name):
    """Returns the cells of the first row of that name."""
    return next(cells for line in lines if (cells := line.strip("| ").split(" | "))[0] == name)


def test_the_head_has_what_a_hub_reads(given):
    head, _ = split(card(**given | {"title": "Shoes"}))
    (model,) = head.pop("model-index")
    (result,) = model["results"]
    assert head.pop("tags")[0] == "semantic-ids"
    assert head == {
        "language": ["en"],
        "library_name": "dsirm-jax",
        "pipeline_tag": "text-ranking",
        "datasets": ["simulated-shop"],
    }
    assert model["name"] == "Shoes" and result["task"]["type"] == "text-ranking"
    expected = {"type": "simulated-shop", "name": "SimulatedShop", "split": "test"}
    assert result["dataset"] == expected
    found = {metric["type"]: (metric["value"], metric["name"]) for metric in result["metrics"]}
    assert found == {
        "roc_auc": (0.9, "ROC-AUC, 95 % interval 0.8800 to 0.9200"),
        "log_loss": (0.00003, "log-loss, 95 % interval 0.0000 to 0.0001"),
        "ndcg@10": (0.75, "nDCG@10, 95 % interval 0.7000 to 0.8000"),
    }


def test_figures_are_those_of_the_metrics(given):
    _, lines = split(card(**given))
    assert row(lines, "ROC-AUC") == [
        "ROC-AUC",
        "0.9000 (0.8800, 0.9200)",
        "0.8500 (0.8200, 0.8800)",
        "+0.0500 (+0.0300, +0.0700)",
    ]
    assert row(lines, "nDCG@10")[3] == "−0.0500 (−0.0700, +0.0100)"
    assert row(lines, "log-loss ↓")[2:] == ["–", "–"]  # which the control lacks
    assert row(lines, "tail")[1:3] == ["1,200", "5,678"]
    assert row(lines, "brand") == ["brand", "3", "4", "1.0000 (1.0000, 1.0000)", "–", "–"]
    assert row(lines, "whole SID") == [
        *("whole SID", "–", "–", "0.5000 (0.4375, 0.5625)", "–"),
        *("0.6250 (0.6000, 0.6500)", "0.0125 (0.0000, 0.0200)"),
    ]
    assert row(lines, "test")[1:4] == ["1,234", "5,678", "3,000"]
    text = "\n".join(lines)
    assert "**SIDs raise ROC-AUC by +0.0500 (+0.0300, +0.0700) over no SID.**" in text
    assert "4,321 items, 2,003 queries and 9,876 judgements" in text
    assert "The bundle held 60 items and 12 cached queries" in text


def test_every_row_of_a_table_has_its_columns_and_nothing_breaks_out(given):
    text = card(**given)
    head, lines = split(text)
    assert head["model-index"][0]["name"].startswith("</b> | [x](http://e.vil) `{{ 7 * 7 }}`")
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in lines]
    for before, width, line in zip(widths, widths[1:], lines[1:], strict=False):
        assert not (before and width) or before == width, line
    outside = "\n".join(lines).split("```")[0]
    assert not re.search(r"(?<!\\)[<>\[\]]", outside)
    assert sum(line.startswith("# ") for line in lines) == 1


def test_a_secret_in_a_title_is_masked(given):
    text = card(**given | {"title": "shop of https://amy:hunter2@host/?sig=hunter2"})
    assert "hunter2" not in text


@pytest.mark.parametrize("lacking", ["fine_grained", "belief", "hits", "leak", "segments"])
def test_metrics_of_earlier_versions_do(given, lacking):
    lesser = {name: of for name, of in metrics().items() if name != lacking}
    split(card(**given | {"metrics": lesser}))


def test_a_model_beside_none_has_a_card_too(given):
    alone = metrics() | {"lifts": {}, "controls": []}
    _, lines = split(card(**given | {"metrics": alone}))
    assert row(lines, "ROC-AUC") == ["ROC-AUC", "0.9000 (0.8800, 0.9200)"]
    assert "what they add is not known" in "\n".join(lines)


def test_limits_say_what_was_not_measured():
    said = "\n".join(limits(metrics(), summary=SUMMARY, language="de"))
    assert "1,234 of its queries (de)" in said and "less than 0.0280 would be" in said
    assert "568 of the 5,678 test pairs, 10.0 %" in said and "7 of the test queries" in said
    assert "The shop is simulated" in said
    assert "fewer than 50 queries tell little by themselves: unseen items, category" in said
    assert "Not measured: clicks" in said
    lesser = metrics() | {"fine_grained": {}, "belief": {}, "segments": {}}
    said = "\n".join(limits(lesser, summary=SUMMARY, language=None))
    assert "Not measured: how well items that differ in one attribute are told apart; how" in said
    assert "Every item of the test was judged before" in said


def test_parts_are_told_with_their_sizes(made):
    opened = open_bundle(made)
    found = {
        part.name: part.about
        for part in model_parts(
            opened.manifest, applied=opened.models, quantizer=tiny.random_quantizer()
        )
    }
    assert found["encoder"].startswith("two towers, vectors of 8 numbers, ")
    assert found["quantizer"] == "ResidualKmeans, codes 4 × 5 × 6"
    assert found["generator"].endswith("reads 12 pieces of a query and writes 3 SIDs")
    assert found["head"].startswith("Mlp, ") and "features: dense, " in found["head"]
    # A vector of 8 and an importance for each piece, and two layers of 8 by 8 with their biases.
    of_encoder = 9 * opened.models.vocabulary.vocab_size() + 2 * (8 * 8 + 8)
    assert found["encoder"].endswith(f"numbers, {of_encoder:,} parameters")


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        pytest.param([], None, id="own weights"),
        pytest.param(["apache-2.0", "apache-2.0"], "apache-2.0", id="one"),
        pytest.param(["apache-2.0", "gemma"], "other", id="two"),
        pytest.param(["apache-2.0", None], "other", id="one stated"),
        pytest.param([None], "unknown", id="none stated"),
    ],
)
def test_the_licence_is_that_of_all_weights(stated, expected):
    found = [Origin(part="p", licences="", stated=name) for name in stated]
    assert license_of(found) == expected


def test_licences_are_found_beside_the_weights(tmp_path, given):
    layout, weights = Layout(model_dir=tmp_path / "run"), tmp_path / "imported"
    weights.mkdir()
    (weights / "LICENSE").write_text("Apache License\n")
    (weights / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    (weights / "generator.safetensors").touch()
    bindings = {
        "encode": {"encoder": {"": "Pretrained", "folder": str(tmp_path / "gone")}},
        "generate": {"start": str(weights / "generator.safetensors")},
    }
    for stage, bound in bindings.items():
        layout.stage(stage).mkdir(parents=True)
        record = StageRecord(
            stage=stage, stage_version=1, version="1", bindings=bound, inputs={}, finished=True
        )
        write_record(layout.stage(stage), record)
    encoder, generator = origins(layout)
    assert encoder.stated is None and "no longer where they were" in encoder.licences
    assert generator.stated == "apache-2.0"
    found = "pretrained weights; LICENSE (Apache License); README.md says apache-2.0"
    assert generator.licences == found
    text = card(**given | {"origins": [generator]})
    assert split(text)[0]["license"] == "apache-2.0" and f"- generator: {found}" in text
    assert str(tmp_path) not in card(**given | {"origins": [encoder, generator]})
    both = split(card(**given | {"origins": [encoder, generator]}))[0]
    assert (both["license"], both["license_name"]) == ("other", "see-card")


def test_vectors_of_ones_own_are_told(given):
    settings = given["manifest"].settings
    none = dataclasses.replace(settings.encoder, kind="none")
    manifest = dataclasses.replace(
        given["manifest"], settings=dataclasses.replace(settings, encoder=none)
    )
    assert "only the cached queries can be scored" in card(**given | {"manifest": manifest})
