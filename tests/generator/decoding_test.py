import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.generator import decoding, top_k
from dsirm_jax.generator.architectures.architecture import Architecture, init_params
from dsirm_jax.generator.architectures.decoder_only import DecoderConfig
from dsirm_jax.generator.architectures.t5 import T5Config
from dsirm_jax.generator.decoding import NO_CODE, beam_search, sample
from dsirm_jax.io.errors import InputError
from dsirm_jax.sids import trie as tries

TEXT = np.array([[3, 9, 4, 0], [7, 0, 0, 0]], np.int32)


def tiny_t5(sizes):
    return T5Config(
        text_vocab_size=12,
        sid_sizes=sizes,
        emb_dim=8,
        num_heads=2,
        head_dim=4,
        mlp_dim=8,
        num_encoder_layers=1,
        num_decoder_layers=1,
    )


def tiny_decoder(sizes):
    return DecoderConfig(
        text_vocab_size=12,
        sid_sizes=sizes,
        emb_dim=8,
        num_heads=2,
        num_kv_heads=1,
        head_dim=4,
        mlp_dim=8,
        num_layers=2,
        local_layers=(0,),
        local_window=2,
    )


ARCHITECTURES = {"t5": tiny_t5, "decoder": tiny_decoder}
each = pytest.mark.parametrize("tiny", ARCHITECTURES.values(), ids=ARCHITECTURES)


def sharp_params(config, seed):
    """Random parameters whose output distribution is far from uniform."""

    def sharp(path, array):
        return array * 4 if path[-2].key == "logits_dense" or "head_" in path[-1].key else array

    return jax.tree.map_with_path(sharp, init_params(config, seed=seed))


def everything(sizes):
    return np.array(list(itertools.product(*map(range, sizes))))


@functools.partial(jax.jit, static_argnames="config")
def teacher_forced(params, sids, *, config):
    return config.teacher_forced(params, TEXT, sids)


def enumerate_log_probs(params, config):
    """Exact log P of every possible SID by one full teacher-forced pass, summed in float64."""
    sids = everything(config.sid_sizes)
    logits = teacher_forced(params, np.repeat(sids[None], len(TEXT), axis=0), config=config)
    total = np.zeros((len(TEXT), len(sids)))
    for level, values in enumerate(logits):
        values = np.asarray(values, np.float64)
        log_probs = values - np.log(np.exp(values).sum(-1, keepdims=True))
        total += np.take_along_axis(log_probs, sids[None, :, level, None], -1)[..., 0]
    names = list(map(tuple, sids.tolist()))
    return [dict(zip(names, row, strict=True)) for row in total]  # per query: SID -> log P


def check_beams(found, exact, sids):
    """What must hold of any search: real, distinct, exactly scored, descending, flagged."""
    found = jax.tree.map(np.asarray, found)
    existing = {tuple(sid) for sid in sids.tolist()}
    for row in range(len(TEXT)):
        valid = found.valid[row]
        beams = [tuple(sid) for sid in found.sids[row][valid].tolist()]
        assert set(beams) <= existing
        assert len(set(beams)) == len(beams)
        assert (found.sids[row][~valid] == NO_CODE).all()
        assert np.isneginf(found.log_probs[row][~valid]).all()
        assert valid.tolist() == sorted(valid.tolist(), reverse=True)
        scores = found.log_probs[row][valid]
        assert (np.diff(scores) <= 0).all()
        np.testing.assert_allclose(scores, [exact[row][b] for b in beams], rtol=1e-4, atol=1e-4)


def widened(trie):
    """The same trie with arrays as long as any trie of its sizes needs: one compiled shape."""
    levels = []
    for level, nodes in zip(trie.levels, np.cumprod([1, *trie.sizes[:-1]]), strict=True):
        if isinstance(level, tries.Bitmap):
            missing = nodes - len(level.first_child)
            levels.append(
                dataclasses.replace(
                    level,
                    bitmaps=np.pad(level.bitmaps, ((0, missing), (0, 0))),
                    first_child=np.pad(level.first_child, (0, missing)),
                )
            )
        else:
            levels.append(
                dataclasses.replace(
                    level,
                    codes=np.pad(level.codes, (0, nodes * level.size - len(level.codes))),
                    starts=np.pad(level.starts, (0, nodes + 1 - len(level.starts)), mode="edge"),
                    widest=level.size,
                )
            )
    return tries.Trie(levels=tuple(levels))


