import dataclasses

import numpy as np
import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance.neighbours import Judged
from dsirm_jax.relevance.rows import Ragged
from dsirm_jax.serving.bundle.catalogue import Voters
from dsirm_jax.serving.bundle.consistency import check_catalogue
from dsirm_jax.serving.bundle.contents import open_bundle


@pytest.fixture(scope="module")
def bundle(made):
    return open_bundle(made)


def with_one(array, place, value):
    """Returns an array with another value in one place."""
    other = np.array(array)
    other[place] = value
    return other


def with_digests(catalogue, **pieces):
    digests = catalogue.digests
    return {"digests": digests._replace(pieces=digests.pieces._replace(**pieces))}


def falling(rows):
    return Ragged(with_one(rows.starts, 3, rows.starts[5]), rows.values)


CASES = {
    "vectors.npy": lambda of: {"vectors": of.vectors[:, :-1]},
    "log_shares.npy": lambda of: {"log_shares": of.log_shares.astype(np.float64)},
    "numbers.npy": lambda of: {"numbers": of.numbers[:-1]},
    "categories.npy": lambda of: {"categories": with_one(of.categories, 7, 60)},
    "sids.npy": lambda of: {"sids": with_one(of.sids, (59, 2), 6)},
    "postings.safetensors": lambda of: {
        "postings": dataclasses.replace(of.postings, rows=with_one(of.postings.rows, 0, 60))
    },
    "record.npy": lambda of: {"record": np.dtype(of.record.descr[:-1])},
    "digests/pieces_starts.bin": lambda of: with_digests(
        of, pieces=falling(of.digests.pieces.pieces)
    ),
    "digests/folded_starts.bin": lambda of: with_digests(
        of, folded=of.digests.pieces.folded._replace(values=of.digests.pieces.folded.values[:-1])
    ),
    "digests/counts.bin": lambda of: with_digests(of, counts=of.digests.pieces.counts[1:]),
    "digests/pieces.bin": lambda of: with_digests(
        of,
        pieces=of.digests.pieces.pieces._replace(
            values=with_one(of.digests.pieces.pieces.values, 5, -1)
        ),
    ),
    "voters.safetensors": lambda of: {
        "voters": Voters(
            of.voters.vectors,
            Judged(with_one(of.voters.judged.items, (0, 0), 60), of.voters.judged.verdicts),
        )
    },
    "queries.mdb": lambda of: {"queries": of.ids},
}


@pytest.mark.parametrize("name", CASES, ids=list(CASES))
def test_a_file_that_does_not_fit_the_rest_is_named(bundle, name):
    catalogue = bundle.catalogue
    check_catalogue(catalogue, bundle.manifest)
    other = dataclasses.replace(catalogue, **CASES[name](catalogue))
    with pytest.raises(InputError, match=f"catalogue-0001/{name} does not fit the rest of the bun"):
        check_catalogue(other, bundle.manifest)
