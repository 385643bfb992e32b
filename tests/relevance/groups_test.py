"""The groups by name, and the rungs of the gin files, which are those that stood there as lists."""

from __future__ import annotations

import functools

import gin
import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance import groups
from dsirm_jax.relevance.features.group import BEAMS, PER_LEVEL, Column, Group
from dsirm_jax.run import configuration
from dsirm_jax.stages import features, match, relevance

DENSE = ("dense", "lexical", "attributes", "prf", "votes", "numeric")
PRF = ("dense", "lexical", "attributes", "prf", "numeric")
SIDS = ("paper_match", "prefix", "neighbours")
ALL = (*DENSE, *SIDS)
JOB = {"no_sid": DENSE, "unsupervised": ALL, "full": ALL}
OF_KINDS = ("dense", "lexical", "prf", "votes", "paper_match", "prefix", "neighbours")
KINDS = {
    "no_sid": ("dense", "lexical", "prf", "votes"),
    "unsupervised": OF_KINDS,
    "residual_kmeans": OF_KINDS,
    "hierarchical_kmeans": OF_KINDS,
    "no_category": OF_KINDS,
    "full": OF_KINDS,
}
ATTRIBUTE_CODES = {
    "no_sid": DENSE,
    "unsupervised": ALL,
    "residual_kmeans": ALL,
    "residual_opq": ALL,
    "predicted": ALL,
    "aligned": ALL,
    "weak": ALL,
    "strong": ALL,
    "full": ALL,
}
LADDER = {
    "no_prf": ("dense", "lexical", "attributes", "numeric"),
    "prf": PRF,
    "no_sid": DENSE,
    "judged": (*DENSE, "judged"),
    "dsi": ALL,
    "tiger": ALL,
    "residual_kmeans": ALL,
    "no_contrastive": ALL,
    "no_category": ALL,
    "full": ALL,
    "paper": (*DENSE, "paper_match"),
    "prefix": (*DENSE, "prefix"),
    "neighbours": (*DENSE, "neighbours"),
    "full_without_lexical": ("dense", "attributes", "prf", "votes", "numeric", *SIDS),
    "full_without_attributes": ("dense", "lexical", "prf", "votes", "numeric", *SIDS),
    "full_without_prf": ("dense", "lexical", "attributes", "votes", "numeric", *SIDS),
    "full_without_votes": (*PRF, *SIDS),
    "full_without_paper": (*DENSE, "prefix", "neighbours"),
    "full_without_prefix": (*DENSE, "paper_match", "neighbours"),
    "full_without_neighbours": (*DENSE, "paper_match", "prefix"),
    "own_codes": (*DENSE, "paper_match@own", "prefix@own", "neighbours"),
    "beam_1": (*DENSE, "paper_match@1", "prefix@1", "neighbours"),
    "beam_5": (*DENSE, "paper_match@5", "prefix@5", "neighbours"),
}


@pytest.fixture(autouse=True)
def clean():
    yield
    gin.clear_config(clear_constants=True)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param((), JOB, id="job"),
        pytest.param(("gin/runs/ablate.gin",), LADDER, id="ablate"),
        pytest.param(("gin/runs/kinds.gin",), KINDS, id="kinds"),
        pytest.param(
            ("gin/runs/attribute_text.gin", "gin/runs/attribute_codes.gin"),
            ATTRIBUTE_CODES,
            id="attribute codes",
        ),
    ],
)
def test_rungs_of_gin_files_are_what_stood_there_as_lists(files, expected):
    configuration.parse(files=["gin/runs/demo.gin", *files], bindings=["MODEL_DIR = 'out/x'"])
    rungs = configuration.bound(relevance.run)["rungs"]
    assert list(rungs.items()) == list(expected.items())  # and a fingerprint is that of before
    assert configuration.description(rungs) == {
        rung: list(names) for rung, names in expected.items()
    }
    # Written out and read again, as from a MODEL_DIR.
    text = configuration.text()
    gin.clear_config(clear_constants=True)
    gin.parse_config(text)
    assert configuration.bound(relevance.run)["rungs"] == expected
    groups.check_rungs(
        expected,
        beams=configuration.bound(match.run).get("beams", ()),
        extra=groups.controls_named(configuration.bound(features.run).get("control_groups", ())),
    )


