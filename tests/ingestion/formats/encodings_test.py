"""Bytes of any encoding: read, with what was guessed in a line, or refused with the mend."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsirm_jax.data.schema import Source
from dsirm_jax.ingestion import formats
from dsirm_jax.ingestion.columns.mapping import item_mapping, split_categories
from dsirm_jax.ingestion.dialect import Dialect
from dsirm_jax.ingestion.formats.encodings import Encoding, Utf8Stream, is_western, sniff_encoding
from dsirm_jax.io.errors import InputError
from tests.ingestion.reading import items_of

ITEMS = item_mapping({}, [], binding="Tables.item_columns")
WESTERN = ["Café crème", "Größe „5“ – grün", "Señal ½ €", "L’été à 20 °C", "ARTE È CAFÉ"]
FOREIGN = {
    "cp1251": "Красный чайник для дома",
    "cp1250": "Żółty czajnik",
    "shift_jis": "赤いやかん",
    "gb18030": "红色水壶",
    "cp1253": "Κόκκινος βραστήρας",
}


def items(path, *, sample=1 << 20, **dialect):
    files, findings = formats.opened(
        [str(path)],
        mapping=ITEMS,
        dialect=Dialect(**dialect),
        binding="items/dialect.Dialect",
        limits=formats.Limits(sample=sample),
    )
    parts = split_categories(files[0].parts, separator=" > ")
    findings = [finding for finding in findings if "columns read" not in finding.text]
    kept, rejected = items_of(Source(items=parts, judgements=[]))
    return [row["title"] for row in kept], [row["row"] for row in rejected], findings


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "utf-32"])
def test_western_text_is_read_and_said(tmp_path, suffix, encoding):
    path = tmp_path / f"items{suffix}"
    lines = [f"{row},{title}" for row, title in enumerate(WESTERN)]
    if suffix == ".jsonl":
        lines = [f'{{"item_id": {row}, "title": "{title}"}}' for row, title in enumerate(WESTERN)]
    else:
        lines.insert(0, "item_id,title")
    path.write_bytes("\n".join(lines).encode(encoding))
    titles, rejected, (finding,) = items(path)
    assert (titles, rejected) == (WESTERN, [])
    assert finding.is_fault == (encoding == "cp1252")
    assert encoding in finding.text
    if encoding == "cp1252":
        assert "byte 0xE9 in line" in finding.text
        assert "Café crème" in finding.text


@pytest.mark.parametrize("encoding", sorted(FOREIGN))
def test_other_text_is_refused_with_the_mend_and_read_as_it_is_bound(tmp_path, encoding):
    path = tmp_path / "items.csv"
    title = FOREIGN[encoding]
    path.write_bytes(("item_id,title\n" + f"1,{title}\n" * 40).encode(encoding))
    with pytest.raises(InputError, match=r"byte 0x.. in line 2 is no UTF-8.*Dialect.encoding"):
        items(path)
    assert items(path, encoding=encoding) == ([title] * 40, [], [])


def test_a_few_bad_bytes_among_utf8_reject_their_rows_and_are_said(tmp_path):
    path = tmp_path / "items.csv"
    path.write_bytes("item_id,title\n1,Café\n2,Th".encode() + b"\xe9\n3,f\xff\n")
    titles, rejected, (finding,) = items(path)
    assert (titles, rejected) == (["Café"], [2, 3])
    assert finding.is_fault
    assert "byte 0xE9 in line 3 is no UTF-8" in finding.text


def test_the_first_odd_byte_far_behind_the_head_is_refused(tmp_path):
    path = tmp_path / "items.csv"
    rows = [f"{row},kettle" for row in range(2000)]
    text = "\n".join(["item_id,title", *rows, "x,Café crème", ""])
    path.write_bytes(text.encode("cp1252"))
    with pytest.raises(InputError, match=r"byte 0xE9 in line 2002 is no UTF-8; .* cp1252"):
        items(path, sample=1024)
    assert items(path, sample=1024, encoding="cp1252")[0][-1] == "Café crème"
    path.write_bytes(text.encode())
    assert items(path, sample=1024)[0][-1] == "Café crème"


def test_a_guess_needs_someone_to_tell(tmp_path):
    path = tmp_path / "items.csv"
    path.write_bytes(b"item_id,title\n1,caf\xe9\n")
    parts = formats.parts([str(path)], mapping=ITEMS)
    kept, rejected = items_of(Source(items=parts, judgements=[]))
    assert (kept, [row["reason"] for row in rejected]) == ([], ["invalid UTF-8"])


def test_western_text_and_what_is_none():
    for title in WESTERN:
        assert is_western(title.encode("cp1252"))
    for encoding, title in FOREIGN.items():
        assert not is_western(title.encode(encoding)), encoding
    assert not is_western(b"f\xff")


def test_an_odd_head_in_utf8_with_a_cut_character_is_utf8():
    assert sniff_encoding("ab日".encode()[:-1], is_whole=False) == Encoding(name="utf-8")
    assert sniff_encoding("ab日".encode()) == Encoding(name="utf-8")
    assert sniff_encoding("ein Caf\xe9".encode("cp1252")).name == "cp1252"


@given(
    pieces=st.lists(st.sampled_from(["a", "é", "日", "\n", "\r", "\r\n", "\u2028", "\U0001f600"])),
    size=st.integers(1, 9),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "gb18030"]),
)
def test_whatever_the_blocks_text_and_lines_are_those_of_python(pieces, size, encoding):
    text = "".join(pieces)

    class Slow(io.BytesIO):
        def read(self, most=-1):
            return super().read(min(most, size) if most >= 0 else size)

    stream = Utf8Stream(
        Slow(text.encode(encoding)), Encoding(name=encoding, is_settled=False), unsettled=""
    )
    assert stream.readall().decode() == text
    lines = io.StringIO(text, newline="").read().replace("\r\n", "\n").replace("\r", "\n")
    assert stream.lines() == lines.count("\n") + bool(lines and not lines.endswith("\n"))
    assert stream.lines(has_returns=True) == text.count("\n") + (text[-1:] not in ("", "\n"))