# Few shapes, many tries: a search is compiled once per shape. One-code levels, levels wider than a
# bitmap word, catalogues from one SID to all of them.
@each
@settings(deadline=None, max_examples=20)
@given(
    sizes=st.sampled_from([(3, 4, 5), (1, 6, 1), (2, 40)]),
    seed=st.integers(0, 2**31),
    share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    kind=st.sampled_from([tries.BITMAP, tries.RANGES]),
)
def test_enough_beams_equal_sorted_enumeration(tiny, sizes, seed, share, kind):
    rng = np.random.default_rng(seed)
    possible = everything(sizes)
    sids = rng.permutation(possible)[: max(1, int(share * len(possible)))]
    items = rng.permutation(np.concatenate([sids, sids[rng.integers(0, len(sids), 5)]]))
    config = tiny(sizes)
    params = sharp_params(config, seed % 1000)
    beams = len(possible) + 3
    trie = widened(tries.build(items, sizes=sizes, kind=kind))
    found = beam_search(params, trie, TEXT, config=config, beams=beams)
    exact = enumerate_log_probs(params, config)
    check_beams(found, exact, sids)
    assert found.valid.sum(axis=1).tolist() == [len(sids)] * len(TEXT)
    for row in range(len(TEXT)):
        best = sorted((exact[row][tuple(sid)] for sid in sids.tolist()), reverse=True)
        np.testing.assert_allclose(found.log_probs[row, : len(sids)], best, rtol=1e-4, atol=1e-4)


@each
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**31), beams=st.sampled_from([1, 4]), count=st.integers(1, 60))
def test_pruned_search_equals_a_plain_beam_search(tiny, seed, beams, count):
    sizes = (3, 4, 5)
    sids = np.random.default_rng(seed).integers(0, sizes, (count, 3))
    config = tiny(sizes)
    params = sharp_params(config, seed % 1000)
    found = beam_search(
        params, widened(tries.build(sids, sizes=sizes)), TEXT, config=config, beams=beams
    )
    exact = enumerate_log_probs(params, config)
    check_beams(found, exact, sids)
    existing = {tuple(sid) for sid in sids.tolist()}
    for row in range(len(TEXT)):
        kept = {()}
        for depth in (1, 2, 3):
            below = {sid[:depth] for sid in existing if sid[: depth - 1] in kept}
            # P(prefix) is the sum over everything below it, in the catalogue or not.
            mass = {
                p: sum(np.exp(v) for s, v in exact[row].items() if s[:depth] == p) for p in below
            }
            kept = set(sorted(below, key=lambda prefix: -mass[prefix])[:beams])
        best = sorted((exact[row][sid] for sid in kept), reverse=True)
        np.testing.assert_allclose(found.log_probs[row, : len(best)], best, rtol=1e-4, atol=1e-4)
        assert int(found.valid[row].sum()) == len(best)


@each
def test_nodes_with_fewer_children_than_beams_are_flagged_not_faked(tiny):
    sizes = (3, 4, 5)
    sids = np.array([[2, 0, 3], [2, 3, 3]])
    config = tiny(sizes)
    params = sharp_params(config, 0)
    found = beam_search(
        params, widened(tries.build(sids, sizes=sizes)), TEXT, config=config, beams=4
    )
    assert found.sids.shape == (2, 4, 3)
    assert found.valid.tolist() == [[True, True, False, False]] * 2
    check_beams(found, enumerate_log_probs(params, config), sids)


@each
def test_scores_do_not_depend_on_the_rest_of_the_catalogue(tiny):
    sizes = (3, 4, 5)
    config = tiny(sizes)
    params = sharp_params(config, 1)
    exact = enumerate_log_probs(params, config)
    for sids in ([[2, 1, 0]], [[2, 1, 0], [2, 1, 1], [0, 0, 0], [2, 3, 4]]):
        trie = widened(tries.build(np.array(sids), sizes=sizes))
        found = beam_search(params, trie, TEXT, config=config, beams=4)
        for row in range(len(TEXT)):
            place = found.sids[row].tolist().index([2, 1, 0])
            np.testing.assert_allclose(
                found.log_probs[row, place], exact[row][2, 1, 0], rtol=1e-5, atol=1e-5
            )


@each
def test_probabilities_of_a_full_catalogue_sum_to_one(tiny):
    sizes = (3, 4, 5)
    config = tiny(sizes)
    params = sharp_params(config, 2)
    trie = tries.build(everything(sizes), sizes=sizes)
    found = beam_search(params, trie, TEXT, config=config, beams=63)
    np.testing.assert_allclose(np.exp(found.log_probs).sum(axis=1), 1, rtol=1e-4)


