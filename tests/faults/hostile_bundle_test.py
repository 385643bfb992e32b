"""A bundle made to break whoever opens it, its manifest sealed anew: one line, no traceback.

LMDB follows offsets within its pages without looking where they lead, so that a page made for it
may end the process; of its files only the meta pages and the values are made hostile here.
"""

import json
import random
import shutil

import numpy as np
import pytest

from dsirm_jax.io.checksums import SEAL, checksum, sealed
from dsirm_jax.io.errors import InputError
from dsirm_jax.serving import Overloaded, Scorer, ScorerSettings
from dsirm_jax.serving.bundle import store
from dsirm_jax.serving.bundle.contents import MANIFEST
from tests.serving import tiny

CATALOGUE = "catalogue-0001"
READ = ("model/*.safetensors", "model/vocabulary.model", f"{CATALOGUE}/**/*.*")
"""What a scorer reads; programs and SavedModels are read where forms are compared."""


def seal(path):
    """Gives a bundle's manifest the checksums of what is there."""
    content = json.loads((path / MANIFEST).read_text())
    del content[SEAL]
    content["files"] = {name: vars(checksum(path / name)) for name in content["files"]}
    (path / MANIFEST).write_text(json.dumps(sealed(content), indent=2) + "\n")


def use(path):
    """Opens a bundle and asks it everything; an error may be `InputError` alone, of one line."""
    try:
        settings = ScorerSettings(warm=(), deadline=600.0)
        scorer = Scorer.open(path, settings=settings, trust=True)
    except InputError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return "refused"
    ids, outcome = [f"item {number}" for number in range(60)], "served"
    with scorer:
        calls = (
            lambda: scorer.score(tiny.QUERIES[3], ids[:20]),
            lambda: scorer.score("another mug", ids[20:]),
            lambda: scorer.query_sids(tiny.QUERIES[5]),
            lambda: scorer.candidates(tiny.QUERIES[0]),
            lambda: scorer.retrieve(tiny.QUERIES[1]),
            lambda: scorer.described(ids),
            lambda: scorer.children(()),
            lambda: scorer.items((), most=60),
            lambda: scorer.examples(most=12),
        )
        for call in calls:
            try:
                call()
            except (InputError, Overloaded) as error:
                assert "\n" not in str(error)
                outcome = "refused when asked"
    return outcome


def with_header(content, change):
    """Returns a safetensors file with another header, as long as it has to be."""
    length = int.from_bytes(content[:8], "little")
    header = change(content[8 : 8 + length].decode())
    return len(header.encode()).to_bytes(8, "little") + header.encode() + content[8 + length :]


def of_tensors(content, chance):
    """Yields what may be made of a safetensors file."""

    def described(text, value):
        header = json.loads(text)
        header["__metadata__"] = {kind: value for kind in header["__metadata__"]}
        return json.dumps(header)

    def of_first(text, **changes):
        header = json.loads(text)
        name = next(name for name in header if name != "__metadata__")
        header[name] |= changes
        return json.dumps(header)

    def without_first(text):
        header = json.loads(text)
        del header[next(name for name in header if name != "__metadata__")]
        return json.dumps(header)

    for length in (2**63, len(content), 0, 2**30):
        yield length.to_bytes(8, "little") + content[8:]
    for value in ("{", "[" * 100_000, "null", "[]", "{}", '{"version": 1}', "9" * 5000, "NaN"):
        yield with_header(content, lambda text, value=value: described(text, value))
    for changes in (
        {"dtype": "BF16"},
        {"dtype": "I8"},
        {"dtype": "x"},
        {"shape": [2**62, 2**62]},
        {"shape": [-1]},
        {"shape": []},
        {"data_offsets": [0, 2**60]},
        {"data_offsets": [8, 0]},
    ):
        yield with_header(content, lambda text, changes=changes: of_first(text, **changes))
    yield with_header(content, without_first)
    yield with_header(content, lambda text: "[" * 50_000)
    yield with_header(content, lambda text: text[:1] + '"x":1,"x":2,' + text[1:])
    length = int.from_bytes(content[:8], "little")
    for _ in range(4):  # numbers of which each may be anything
        yield content[: 8 + length] + chance.randbytes(len(content) - 8 - length)
    header = content[: 8 + length]
    for number in (0, 0x7F, 0xFF):
        yield header + bytes([number]) * (len(content) - len(header))


