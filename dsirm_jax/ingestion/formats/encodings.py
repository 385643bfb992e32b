"""The bytes of a text file as UTF-8, whatever its encoding, with its lines counted."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import io
import re
from collections.abc import Iterator
from typing import BinaryIO

from dsirm_jax.ingestion.dialect import Dialect
from dsirm_jax.ingestion.formats.file_starts import check_is_text
from dsirm_jax.ingestion.formats.format import BUFFER, Remark, otherwise
from dsirm_jax.io import storage

UTF8 = "utf-8"
ESCAPE = "surrogateescape"
"""How bytes that are no UTF-8 travel through text."""

WESTERN = "cp1252"
_MARKS = (
    (codecs.BOM_UTF8, UTF8),
    # Before that of UTF-16, which is its start.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LONGEST = 4
"""Bytes of a character of UTF-8 at most."""

_LETTERS = "àâäáãåæçéèêëíìîïñóòôöõøœúùûüßýšžÀÂÄÁÃÅÆÇÉÈÊËÍÌÎÏÑÓÒÔÖÕØŒÚÙÛÜŠŽ’‘´·™®©°\xa0\xad"
_SYMBOLS = "€²³½¼¾±µ£§¨“”„«»¿¡ªº×‚‹›"
_HOPELESS_LINES, _HOPELESS = 20, 0.05
"""Fewest lines with bytes that are no UTF-8, and their share, by which a file is another's."""

