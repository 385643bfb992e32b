"""The models as a TensorFlow SavedModel for TF Serving: raw text in, tokenizers inside.

Signatures:

- `query_sids`: `query` string `[batch]` -> `sids` int32 `[batch, beam, level]`, `log_probs` float32
  `[batch, beam]`, which is −inf where fewer SIDs exist than beams.
- `query_vector`, where the bundle has an encoder: `query` -> `vector` float32 `[batch, dim]`.
- `relevance`: `query` string `[pair]`, `sid` int32 `[pair, level]`, that of an item which the
  catalogue has, and a float32 `[pair]` for every feature of the full model's head that does not
  follow from these two, by its name (what is neither letter nor digit being `_`) -> `probability`
  float32 `[pair]`. A query that several pairs have is searched for once; a head that compares pairs
  compares those of a call that have one query.

Where the generator reads a vocabulary that tensorflow-text has no like of, these two take `pieces`
int32 `[batch, max_pieces]`, or `[pair, max_pieces]`, in place of `query`: what `Models.prompted`
makes of texts, 0 beyond.

TensorFlow compiles a signature once for each number of rows (of `relevance` also of different
queries), which takes seconds: send batches of a few sizes, and warm these up.

The trie is among the variables, which `with_catalogue` exchanges. Reading one takes TensorFlow and
tensorflow-text, nothing else.
"""

from __future__ import annotations

import functools
import logging
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax import export
from jaxtyping import Array, Float, Int

from dsirm_jax.data import tf_text
from dsirm_jax.encoder.kinds.protocol import FittedEncoder
from dsirm_jax.generator.architectures.architecture import Architecture
from dsirm_jax.generator.fitted import FittedGenerator
from dsirm_jax.generator.score import encode_texts, score_sids
from dsirm_jax.io import errors
from dsirm_jax.relevance.compute import beam_features
from dsirm_jax.relevance.features.group import BEAMS, ItemContext
from dsirm_jax.relevance.fitted import FittedHead, plain_params
from dsirm_jax.relevance.groups import reading
from dsirm_jax.serving.bundle.catalogue import BundleCatalogue
from dsirm_jax.serving.bundle.contents import Bundle
from dsirm_jax.serving.bundle.manifest import FULL
from dsirm_jax.serving.bundle.models import Models
from dsirm_jax.serving.formats import portable, stablehlo
from dsirm_jax.serving.formats.stablehlo import PlainTrie, of_plain, plain, search_plain
from dsirm_jax.sids import trie as tries
from dsirm_jax.sids.prefix_match import Beams
from dsirm_jax.sids.trie import Postings, Trie

if TYPE_CHECKING:
    import tensorflow as tf

log = logging.getLogger(__name__)
VARIABLES = "variables/variables"
PIECES = "pieces"
"""Argument of the signatures that take no texts."""


def tensor_name(feature: str) -> str:
    """Returns what TensorFlow can call a feature."""
    return re.sub(r"\W", "_", feature)


def given_features(head: FittedHead, *, levels: int) -> tuple[str, ...]:
    """Returns the features that `relevance` asks for, in the order in which the head reads them."""
    computed = {name for group in reading(BEAMS) for name in group.described(levels=levels)}
    return tuple(name for name in head.features if name not in computed)


