"""What runs where TensorFlow is not installed: `python -m tests.without_tensorflow FOLDER BUNDLE`.

Prints the modules of the package that cannot be imported, then what each job made, as JSON.
"""

import importlib
import json
import pkgutil
import sys
from pathlib import Path

ABSENT = ("clu", "seqio", "t5x", "tensorflow", "tensorflow_datasets", "tensorflow_text")


class Without:
    """A finder of modules that does not find those of `ABSENT`, as if they were not installed."""

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            return None
        return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)


def modules():
    """Imports every module of the package and returns those that fail."""
    import dsirm_jax

    failed = []
    for module in pkgutil.walk_packages(dsirm_jax.__path__, "dsirm_jax."):
        if not module.name.endswith("__main__"):
            try:
                importlib.import_module(module.name)
            except Exception:
                failed.append(module.name)
    return failed


def quantizer(folder):
    """Trains a quantizer from arrays and assigns SIDs."""
    from dsirm_jax.quantizer import fitted
    from dsirm_jax.quantizer.assign import assign_vectors
    from tests.quantizer.fitting_test import fit_quantizer, make_items

    made = fit_quantizer(folder, epochs=1.0)
    fitted.save(folder / "quantizer.safetensors", made)
    read = fitted.load(folder / "quantizer.safetensors")
    return assign_vectors(fitted=read, vectors=make_items().items).codes.shape


def encoder(folder):
    """Trains two towers from arrays."""
    import dataclasses

    from dsirm_jax.encoder.embed import embed
    from dsirm_jax.encoder.kinds.towers import text_tower
    from tests.encoder.kinds.towers_test import CONFIG, VOCAB, fit

    training = dataclasses.replace(CONFIG.training, epochs=2)
    params, query, _ = fit(folder, config=dataclasses.replace(CONFIG, training=training))
    tower = text_tower(CONFIG, vocab_size=VOCAB)
    pieces = query.tolist()
    return embed(tower=tower, params=params, pieces=pieces, max_pieces=3, name="encode").shape


def generator(folder):
    """Trains a generator from arrays, predicts SIDs and scores them."""
    from dsirm_jax.generator.fitted import FittedGenerator
    from dsirm_jax.generator.losses import GeneratorObjective
    from dsirm_jax.generator.predict import predict_sids
    from dsirm_jax.generator.score import score_pairs
    from dsirm_jax.generator.train import train
    from dsirm_jax.sids import trie
    from tests.generator.train_test import CONFIG, TRAINING, random_batches, rows

    params = train(
        config=CONFIG,
        objective=GeneratorObjective(),
        training=TRAINING,
        batches=random_batches,
        num_rows=16,
        directory=folder,
        seed=0,
    )
    fitted = FittedGenerator(config=CONFIG, params=params, max_pieces=3, sid_version="v")
    text, sids = rows(CONFIG, number=4)
    existing = trie.build(sids, sizes=CONFIG.sid_sizes)
    pieces = text.tolist()
    beams = predict_sids(fitted=fitted, trie=existing, pieces=pieces, beams=2, batch_size=4)
    scores = score_pairs(
        fitted=fitted, pieces=pieces, query_index=range(4), sids=sids, batch_size=4
    )
    return [*beams.sids.shape, *scores.shape]


def head(folder):
    """Trains a head from arrays and scores pairs."""
    import dataclasses

    from dsirm_jax.relevance.score import score
    from tests.relevance.train_test import TRAINING, fit, pairs, table

    features, labels, _, queries = pairs(0, rows=300)
    training = dataclasses.replace(TRAINING, epochs=1)
    fitted = fit(folder, features, labels, queries, training=training)
    return score(fitted, table(features)).shape


def serving(bundle):
    """Answers a cached query and one that the generator has to answer."""
    from dsirm_jax.serving import Scorer, ScorerSettings
    from tests.serving import tiny

    with Scorer.open(bundle, settings=ScorerSettings(warm=(), deadline=600.0)) as scorer:
        asked = [tiny.QUERIES[0], "never asked for"]
        return [scorer.score(query, ["item 1", "item 2"]).source for query in asked]


def main(folder, bundle):
    sys.meta_path[:] = map(Without, sys.meta_path)
    told = {"failed": modules()}
    for job in (quantizer, encoder, generator, head):
        (folder / job.__name__).mkdir()
        told[job.__name__] = list(job(folder / job.__name__))
    told["serving"] = serving(bundle)
    told["loaded"] = [name for name in ABSENT if name in sys.modules]
    print(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