@pytest.mark.parametrize("name", ["demo", "ablate", "kinds"])
def test_the_control_has_feedback_and_votes_in_every_file(name):
    files = dict.fromkeys(["gin/runs/demo.gin", f"gin/runs/{name}.gin"])
    configuration.parse(files=list(files), bindings=["MODEL_DIR = 'out/x'"])
    assert {"prf", "votes"} <= set(configuration.bound(relevance.run)["rungs"]["no_sid"])


def test_columns_are_those_of_tables_and_heads_that_are_there():
    columns = [
        name
        for group in groups.package_groups().values()
        for name in group.described(levels=2, numbers=["price"])
    ]
    assert columns == [
        *("cosine", "bm25", "bm25_share", "overlap", "coverage", "phrase", "query_length"),
        *("brand", "colour", "numbers", "numbers_missing", "other_amount", "unwanted", "without"),
        *("same_type", "type_named", "prf_mean", "prf_max", "voted_mean", "voted_max"),
        *("near_query_cosine", "price", "match_depth", "beam_mass_1", "beam_mass_2"),
        *("beam_rank_1", "beam_rank_2", "log_prob_1", "log_prob_2", "pmi_1", "pmi_2"),
        *("beam_entropy", "near_items_1", "near_items_2", "near_share_1", "near_share_2"),
        *("near_rank_1", "near_rank_2", "near_peak_1", "near_peak_2", "near_queries_1"),
        *("near_queries_2", "near_rejected_1", "near_rejected_2", "near_verdict_1"),
        "near_verdict_2",
    ]
    assert len(set(columns)) == len(columns)


def test_every_feature_of_sids_is_named_once():
    of_sids = groups.reading("beams", "neighbour_sids")
    names = [name for group in of_sids for name in group.described(levels=3)]
    assert len(set(names)) == len(names) == 1 + 13 + 21
    assert tuple(groups.package_groups()["paper_match"].described(levels=4)) == ("match_depth",)
    prefix = tuple(groups.package_groups()["prefix"].described(levels=2))
    assert prefix[:2] == ("beam_mass_1", "beam_mass_2")
    about = groups.package_groups()["prefix"].described(levels=2)["pmi_2"]
    assert about == "log_prob minus log share of items with these first l codes, l = 2"


def test_a_control_group_is_in_no_rung_that_does_not_name_it():
    assert "judged" in groups.control_groups() and "judged" not in groups.package_groups()
    [found] = groups.controls_named(("judged",))
    assert len(found.described()) == len(groups.package_groups()["neighbours"].described(levels=3))
    with pytest.raises(InputError, match=r"control_groups names the feature group 'juged' \(did"):
        groups.controls_named(("juged",))


def test_groups_are_chosen_in_the_order_of_tables():
    assert groups.only(names=("prefix", "dense")) == ("dense", "prefix")
    assert groups.without(names=("votes",), extra=("mine",)) == (*PRF, *SIDS, "mine")
    assert groups.without_sids(names=("prf",), extra=("prefix",)) == (
        *("dense", "lexical", "attributes", "votes", "numeric"),
        "prefix",
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        pytest.param(
            ("dense", "prefx"),
            r"rungs\['a'\] names the feature group 'prefx' \(did you mean 'pref",
            id="misspelt group",
        ),
        pytest.param(
            ("dense", "xyz"),
            r"names the feature group 'xyz'; choose from dense, lexical, ",
            id="unknown group",
        ),
        pytest.param(
            ("dense", "dense"),
            r"rungs\['a'\] names the feature group 'dense' twice",
            id="repeated group",
        ),
        pytest.param((), r"rungs\['a'\] is \(\); bind a tuple of dense, ", id="no groups"),
        pytest.param("dense", r"rungs\['a'\] is 'dense'; bind a tuple of dense, ", id="text"),
        pytest.param(
            ("prefix@5",),
            r"names the feature group 'prefix@5' \(did you mean 'prefix@2'\?\)",
            id="other beams",
        ),
        pytest.param(("dense@2",), "names the feature group 'dense@2'", id="group without beams"),
    ],
)
def test_a_rung_that_nothing_computes_is_refused(names, message):
    good = {"b": ("prefix@2", "dense", "mine")}
    mine = Group(name="mine", columns=(Column("one", ""),), compute=len)
    groups.check_rungs(good, beams=(2,), extra=[mine])
    with pytest.raises(InputError, match=message):
        groups.check_rungs(good | {"a": names}, beams=(2,), extra=[mine])


@pytest.mark.parametrize("function", [groups.without, groups.without_sids, groups.only])
def test_groups_that_are_not_there_cannot_be_chosen(function):
    with pytest.raises(InputError, match=rf"groups\.{function.__name__}\.names names .* 'vote' "):
        function(names=("vote",))