def relevance(
    params: Any,
    head_params: dict[str, Any],
    trie: PlainTrie,
    log_shares: tuple[Float[Array, " _node"], ...],
    tokens: Int[Array, "query length"],
    query_row: Int[Array, " pair"],
    sids: Int[Array, "pair level"],
    given: Float[Array, "pair feature"],
    *,
    config: Architecture,
    beams: int,
    head: FittedHead,
) -> Float[Array, " pair"]:
    """Returns the probabilities of pairs, the features that the generator gives computed here.

    Args:
      params: of the generator.
      head_params: see `relevance.fitted.plain_params`.
      trie: see `stablehlo.plain`.
      log_shares: see `log_shares_of`.
      tokens: of the queries.
      query_row: row of `tokens` of each pair.
      sids: the item's SID of each pair.
      given: the features named by `given_features`.
      config: shape of the generator.
      beams: SIDs that it writes for a query.
      head: its shape and the names of its features.
    """
    levels = len(config.sid_sizes)
    best, log_probs = search_plain(params, trie, tokens, config=config, beams=beams)
    beams_of_queries = Beams(best, log_probs, jnp.isfinite(log_probs))
    state = encode_texts(params, tokens, config=config)
    of_pairs, state = jax.tree.map(lambda part: part[query_row], (beams_of_queries, state))
    exact = score_sids(params, state, sids[:, None], config=config)[:, 0]
    existing = of_plain(trie, sizes=config.sid_sizes)
    nodes = [tries.find(existing, sids[:, : level + 1]) for level in range(levels)]
    shares = jnp.stack([share[node] for share, node in zip(log_shares, nodes, strict=True)], axis=1)
    computed = beam_features(of_pairs, ItemContext(sids, exact, shares), groups=reading(BEAMS))
    columns = computed | dict(zip(given_features(head, levels=levels), given.T, strict=True))
    features = jnp.stack([columns[name] for name in head.features], axis=1)
    return stablehlo.head_probabilities(head_params, features, query_row, head=head)


def log_shares_of(trie: Trie, postings: Postings) -> tuple[Float[np.ndarray, " _node"], ...]:
    """Returns the log share of the items below each node, float32, of each depth from 1.

    `prefix_match.log_prefix_shares` says the same by item.
    """
    starts = [np.asarray(postings.starts, np.int64)]  # first item of each node, and their number
    for level in reversed(trie.levels[1:]):
        starts.insert(0, starts[0][level.bounds()])
    return tuple(np.log(np.diff(first) / first[-1]).astype(np.float32) for first in starts)


def relevance_program(
    generator: FittedGenerator, head: FittedHead, *, beams: int, forms: Sequence[str]
) -> export.Exported:
    """Returns `relevance` for any number of queries, pairs and SIDs.

    Args:
      generator: that writes SIDs.
      head: of the full model.
      beams: SIDs that the generator writes for a query.
      forms: of each level of the trie, see `trie.forms`.
    """
    config, levels = generator.config, len(generator.config.sid_sizes)
    scope = export.SymbolicScope()
    queries, pairs = export.symbolic_shape("query, pair", scope=scope)
    catalogue = catalogue_shapes(config.sid_sizes, forms=forms, scope=scope)
    columns = len(given_features(head, levels=levels))
    return portable.exported(
        functools.partial(relevance, config=config, beams=beams, head=head),
        stablehlo.shapes(generator.params),
        stablehlo.shapes(plain_params(head)),
        catalogue["trie"],
        catalogue["log_shares"],
        jax.ShapeDtypeStruct((queries, generator.max_pieces), np.int32),
        jax.ShapeDtypeStruct((pairs,), np.int32),
        jax.ShapeDtypeStruct((pairs, levels), np.int32),
        jax.ShapeDtypeStruct((pairs, columns), np.float32),
    )


def catalogue_shapes(
    sizes: Sequence[int], *, forms: Sequence[str], scope: export.SymbolicScope | None = None
) -> dict[str, Any]:
    """Returns the shapes of what `of_catalogue` returns, for any number of SIDs.

    Args:
      sizes: codes per level.
      forms: of each level of the trie.
      scope: of the names of the dimensions; one of its own when not given.
    """
    scope = scope or export.SymbolicScope()
    return {
        "trie": stablehlo.trie_shapes(sizes, forms=forms, scope=scope),
        "log_shares": tuple(
            jax.ShapeDtypeStruct(export.symbolic_shape(f"nodes{depth}", scope=scope), np.float32)
            for depth in range(1, len(sizes) + 1)
        ),
    }


