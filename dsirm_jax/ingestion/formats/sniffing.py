"""How a CSV or TSV file is written, told by its head: delimiter and quoting.

The delimiter is the one that parts the names of the header which are looked for. The quoting is
told by counting: records, and values in each, are counted as they are with quotes, with backslashes
and without quoting, by the parser that reads the file. (Of the libraries that sniff dialects,
csv.Sniffer takes any character that is regular for a delimiter, and neither it nor clevercsv says
where two readings are possible.)
"""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Sequence

from dsirm_jax.ingestion.columns.mapping import ColumnMap
from dsirm_jax.ingestion.dialect import BACKSLASH, DOUBLED, NONE, Dialect
from dsirm_jax.ingestion.formats.format import Remark, otherwise
from dsirm_jax.ingestion.formats.records import Layout, Records, TwoReadings, quoted_values

DELIMITERS = (",", "\t", ";", "|")
_SHOWN = {"\t": "tabs"}
_LINES = 100
"""Lines whose delimiters are counted where no name of the header helps."""

_LINES_OF_FILES = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+$")
_LINES_OF_TEXT = re.compile(r"[^\n]*\n|[^\n]+$")
_EXCEL = re.compile(r'^"?sep=(.)"?[\r\n]*$', re.IGNORECASE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """What comes out of the head of a file under a layout.

    Attributes:
      layout: the layout.
      records: records, the header left out.
      odd: records of another width than the header's.
      unclosed: lines whose quote does not close its value.
      spanning: records of more than one line.
      quoted: values of one line that stand in quotes.
      is_open: the file ends within quotes.
      lines: lines read, but for those of a record that the end of the head cuts.
    """

    layout: Layout
    records: int
    odd: int
    unclosed: int
    spanning: int
    quoted: int
    is_open: bool
    lines: int

    @property
    def faults(self) -> int:
        return self.odd + self.unclosed + self.is_open


def is_excel_line(line: str) -> bool:
    """Returns whether a first line is `sep=;`, by which Excel is told the delimiter."""
    return bool(_EXCEL.match(line))


def sniff_layout(
    text: str,
    *,
    is_whole: bool,
    dialect: Dialect,
    default: str,
    mapping: ColumnMap,
    binding: str | None,
) -> tuple[Layout, list[Remark]]:
    """Returns the layout of a file, and what a user should know of it.

    Args:
      text: the head of the file.
      is_whole: the file has no more.
      dialect: what is bound.
      default: the delimiter that goes with the file's suffix.
      mapping: the columns that the header should name.
      binding: see `format.Format`.

    Raises:
      TwoReadings: two readings are as good.
    """
    returns = len(re.findall(r"\r(?!\n)", text))
    # Where a carriage return ends lines, all lines have one.
    has_returns = 0 < 2 * returns < text.count("\n")
    ends = _LINES_OF_TEXT if has_returns else _LINES_OF_FILES
    lines = ends.findall(text)
    lines = lines if is_whole else lines[:-1]
    told = _EXCEL.match(lines[0]) if lines else None
    if told:
        lines = lines[1:]
    delimiter = dialect.delimiter or (told[1] if told else _delimiter(lines, default, mapping))
    remarks = []
    if has_returns:
        remarks.append(Remark(text="carriage returns within lines are text", is_bound=False))
    if delimiter != default and not dialect.delimiter:
        shown = _SHOWN.get(delimiter, repr(delimiter))
        remarks.append(Remark(text=f"values are separated by {shown}"))
    layout = Layout(
        delimiter=delimiter,
        quoting=dialect.quoting or DOUBLED,
        is_quoted=bool(dialect.quoting),
        has_returns=has_returns,
    )
    layout = dataclasses.replace(layout, width=_width(lines, layout))
    if _has_ends(lines[:_LINES], layout):
        layout = dataclasses.replace(layout, has_ends=True)
        remarks.append(Remark(text="a delimiter ends each row, but not the header", is_bound=False))
    if dialect.quoting:
        return layout, remarks
    if not any('"' in line for line in lines):
        return layout, remarks
    layout, others = _quoting(lines, layout, is_whole=is_whole, binding=binding)
    return layout, [*remarks, *others]


def _delimiter(lines: Sequence[str], default: str, mapping: ColumnMap) -> str:
    required = {mapping.columns[name] for name in mapping.required}
    known = set(mapping.columns.values())
    header = next((line for line in lines if line.strip()), "")
    candidates = sorted(DELIMITERS, key=lambda delimiter: delimiter != default)

    def fitness(delimiter: str) -> tuple[bool, int, float]:
        try:
            names = next(csv.reader([header], delimiter=delimiter), [])
        except csv.Error:
            return False, 0, 0.0
        found = {name.strip() for name in names} & known
        count = header.count(delimiter)
        rest = [line.count(delimiter) == count for line in lines[:_LINES]]
        evenness = sum(rest) / len(rest) if count and rest else 0.0
        return required <= found, len(found), evenness

    return max(candidates, key=fitness)


def _width(lines: Sequence[str], layout: Layout) -> int:
    try:
        return len(next(iter(Records(iter(lines[:_LINES]), layout)), []))
    except csv.Error:  # the header does not end; the reader of the file says so
        return 0


def _has_ends(lines: Sequence[str], layout: Layout) -> bool:
    _, *rows = [line.rstrip("\r\n") for line in lines if line.strip()] or [""]
    ends = [line.endswith(layout.delimiter) for line in rows]
    if not rows or not all(ends):
        return False
    try:
        widths = {len(record) for record in Records(iter(rows), layout)}
    except csv.Error:
        return False
    return widths == {layout.width + 1}


def _quoting(
    lines: Sequence[str], layout: Layout, *, is_whole: bool, binding: str | None
) -> tuple[Layout, list[Remark]]:
    """Chooses a quoting, see `sniff_layout`: quotes, unless the file is odd with them."""

    def reading(quoting: str, number: int | None = None, has_spaces: bool = False) -> Reading:
        changed = dataclasses.replace(layout, quoting=quoting, has_spaces=has_spaces)
        return _read(lines[:number], changed, is_whole=is_whole)

    doubled = reading(DOUBLED)
    before_quote = re.compile(re.escape(layout.delimiter) + ' +"')
    if doubled.faults and any(map(before_quote.search, lines)):
        doubled = min(doubled, reading(DOUBLED, has_spaces=True), key=lambda one: one.faults)
    escape = ('\\"', f"\\{layout.delimiter}")
    if doubled.faults and any(mark in line for line in lines for mark in escape):
        backslash = reading(BACKSLASH)
        if backslash.faults < doubled.faults:
            remark = Remark(
                text="a backslash stands before quotes within values: with that, "
                f"{_counted(backslash)}, and without, {_counted(doubled)}"
            )
            return dataclasses.replace(backslash.layout, is_quoted=True), [remark]
    none = reading(NONE, doubled.lines)
    width, in_use = layout.width, doubled.quoted > doubled.unclosed + doubled.spanning
    both = f"with quotes around values, {_counted(doubled)}; without quoting, {_counted(none)}"
    if not in_use and not (doubled.is_open and layout.delimiter == ","):
        if (none.odd, 0) < (doubled.odd, doubled.unclosed + doubled.is_open):
            return none.layout, [Remark(text=f"quotes are text: {both}", is_fault=none.odd > 0)]
        if none.odd == doubled.odd and none.records != doubled.records and width > 1:
            mend = otherwise(binding, f"quoting = '{NONE}' or '{DOUBLED}'", "quote every value")
            raise TwoReadings(f"the quotes in it can be read in two ways: {both}; {mend}")
    # With a quote left open, the parser itself says where.
    is_quoted = in_use or none.odd > doubled.odd or width < 2
    remarks = []
    if any("\\\\" in line for line in lines):
        remarks.append(
            Remark(
                text="backslashes are text, doubled ones too: no quote stands behind one; if each "
                "stands before a character, "
                + otherwise(binding, f"quoting = '{BACKSLASH}'", "save the file without them")
            )
        )
    return dataclasses.replace(doubled.layout, is_quoted=is_quoted), remarks


def _read(lines: Sequence[str], layout: Layout, *, is_whole: bool) -> Reading:
    # Whether a value of several lines is in doubt is told by all of them.
    reader = Records(iter(lines), dataclasses.replace(layout, width=0))
    widths: list[int] = []
    quoted, is_open, end = 0, False, 0
    try:
        for record in reader:
            widths.append(len(record) - (layout.has_ends and bool(widths) and not record[-1]))
            end = reader.lines
            if len(reader.taken) == 1 and '"' in reader.taken[0]:
                quoted += quoted_values(reader.taken[0], layout.delimiter)
    except csv.Error:
        cut = lines[end:]
        delimiters = layout.width - 1
        # That of the last line may be cut.
        full = all(line.count(layout.delimiter) == delimiters for line in cut[:-1])
        is_open = is_whole or (len(cut) > 2 and full)
        if is_open:
            end = len(lines)
    return Reading(
        layout=layout,
        records=max(0, len(widths) - 1 + is_open),
        odd=sum(width != layout.width for width in widths) + (is_open and len(cut) > 1),
        unclosed=len(reader.unclosed),
        spanning=reader.spanning,
        quoted=quoted,
        is_open=is_open,
        lines=end,
    )


def _counted(reading: Reading) -> str:
    text = f"{reading.records} rows"
    if reading.odd:
        text += f", {reading.odd} of them of other than {reading.layout.width} values"
    if reading.unclosed:
        text += f", {reading.unclosed} of them with text behind a closing quote"
    if reading.is_open:
        text += ", the last of which never ends"
    return text