def test_a_name_that_gin_binds_is_refused_in_one_line():
    configuration.parse(
        files=["gin/runs/demo.gin", "gin/runs/ablate.gin"],
        bindings=["MODEL_DIR = 'out/x'", "full_without_prf/groups.without.names = ('pfr',)"],
    )
    with pytest.raises(InputError, match=r"groups\.without\.names names .* 'pfr' .*neighbours$"):
        configuration.bound(relevance.run)


def test_a_plan_refuses_a_rung_before_anything_runs():
    from dsirm_jax.run.job import Job, plan
    from dsirm_jax.stages import STAGES

    def planned(*bindings):
        files = ["gin/runs/demo.gin", "gin/runs/ablate.gin"]  # whose match.run.beams has 5
        configuration.parse(files=files, bindings=["MODEL_DIR = 'out/x'", *bindings])
        return plan(STAGES, configuration.call_with_bound(Job))

    with pytest.raises(InputError, match=r"rungs\['full'\] names the feature group 'prefix@3'"):
        planned("relevance.run.rungs = {'full': ('dense', 'prefix@3')}")
    assert planned("relevance.run.rungs = {'full': ('dense', 'prefix@5')}")


MINE = {"name": "mine", "columns": (Column("one", ""),), "compute": len}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"name": "mine@2"}, r"Group\.name is 'mine@2'; bind letters", id="name"),
        pytest.param(
            {"reads": "sids"},
            r"Group\.reads is 'sids'; bind one of \('pairs', 'beams', ",
            id="reads",
        ),
        pytest.param(
            {"order": float("nan")}, r"Group\.order is nan; bind a whole number", id="order"
        ),
        pytest.param(
            {"columns": ()},
            r"Group\.columns of group 'mine' is \[\]; bind at least one",
            id="no columns",
        ),
        pytest.param(
            {"columns": (Column("a", ""), Column("a", ""))},
            r"is \['a', 'a'\]; bind",
            id="repeated column",
        ),
        pytest.param(
            {"compute": 3},
            r"Group\.compute of group 'mine' is no function of a module",
            id="compute",
        ),
    ],
)
def test_what_is_no_group_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        Group(**MINE | changes)


def first_of(context, factor):
    return context * factor


def test_a_closure_is_refused_for_a_stage_could_not_see_it_change():
    def times(factor):
        return lambda context: factor * context.item_vectors

    with pytest.raises(InputError, match=r"bind one, or a functools\.partial of one"):
        Group(**MINE | {"compute": times(2)})
    parts = [
        Group(**MINE | {"compute": functools.partial(first_of, factor=factor)})
        for factor in (2, 2, 3)
    ]
    same, again, other = map(configuration.description, parts)
    assert same == again != other
    assert str(hex(id(first_of)))[2:] not in str(same)


def counted(function):
    @functools.wraps(function)
    def call(context):
        return function(context, factor=2)

    return call


@counted
def twice(context, factor):
    return context * factor


def test_a_decorated_function_of_a_module_is_one():
    assert twice.__closure__
    group = Group(**MINE | {"compute": twice})
    assert configuration.description(group.compute) == f"{__name__}.twice"
    with pytest.raises(InputError, match=r"is no function of a module"):
        Group(**MINE | {"compute": counted(first_of)})


def test_an_extra_group_has_a_name_of_its_own_and_reads_what_its_stage_has():
    mine = Group(name="mine", columns=(Column("one", "", PER_LEVEL),), compute=len, reads=BEAMS)
    assert groups.reading("beams", "neighbour_sids", extra=[mine])[-1] is mine
    with pytest.raises(InputError, match=r"'mine' reads 'beams'; bind groups that read 'pairs' to"):
        groups.reading("pairs", extra=[mine])
    with pytest.raises(InputError, match="two feature groups are named 'mine'"):
        groups.reading("beams", extra=[mine, mine])
    with pytest.raises(InputError, match=r"bind a call, such as @my_module\.group\(\)"):
        groups.reading("pairs", extra=[len])


def test_a_column_stands_once_or_once_a_level_or_number():
    with pytest.raises(InputError, match=r"Column\.per is 'item'; bind one of \('once', "):
        Column("a", "", per="item")
    assert Column("a", "x", per=PER_LEVEL).expanded(levels=2, numbers=()) == {
        "a_1": "x, l = 1",
        "a_2": "x, l = 2",
    }