def write_saved_model(
    folder: Path, bundle: Bundle, *, programs: Mapping[str, export.Exported]
) -> None:
    """Writes a SavedModel.

    Args:
      folder: where to.
      bundle: whose models and catalogue are in it.
      programs: of these models, see `stablehlo.programs_of`.
    """
    import tensorflow as tf

    models, settings, catalogue = bundle.models, bundle.manifest.settings, bundle.catalogue
    generator, head = models.generator, models.heads[FULL]
    config, levels = generator.config, len(generator.config.sid_sizes)
    module = tf.Module()
    module.generator = _variables(generator.params)
    module.head = _variables(plain_params(head))
    module.catalogue = _variables(
        of_catalogue(catalogue), shapes=catalogue_shapes(config.sid_sizes, forms=settings.trie)
    )
    module.vocabulary = tf_text.sentencepiece(models.vocabulary)

    def tokens(query: tf.Tensor, length: int) -> tf.Tensor:
        pieces = module.vocabulary.tokenize(tf_text.cleaned(query))
        return pieces.to_tensor(shape=[None, length])

    queries = _queries_as_pieces(models) or _queries_as_texts(models, module)
    searching = portable.as_tensorflow(programs[stablehlo.SEARCH])
    scoring = portable.as_tensorflow(
        relevance_program(generator, head, beams=settings.beams, forms=settings.trie)
    )
    texts = tf.TensorSpec([None], tf.string, "query")

    @tf.function(input_signature=[queries.spec], autograph=False)
    def query_sids(query: tf.Tensor) -> dict[str, tf.Tensor]:
        sids, log_probs = searching(
            _values(module.generator), _values(module.catalogue["trie"]), queries.pieces(query)
        )
        return {"sids": sids, "log_probs": log_probs}

    names = given_features(head, levels=levels)
    inputs = {
        queries.spec.name: queries.spec,
        "sid": tf.TensorSpec([None, levels], tf.int32, "sid"),
        **{name: tf.TensorSpec([None], tf.float32, name) for name in map(tensor_name, names)},
    }

    @tf.function(autograph=False)
    def of_pairs(**given: tf.Tensor) -> dict[str, tf.Tensor]:
        distinct, query_row = queries.distinct(given[queries.spec.name])
        probability = scoring(
            _values(module.generator),
            _values(module.head),
            _values(module.catalogue["trie"]),
            _values(module.catalogue["log_shares"]),
            queries.pieces(distinct),
            query_row,
            given["sid"],
            tf.stack([given[tensor_name(name)] for name in names], axis=1),
        )
        return {"probability": probability}

    signatures = {
        "query_sids": query_sids,
        "relevance": of_pairs.get_concrete_function(**inputs),
    }
    encoder = models.encoder
    if encoder is not None and (pieces_of := _encoder_pieces(encoder, tokens=tokens)):
        module.encoder = _variables(encoder.params)
        embedding = portable.as_tensorflow(programs[stablehlo.ENCODER])

        @tf.function(input_signature=[texts], autograph=False)
        def query_vector(query: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"vector": embedding(_values(module.encoder), pieces_of(query))}

        signatures["query_vector"] = query_vector
    tf.saved_model.save(module, str(folder), signatures=signatures)


class _Queries(NamedTuple):
    """How signatures take queries.

    Attributes:
      spec: of the argument.
      pieces: makes of it what the generator reads.
      distinct: gives those that differ, and which of them each is.
    """

    spec: tf.TensorSpec
    pieces: Callable[[tf.Tensor], tf.Tensor]
    distinct: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def _queries_as_texts(models: Models, module: tf.Module) -> _Queries:
    """Returns how a SavedModel takes texts, whose tokenizer it holds."""
    import tensorflow as tf

    reading = models.prompted
    splitter = models.split_in_tensorflow
    assert splitter is not None  # or `_queries_as_pieces` has them
    if models.generators_own is not None:
        module.generators_own = tf_text.sentencepiece(splitter, name="generators_own")

    def pieces(query: tf.Tensor) -> tf.Tensor:
        text = tf_text.prompted(tf_text.cleaned(query), around=reading.around)
        split = module.vocabulary if models.generators_own is None else module.generators_own
        return tf_text.cut(split.tokenize(text), ending=reading.ending, most=reading.most)

    return _Queries(tf.TensorSpec([None], tf.string, "query"), pieces, tf.unique)


