"""The records of CSV and TSV: lines of text in, values out, each line in one record."""

from __future__ import annotations

import collections
import csv
import dataclasses
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from dsirm_jax.ingestion.dialect import BACKSLASH, DOUBLED, NONE

# Characters that no decoded file holds stand for those behind a backslash.
_QUOTE, _DELIMITER, _RETURN = "\ud800", "\ud801", "\ud802"
_RETURNS = re.compile(r"\r(?!\n)")
_NOT_CLOSED = "expected after"
"""What the parser says of text between a closing quote and the next delimiter."""


class TwoReadings(csv.Error):
    """A record may as well be several ones."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """How the records of a file are written.

    Attributes:
      delimiter: between the values.
      quoting: as in `dialect.Dialect`.
      has_spaces: whether spaces may stand between a delimiter and a quote.
      is_quoted: quotes are known to hold values; otherwise a value of several lines, each of which
        could be a record, is in doubt.
      width: values of a record; 0 where it is not known yet.
      has_returns: carriage returns alone are text, not ends of lines.
      has_ends: a delimiter ends each record, but not the header.
    """

    delimiter: str
    quoting: str = DOUBLED
    has_spaces: bool = False
    is_quoted: bool = False
    width: int = 0
    has_returns: bool = False
    has_ends: bool = False


class Records:
    """Iterates over the records of some lines; a blank line is none.

    Under quoting, a value whose closing quote is followed by more text was not quoted: its line is
    read on its own, with that quote as text, and reading goes on at the next line, so that no
    record swallows others.

    Attributes:
      unclosed: lines that were read on their own; whoever has told of them may clear it.
      spanning: records of more than one line.
    """

    def __init__(self, lines: Iterable[str], layout: Layout, *, longest: int = sys.maxsize):
        """Wraps lines with their ends, of which none may have more than `longest` characters."""
        self._source, self._layout, self._longest = lines, layout, longest
        self._pending: collections.deque[str] = collections.deque()
        self._taken: list[str] = []
        self._reader: Any = None
        self._plain_lines = self._again = self.spanning = 0
        self.unclosed: list[str] = []

    def __iter__(self) -> Iterator[list[str]]:
        return self._plain() if self._layout.quoting == NONE else self._quoted()

    @property
    def lines(self) -> int:
        """Number of lines that are in the records so far, or blank."""
        return (self._reader.line_num if self._reader else self._plain_lines) - self._again

    @property
    def taken(self) -> list[str]:
        """The lines of the record at hand."""
        return self._taken

    def _plain(self) -> Iterator[list[str]]:
        delimiter = self._layout.delimiter
        for line in self._source:
            self._check_length(line)
            self._plain_lines += 1
            line = line.rstrip("\r\n")
            if line and not (line.isspace() and delimiter not in line):
                yield line.split(delimiter)

    def _quoted(self) -> Iterator[list[str]]:
        layout, taken = self._layout, self._taken
        has_escapes = layout.quoting == BACKSLASH or layout.has_returns
        reader = self._reader = csv.reader(
            self._fed(),
            delimiter=layout.delimiter,
            skipinitialspace=layout.has_spaces,
            strict=True,
        )
        while True:
            try:
                for record in reader:
                    if len(taken) > 1:
                        self._check_lines()
                    if has_escapes:
                        record = self._unescaped(record)
                    if len(record) > 1 or (record and not taken[0].isspace()):
                        yield record
                    taken.clear()
                return
            except csv.Error as error:
                if _NOT_CLOSED not in str(error):
                    raise
                line, *rest = taken
                taken[:] = [line]
                self._pending.extendleft(reversed(rest))
                self._again += len(rest)
                self.unclosed.append(self._written(line))
                yield self._unescaped(_values(line, layout))
                taken.clear()

    def _fed(self) -> Iterator[str]:
        """Yields the lines that the parser asks for, and remembers those of one record."""
        pending, taken, longest = self._pending, self._taken, self._longest
        has_escapes, has_returns = self._layout.quoting == BACKSLASH, self._layout.has_returns
        escapes = re.compile(rf'\\(["\\{re.escape(self._layout.delimiter)}])')
        for line in self._source:
            if len(line) > longest:
                self._check_length(line)
            if has_escapes and "\\" in line:
                line = escapes.sub(_placeholder, line)
            if has_returns:
                line = _RETURNS.sub(_RETURN, line)
            taken.append(line)
            yield line
            while pending:
                line = pending.popleft()
                taken.append(line)
                yield line

    def _unescaped(self, record: list[str]) -> list[str]:
        text = "".join(self._taken)
        for mark, meant in ((_QUOTE, '"'), (_DELIMITER, self._layout.delimiter), (_RETURN, "\r")):
            if mark in text:
                record = [value.replace(mark, meant) for value in record]
        return record

    def _written(self, line: str) -> str:
        """Returns a line as it stands in the file."""
        escapes: dict[str, str | int | None] = {
            _QUOTE: '\\"',
            _DELIMITER: "\\" + self._layout.delimiter,
            _RETURN: "\r",
        }
        return line.translate(str.maketrans(escapes))

    def _check_length(self, line: str) -> None:
        if len(line) > self._longest:
            raise csv.Error(f"a line is longer than {self._longest} characters")

    def _check_lines(self) -> None:
        self.spanning += 1
        width = self._layout.width
        if self._layout.is_quoted or width < 2:
            return
        delimiters = width - 1
        if all(line.count(self._layout.delimiter) == delimiters for line in self._taken):
            raise TwoReadings(
                f"a quote opens a value of {len(self._taken)} lines, but without quoting each of "
                f"them is a row of {width} values"
            )


def _placeholder(match: re.Match[str]) -> str:
    return {'"': _QUOTE, "\\": "\\"}.get(match[1], _DELIMITER)


def _values(line: str, layout: Layout) -> list[str]:
    """Splits a line; a quote that does not close its value is text."""
    delimiter = re.escape(layout.delimiter)
    spaces = " *" if layout.has_spaces else ""
    value = re.compile(rf'{spaces}"((?:[^"]|"")*)"(?={delimiter}|$)|([^{delimiter}]*)')
    line = line.rstrip("\r\n")
    values, place = [], 0
    while True:
        match = value.match(line, place)
        assert match  # the second alternative may be empty
        values.append(match[2] if match[1] is None else match[1].replace('""', '"'))
        place = match.end() + 1
        if place > len(line):
            return values


def quoted_values(line: str, delimiter: str) -> int:
    """Returns how many values of a line stand in quotes that open and close it."""
    ends = re.escape(delimiter)
    return len(re.findall(rf'(?:^|(?<={ends})) *"(?:[^"]|"")*"(?={ends}|[\r\n]*$)', line))
