import numpy as np
import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.report import examples
from dsirm_jax.report.catalogue import read_page_items
from dsirm_jax.sids.codes import read_sids, sid_writer

SIZES = (2, 2, 3)


@pytest.fixture
def found(layout):
    return examples.judged_queries(layout, read_page_items(layout, sizes=SIZES))


def test_reach_counts_test_queries_by_their_deepest_agreement(found):
    # shoes: whole SID; tea: two codes; the third query: none. The training query does not count.
    assert found["reach"] == {
        "all": {"queries": 3, "shares": pytest.approx([2 / 3, 2 / 3, 1 / 3])},
        "head": {"queries": 1, "shares": [1, 1, 1]},
        "tail": {"queries": 2, "shares": [0.5, 0.5, 0]},
    }
    assert found["beams"] == 2


def test_queries_without_a_relevant_item_do_not_count():
    best, segments = np.array([-1, 2, 0]), np.array(["head", "tail", "tail"], object)
    assert examples.reach(best, segments, levels=2) == {
        "all": {"queries": 2, "shares": [0.5, 0.5]},
        "tail": {"queries": 2, "shares": [0.5, 0.5]},
    }
    assert examples.choose_queries(best, segments, per_outcome=5, seed=0) == [1, 2]


def test_an_example_shows_beams_and_judged_items_with_their_agreement(found):
    by_query = {example["query"]: example for example in found["examples"]}
    shoes = by_query["shoes"]
    assert (shoes["segment"], shoes["depth"], shoes["more"]) == ("head", 3, 0)
    first, second = shoes["beams"]
    assert (first["sid"], first["depth"], first["items"]) == ([0, 0, 0], 3, 2)
    assert first["probability"] == pytest.approx(0.5)
    assert (first["category"], sorted(first["rows"])) == ("Shoes › Boots", [0, 1])
    assert (second["sid"], second["depth"]) == ([1, 0, 1], 0)
    # In the order of the full model: item 2 scored .75, item 1 scored .25.
    assert [(item["row"], item["label"], item["depth"]) for item in shoes["judged"]] == [
        (2, "S", 1),
        (1, "E", 3),
    ]
    assert shoes["judged"][0]["scores"] == {"no_sid": 0.5, "full": 0.75}
    assert by_query["tea"]["depth"] == 2


def test_a_beam_counts_as_found_only_for_a_relevant_item(found):
    missed = next(example for example in found["examples"] if example["depth"] == 0)
    # Its beam is the SID of item 2, which was judged irrelevant.
    assert [item["depth"] for item in missed["judged"] if item["row"] == 2] == [3]
    assert missed["beams"][0]["depth"] == 0


def test_choice_is_the_same_for_a_seed_and_takes_so_many_of_each_outcome():
    generator = np.random.default_rng(0)
    best = generator.integers(-1, 4, 500)
    segments = generator.choice(["head", "torso", "tail"], 500).astype(object)
    chosen = examples.choose_queries(best, segments, per_outcome=3, seed=1)
    assert chosen == examples.choose_queries(best, segments, per_outcome=3, seed=1)
    assert chosen != examples.choose_queries(best, segments, per_outcome=3, seed=2)
    cells = [(segments[row], best[row]) for row in chosen]
    assert len(chosen) == len(set(chosen)) == 3 * 3 * 4
    assert all(cells.count(cell) == 3 for cell in cells)
    # The page starts with one of each.
    assert len(set(cells[:12])) == 12


def test_scores_are_left_out_when_there_are_none(layout):
    layout.predictions.unlink()
    found = examples.judged_queries(layout, read_page_items(layout, sizes=SIZES))
    assert all(item["scores"] == {} for e in found["examples"] for item in e["judged"])


def test_sids_of_two_versions_are_never_joined(layout):
    table = read_sids(layout.sids)
    with sid_writer(layout.sids, version="other") as write:
        write(table.item_ids.combine_chunks(), table.sids, table.distances, table.errors)
    with pytest.raises(InputError, match="sid_version"):
        examples.judged_queries(layout, read_page_items(layout, sizes=SIZES))