@each
def test_without_a_trie_every_combination_of_codes_is_searched(tiny):
    sizes = (3, 4, 5)
    config = tiny(sizes)
    params = sharp_params(config, 3)
    free = beam_search(params, None, TEXT, config=config, beams=7)
    full = beam_search(
        params, tries.build(everything(sizes), sizes=sizes), TEXT, config=config, beams=7
    )
    np.testing.assert_array_equal(free.sids, full.sids)
    np.testing.assert_allclose(free.log_probs, full.log_probs, rtol=1e-6)


@dataclasses.dataclass(frozen=True)
class Table(Architecture):
    """Logits from tables: of the code before, and of the query."""

    text_vocab_size: int = 12
    sid_sizes: tuple[int, ...] = ()

    def init(self, key):
        raise NotImplementedError

    def logical_axes(self):
        raise NotImplementedError

    def encode(self, params, tokens):
        return tokens

    def decode(self, params, state, codes, past=None):
        level = len(past or ())
        by_code, by_query = params[level]
        before = codes[..., 0] if level else jnp.zeros(codes.shape[:2], jnp.int32)
        return ((by_code[before] + by_query[:, None]),), ((),) * (level + 1)


@functools.partial(jax.jit, static_argnames=("sizes", "beams"))
def plain_search(params, sids, tokens, *, sizes, beams):
    """Beam search that looks for each continuation among all SIDs, and sorts all of them."""
    rows = jnp.arange(len(tokens))[:, None]
    prefixes = jnp.zeros((len(tokens), 1, 0), jnp.int32)
    scores, valid = jnp.zeros((len(tokens), 1)), jnp.ones((len(tokens), 1), bool)
    past = None
    for depth, size in enumerate(sizes, start=1):
        config = Table(sid_sizes=sizes)
        (logits,), past = config.decode(params, tokens, prefixes[..., -1:], past)
        log_probs = jax.nn.log_softmax(logits)
        codes = jnp.broadcast_to(jnp.arange(size)[:, None], (*prefixes.shape[:2], size, 1))
        longer = jnp.broadcast_to(prefixes[:, :, None], (*codes.shape[:3], depth - 1))
        longer = jnp.concatenate([longer, codes], axis=-1)
        exists = (longer[..., None, :] == sids[:, :depth]).all(-1).any(-1) & valid[..., None]
        totals = jnp.where(exists, scores[..., None] + log_probs, -jnp.inf)
        falling = jnp.argsort(-totals.reshape(len(tokens), -1), axis=1, stable=True)
        parent, code = jnp.divmod(falling[:, :beams], size)
        prefixes, scores = longer[rows, parent, code], totals[rows, parent, code]
        valid = exists[rows, parent, code]
    return jnp.where(valid[..., None], prefixes, NO_CODE), scores, valid


@pytest.mark.parametrize(
    ("sizes", "beams", "count", "kind"),
    [
        pytest.param((40, 70, 33), 50, 3000, tries.BITMAP, id="by groups"),
        pytest.param((40, 300, 300), 5, 3000, tries.RANGES, id="by parts"),
        pytest.param((1, 70, 1), 40, 60, tries.BITMAP, id="levels of one code"),
        pytest.param((40, 70, 33), 50, 2, tries.RANGES, id="fewer SIDs than beams"),
    ],
)
def test_every_way_of_selecting_gives_the_beams_of_a_plain_search(
    sizes, beams, count, kind, monkeypatch
):
    rng = np.random.default_rng(count)
    sids = rng.integers(0, sizes, (count, len(sizes)))
    trie, tokens = tries.build(sids, sizes=sizes, kind=kind), np.zeros((3, 1), np.int32)
    search = functools.partial(beam_search.__wrapped__, config=Table(sid_sizes=sizes), beams=beams)
    for select in (top_k.top_k, top_k.top_k_by_sorting):
        monkeypatch.setattr(decoding, "top_k", select)
        searched = jax.jit(lambda *given: search(*given))
        for logits in (normal, with_ties, impossible):
            params = [(logits(rng, (max(sizes), size)), logits(rng, (3, size))) for size in sizes]
            plain = plain_search(params, np.unique(sids, axis=0), tokens, sizes=sizes, beams=beams)
            kept = plain[2].shape[1]
            found = searched(params, trie, tokens)
            for ours, theirs in zip(found, plain, strict=True):
                np.testing.assert_array_equal(ours[:, :kept], theirs)
            assert not found.valid[:, kept:].any()