# What Windows-1252 hardly ever has in a text of a Western language: other characters, symbols
# within words, three accents in a row, and a small letter before an accented capital.
_FOREIGN = re.compile(
    rf"[^\x00-\x7f{_LETTERS}{_SYMBOLS}•–—…]|[^\W\d_][{_SYMBOLS}][^\W\d_]"
    r"|[^\W\da-zA-Z_]{3}|[a-zß-öø-ÿ][À-ÖØ-Þ]"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoding:
    """How the characters of a file are written.

    Attributes:
      name: as Python calls it.
      is_settled: the bytes seen tell it; all of them may have been ASCII.
      fault: what is odd about the bytes, or None.
      example: of a guessed encoding, words that it decides.
      is_hopeless: bytes are odd in so many lines that another encoding is all but certain.
    """

    name: str
    is_settled: bool = True
    fault: str | None = None
    example: str | None = None
    is_hopeless: bool = False


def sniff_encoding(head: bytes, *, is_whole: bool = True) -> Encoding:
    """Returns the encoding of a file by its first bytes.

    A byte-order mark or the zeros of UTF-16 tell it. Otherwise it is UTF-8, but where no character
    beyond ASCII is valid as such and all of them are at home in Western text, Windows-1252: a
    guess, for any other single-byte encoding would be as valid. (Of the libraries that guess
    encodings, charset-normalizer 3.5 takes a Shift-JIS table for cp949 and a Polish one for Big5.)
    """
    for mark, name in _MARKS:
        if head.startswith(mark):
            return Encoding(name=name)
    zeros = [head[start::2].count(0) / max(1, len(head) // 2) for start in (0, 1)]
    for name, mine, other in (("utf-16-le", 1, 0), ("utf-16-be", 0, 1)):
        if len(head) >= 16 and zeros[mine] > 0.4 and zeros[other] < 0.1:
            return Encoding(name=name)
    if head.isascii():
        return Encoding(name=UTF8, is_settled=False)
    text = head.decode(UTF8, ESCAPE)
    # The last character of a head may be cut.
    told = text if is_whole else text[: -_LONGEST + 1]
    bad = [place.start() for place in re.finditer("[\udc80-\udcff]", told)]
    if not bad:
        return Encoding(name=UTF8)
    number = text.count("\n", 0, bad[0]) + 1
    line = text[text.rfind("\n", 0, bad[0]) + 1 :].partition("\n")[0].strip()
    byte = f"byte 0x{ord(text[bad[0]]) - 0xDC00:02X} in line {number} is no UTF-8"
    if not re.search("[^\x00-\x7f\udc80-\udcff]", text) and is_western(head):
        example = line.encode(UTF8, ESCAPE).decode(WESTERN)
        return Encoding(name=WESTERN, fault=byte, example=_around(example))
    shown = _around(line).encode(UTF8, ESCAPE).decode(UTF8, "backslashreplace")
    bad_lines = sum(1 for _ in re.finditer("\n[^\n]*[\udc80-\udcff]", text))
    is_hopeless = bad_lines >= _HOPELESS_LINES and bad_lines > _HOPELESS * text.count("\n")
    return Encoding(name=UTF8, fault=f"{byte} (near {shown!r})", is_hopeless=is_hopeless)


def is_western(head: bytes) -> bool:
    """Returns whether bytes look like Windows-1252: each beyond ASCII stands where it would."""
    try:
        text = head.decode(WESTERN)
    except UnicodeDecodeError:
        return False
    high = sum(len(run) for run in re.findall(r"[^\x00-\x7f]+", text))
    return sum(1 for _ in _FOREIGN.finditer(text)) * 50 <= high


def _around(line: str) -> str:
    """Returns the words of a line about its first character beyond ASCII."""
    place = next((at for at, character in enumerate(line) if character > "\x7f"), 0)
    return line[max(0, place - 20) : place + 20].strip()


class Utf8Stream(io.RawIOBase):
    """A file's bytes, in another encoding, as UTF-8 without a byte-order mark.

    What cannot be decoded stays as it is, or turns into bytes that are no UTF-8, for the check of
    its column.
    """

    def __init__(self, source: BinaryIO, encoding: Encoding, *, unsettled: str):
        """Wraps a file.

        Args:
          source: the file.
          encoding: that of its head.
          unsettled: says what to do about a file whose first characters beyond ASCII, behind the
            head, are no UTF-8; after the byte at fault.
        """
        super().__init__()
        self._source, self._unsettled = source, unsettled
        self._is_settled = encoding.is_settled
        self._errors = "surrogatepass" if encoding.name.startswith("utf-") else ESCAPE
        is_utf8 = codecs.lookup(encoding.name).name in (UTF8, "utf-8-sig")
        self._decoder = (
            None if is_utf8 else codecs.getincrementaldecoder(encoding.name)(self._errors)
        )
        self._rest, self._start, self._tail, self._is_started = b"", b"", b"", False
        self._count, self._returns, self._last = 0, 0, b"\n"

    def lines(self, has_returns: bool = False) -> int:
        """Returns the number of lines so far.

        Args:
          has_returns: carriage returns alone are no ends of lines.
        """
        ends = (b"\n",) if has_returns else (b"\n", b"\r")
        return self._count + (0 if has_returns else self._returns) + (self._last not in ends)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        while not self._rest:
            block = self._source.read(len(buffer))
            self._rest = self._decoded(bytes(block))
            self._tally(self._rest)
            if not block:
                break
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def _decoded(self, block: bytes) -> bytes:
        if self._decoder:
            text = self._decoder.decode(block, final=not block)
            if text and not self._is_started:
                self._is_started = True
                text = text.removeprefix("\ufeff")
            return text.encode(UTF8, self._errors)
        if not self._is_started:
            self._start += block
            if block and len(self._start) < len(codecs.BOM_UTF8):
                return b""
            self._is_started = True
            block = self._start.removeprefix(codecs.BOM_UTF8)
        if not self._is_settled:
            self._settle(block)
        return block

    def _settle(self, block: bytes) -> None:
        head = self._tail + block
        beyond = re.search(rb"[\x80-\xff]", head)
        if not beyond:
            return
        first = beyond.start()
        # A character may be cut at the end of a block.
        if block and len(head) - first < _LONGEST:
            self._tail = head[first:]
            return
        found = sniff_encoding(head, is_whole=not block)
        if found.name == WESTERN:
            number = self.lines() + head.count(b"\n", 0, first) + (self._last == b"\n")
            raise UnicodeError(
                f"byte 0x{head[first]:02X} in line {number} is no UTF-8; it looks like "
                f"{WESTERN} ({found.example!r}): {self._unsettled}"
            )
        self._is_settled = True

    def _tally(self, block: bytes) -> None:
        if not block:
            return
        self._count += block.count(b"\n")
        if b"\r" in block:
            self._returns += block.count(b"\r") - block.count(b"\r\n")
        # A line end may lie across two blocks.
        if self._last == b"\r" and block[:1] == b"\n":
            self._returns -= 1
        self._last = block[-1:]


def read_head(file: str, size: int) -> tuple[bytes, bool]:
    """Returns the first bytes of a text file, and whether that is all.

    Raises:
      InputError: the file does not exist, is empty, or no text.
    """
    with storage.stream(storage.require_file(file)) as source:
        head = bytes(source.read(size))
        check_is_text(file, head)
        return head, not source.read(1)


def told_encoding(
    head: bytes, *, is_whole: bool, dialect: Dialect, binding: str | None
) -> tuple[Encoding, list[Remark]]:
    """Returns the encoding that is bound, or else that of a file's head, and what to say of it.

    Args:
      head: the first bytes.
      is_whole: the file has no others.
      dialect: what is bound.
      binding: see `format.Format`; without one, nothing is guessed.

    Raises:
      UnicodeError: nearly nothing could be read.
    """
    if dialect.encoding:
        return Encoding(name=dialect.encoding), []
    found = sniff_encoding(head, is_whole=is_whole)
    if found.example and binding:
        guess = f"{found.fault}; the file is read as {found.name} (such as {found.example!r}); "
        guess += f"if that is wrong, {_mend(binding)}"
        return found, [Remark(text=guess, is_fault=True)]
    if found.fault:
        if binding and found.is_hopeless:
            raise UnicodeError(f"{found.fault}, nor are many others; {_mend(binding)}")
        lost = f"{found.fault}; rows with such bytes are rejected; {_mend(binding)}"
        return Encoding(name=UTF8), [Remark(text=lost, is_fault=True)]
    plain = found.name == UTF8
    return found, [] if plain else [Remark(text=f"its encoding is {found.name}")]


def _mend(binding: str | None) -> str:
    names = "encoding, to 'cp1252', 'cp1251', 'shift_jis' or the like"
    return otherwise(binding, names, "save the file as UTF-8")


def decoded(head: bytes, encoding: Encoding) -> bytes:
    """Returns the first bytes of a file as UTF-8."""
    return Utf8Stream(io.BytesIO(head), encoding, unsettled="").readall()


@contextlib.contextmanager
def opened_utf8(
    file: str, encoding: Encoding, *, binding: str | None
) -> Iterator[tuple[BinaryIO, Utf8Stream]]:
    """Opens a file as UTF-8; yields its bytes, and the stream below, which counts lines."""
    with storage.stream(file) as source:
        stream = Utf8Stream(source, encoding, unsettled=_mend(binding))
        with io.BufferedReader(stream, BUFFER) as reader:
            yield reader, stream
