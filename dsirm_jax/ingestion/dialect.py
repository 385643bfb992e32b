"""How a text table is written: what a user may bind where sniffing it would go wrong."""

from __future__ import annotations

import dataclasses

from dsirm_jax.io.checks import check_choice
from dsirm_jax.io.errors import InputError

NONE, DOUBLED, BACKSLASH = QUOTINGS = ("none", "doubled", "backslash")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dialect:
    r"""How the CSV, TSV and JSON files of a table are written; what is None is sniffed, and said.

    Attributes:
      delimiter: one character between the values of a row of CSV or TSV.
      quoting: of CSV and TSV. "doubled": a value in quotes may hold delimiters, line ends, and
        quotes written twice; a quote inside any other value is text. "backslash": a quote, a
        delimiter or a backslash may also be written with a backslash before it (Spark, MySQL,
        PHP). "none": a line is a row, and quotes are text.
      decimal: of CSV and TSV: the character before decimals, "." or ","; the other one may stand
        between thousands. None: a point, and a comma where it can be nothing else, as in "0,5"; a
        number such as "1,204" is then rejected.
      encoding: a name that Python knows, such as "utf-8", "cp1252" (Windows in the West), "utf-16".
    """

    delimiter: str | None = None
    quoting: str | None = None
    encoding: str | None = None
    decimal: str | None = None

    def __post_init__(self) -> None:
        check_choice("Dialect.quoting", self.quoting, (*QUOTINGS, None))
        check_choice("Dialect.decimal", self.decimal, (".", ",", None))
        is_character = isinstance(self.delimiter, str) and len(self.delimiter) == 1
        if self.delimiter is not None and not (is_character and self.delimiter not in '"\\\r\n'):
            raise InputError(
                f"gin binding Dialect.delimiter is {self.delimiter!r}; bind one character that is "
                r"no quote, such as ',', ';', '|' or '\t'"
            )
        if self.encoding is not None and not _is_text_encoding(self.encoding):
            raise InputError(
                f"gin binding Dialect.encoding is {self.encoding!r}; bind an encoding that Python "
                "knows, such as 'utf-8', 'cp1252', 'utf-16', 'shift_jis'"
            )


def _is_text_encoding(name: object) -> bool:
    try:
        return isinstance(name, str) and isinstance("a".encode(name), bytes)
    except (LookupError, ValueError):
        return False