def normal(rng, shape):
    return rng.standard_normal(shape, np.float32)


def with_ties(rng, shape):
    return rng.integers(0, 2, shape).astype(np.float32)


def impossible(rng, shape):
    values = np.where(rng.random(shape) < 0.5, -np.inf, 0).astype(np.float32)
    values[:, 0] = 0  # some code must be possible
    return values


SAMPLED = np.array([[0, 1, 2], [0, 1, 4], [0, 3, 0], [2, 0, 3], [2, 3, 3], [2, 3, 4]])


def draw(config, *, samples, seed=0, **filters):
    """Draws from `SAMPLED`; the first query's model gives most of its belief to what is missing."""
    params = sharp_params(config, 4)
    trie = tries.build(SAMPLED, sizes=config.sid_sizes)
    key = jax.random.key(seed)
    return params, sample(params, trie, TEXT, config=config, samples=samples, key=key, **filters)


@pytest.mark.parametrize(
    "filters",
    [{}, {"temperature": 5.0}, {"top_k": 1}, {"top_k": 50}, {"top_p": 0.01}, {"top_p": 0.9}],
    ids=["none", "temperature", "top_k 1", "top_k 50", "top_p 0.01", "top_p 0.9"],
)
def test_no_filter_leaves_the_catalogue(filters):
    config = tiny_t5((3, 4, 5))
    params, found = draw(config, samples=50, **filters)
    assert found.sids.shape == (2, 50, 3) and bool(found.valid.all())
    exact = enumerate_log_probs(params, config)
    existing = {tuple(sid) for sid in SAMPLED.tolist()}
    for row in range(len(TEXT)):
        drawn = [tuple(sid) for sid in found.sids[row].tolist()]
        assert set(drawn) <= existing
        scores = [exact[row][sid] for sid in drawn]
        np.testing.assert_allclose(found.log_probs[row], scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "filters",
    [{"samples": 0}]
    + [{"temperature": value} for value in (0.0, -1.0, np.nan, np.inf)]
    + [{"top_k": 0}]
    + [{"top_p": value} for value in (0.0, 1.5, np.nan)],
    ids=str,
)
def test_filters_that_leave_no_distribution_are_named(filters):
    ((name, _),) = filters.items()
    with pytest.raises(InputError, match=f"{name} is .*: give"):
        draw(tiny_t5((3, 4, 5)), **({"samples": 2} | filters))


def test_samples_have_the_renormalised_probabilities():
    config = tiny_t5((3, 4, 5))
    samples = 4000
    params, found = draw(config, samples=samples)
    exact = enumerate_log_probs(params, config)
    existing = [tuple(sid) for sid in SAMPLED.tolist()]
    for row in range(len(TEXT)):
        expected = dict.fromkeys(existing, 1.0)
        for depth in (1, 2, 3):
            # P(code | prefix) over the codes that go on, of the model's P(prefix) over everything.
            mass = {}
            for sid, value in exact[row].items():
                mass[sid[:depth]] = mass.get(sid[:depth], 0) + np.exp(value)
            for sid in existing:
                siblings = {s[:depth] for s in existing if s[: depth - 1] == sid[: depth - 1]}
                expected[sid] *= mass[sid[:depth]] / sum(mass[prefix] for prefix in siblings)
        drawn = [tuple(sid) for sid in found.sids[row].tolist()]
        for sid, share in expected.items():
            error = 5 * np.sqrt(share * (1 - share) / samples) + 1e-6
            assert abs(drawn.count(sid) / samples - share) < error


def test_the_greedy_filters_take_the_best_code_of_each_level_that_exists():
    config = tiny_t5((3, 4, 5))
    _, by_k = draw(config, samples=3, top_k=1)
    _, by_p = draw(config, samples=3, seed=1, top_p=1e-6)
    _, cold = draw(config, samples=3, seed=2, temperature=1e-4)
    params = sharp_params(config, 4)
    trie = tries.build(SAMPLED, sizes=config.sid_sizes)
    greedy = beam_search(params, trie, TEXT, config=config, beams=1)
    for found in (by_k, by_p, cold):
        np.testing.assert_array_equal(found.sids, np.repeat(greedy.sids, 3, axis=1))