def of_array(content, chance):
    """Yields what may be made of a `.npy` file."""
    head, values = content[:128], content[128:]
    for old, new in (
        (b"'<f4'", b"'|O' "),
        (b"'descr': '<", b"'descr': '>"),
        (b"False", b"True "),
        (b"'shape': (", b"'shape': (9"),
        (b"{", b"["),
        (b"\x93NUMPY\x01", b"\x93NUMPY\x09"),
    ):
        yield head.replace(old, new) + values
    for byte in (0, 0x7F, 0xFF):
        yield head + bytes([byte]) * len(values)
    yield head + chance.randbytes(len(values))


def of_any(content, chance):
    """Yields what may be made of any file."""
    for length in (0, 1, 7, len(content) // 2, len(content) - 1):
        yield content[:length]
    yield content + b"\0"
    yield b"\xff" * len(content)
    yield bytes(len(content))
    yield chance.randbytes(len(content))


def of_store(file, chance):
    """Yields rows of a file of keys and values, some of them hostile."""
    rows = list(store.open_store(file))
    for value in (b"", b"[]", b"{}", b"null", b"{", b"[" * 100_000, b'{"title": 1}', b"\xff" * 4):
        yield [(key, value) for key, _ in rows]
    yield [(key, value[:-1]) for key, value in rows]
    yield [(key, value * 2) for key, value in rows]
    yield [(key, chance.randbytes(len(value))) for key, value in rows]
    yield [(key, b"\x7f" * len(value)) for key, value in rows]
    yield [(b"\xff" + key, value) for key, value in rows]
    yield rows[:-1]
    yield [*rows, (b"\xffmore", b"x")]


def mutations(file, chance):
    """Yields functions that write other contents into a file."""
    content = file.read_bytes()
    made = list(of_any(content, chance))
    if file.suffix == ".safetensors":
        made += of_tensors(content, chance)
    elif file.suffix == ".npy":
        made += of_array(content, chance)
    elif file.suffix == ".mdb":
        for at in (16, 20, 24, 40, 136, 4096 + 16, 4096 + 136, 4096 + 128):  # the meta pages
            made += [content[:at] + b"\xff" * 4 + content[at + 4 :], content[:at] + bytes(4)]
            made.append(content[:at] + b"\x40" + content[at + 1 :])
        for rows in of_store(file, chance):
            other = file.with_suffix(".made")
            store.write_store(other, rows)
            made.append(other.read_bytes())
            other.unlink()
    elif file.suffix == ".bin":
        numbers = np.frombuffer(content, np.uint8)
        made += [np.roll(numbers, 8).tobytes(), numbers[::-1].tobytes()]
        made += [bytes([byte]) * len(content) for byte in (1, 0x7F, 0x80)]
    others = [other for other in file.parent.iterdir() if other.suffix == file.suffix]
    made += [other.read_bytes() for other in others if other != file]
    return made


MOST = 14
"""Mutations of a file that are tried, of some 40."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["safetensors", "npy", "bin", "mdb", "model"])
def test_whatever_its_files_are_made_into_is_served_or_refused_in_one_line(made, tmp_path, kind):
    path, chance = shutil.copytree(made, tmp_path / "bundle"), random.Random(0)
    found = {file for pattern in READ for file in path.glob(pattern)}
    files = sorted(file for file in found if file.suffix == f".{kind}" and file.stat().st_size)
    outcomes = {}
    for file in files:
        whole = file.read_bytes()
        made_of_it = mutations(file, chance)
        for number in sorted(chance.sample(range(len(made_of_it)), min(len(made_of_it), MOST))):
            content = made_of_it[number]
            file.unlink()  # whoever has it mapped keeps it
            file.write_bytes(content)
            seal(path)
            try:
                outcomes[file.name, number] = use(path)
            except Exception as error:
                raise AssertionError(f"{file.name}, mutation {number}") from error
        file.unlink()
        file.write_bytes(whole)
    seal(path)
    assert use(path) == "served"
    refused = [outcome for outcome in outcomes.values() if outcome != "served"]
    # LMDB itself reads few of a file's bytes, and what is whole besides is served.
    least = 0 if kind == "mdb" else 0.6 * len(outcomes)
    assert len(outcomes) > 8 * len(files) and len(refused) > least