def _queries_as_pieces(models: Models) -> _Queries | None:
    """Returns how a SavedModel takes pieces; None where it can make them itself."""
    import tensorflow as tf

    if models.split_in_tensorflow is not None:
        return None

    def distinct(pieces: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.raw_ops.UniqueV2(x=pieces, axis=[0])

    spec = tf.TensorSpec([None, models.prompted.most], tf.int32, PIECES)
    return _Queries(spec, tf.identity, distinct)


def with_catalogue(folder: Path, catalogue: BundleCatalogue, *, into: Path) -> None:
    """Writes the SavedModel of another folder with another catalogue: the graph is the same.

    Args:
      folder: a SavedModel that `write_saved_model` wrote.
      catalogue: whose SIDs the new one has.
      into: where to; nothing may be there.

    Raises:
      InputError: TensorFlow cannot read the variables.
    """
    import tensorflow as tf

    shutil.copytree(folder, into, ignore=shutil.ignore_patterns("variables"))
    (into / "variables").mkdir()
    with errors.naming(
        folder / VARIABLES, otherwise="TensorFlow cannot read it; export the bundle anew"
    ):
        saved = tf.train.load_checkpoint(str(folder / VARIABLES))
        arrays = {name: saved.get_tensor(name) for name in saved.get_variable_to_shape_map()}
    new = traverse_util.flatten_dict(_numbered({"catalogue": of_catalogue(catalogue)}), sep="/")
    arrays |= {f"{name}/.ATTRIBUTES/VARIABLE_VALUE": array for name, array in new.items()}
    names = sorted(arrays)
    tf.raw_ops.SaveV2(
        prefix=str(into / VARIABLES),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(arrays[name]) for name in names],
    )


def _numbered(tree: Any) -> Any:
    """Returns containers as TensorFlow names what is in them, sequences by number."""
    if isinstance(tree, Mapping):
        return {name: _numbered(part) for name, part in tree.items()}
    if isinstance(tree, Sequence):
        return {str(number): _numbered(part) for number, part in enumerate(tree)}
    return tree


def _encoder_pieces(
    encoder: FittedEncoder, *, tokens: Callable[..., tf.Tensor]
) -> Callable[[tf.Tensor], tf.Tensor] | None:
    """Returns what makes pieces for the encoder of queries; None where nothing can."""
    pieces = encoder.pieces_in_tensorflow(tokens)
    if pieces is None:
        log.warning(
            "the SavedModel has no query_vector: tensorflow-text has no like of the encoder's "
            "tokenizer"
        )
    return pieces


def of_catalogue(catalogue: BundleCatalogue) -> dict[str, Any]:
    """Returns the arrays that change with the catalogue."""
    log_shares = log_shares_of(catalogue.trie, catalogue.postings)
    return {"trie": plain(catalogue.trie), "log_shares": log_shares}


def _variables(tree: Any, *, shapes: Any = None) -> Any:
    """Returns arrays as variables, whose dimensions may change where `shapes` has names."""
    import tensorflow as tf

    def variable(array: Any, spec: Any) -> tf.Variable:
        shape = tf.TensorShape([size if isinstance(size, int) else None for size in spec.shape])
        return tf.Variable(np.asarray(array), shape=shape, trainable=False)

    return jax.tree.map(variable, tree, tree if shapes is None else shapes)


def _values(tree: Any) -> Any:
    """Returns the values of variables in plain containers, whatever TensorFlow keeps them in."""
    if isinstance(tree, Mapping):
        return {name: _values(part) for name, part in tree.items()}
    if isinstance(tree, Sequence):
        return tuple(map(_values, tree))
    return tree.value()
