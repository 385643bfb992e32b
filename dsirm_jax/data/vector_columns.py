"""Columns of vector tables as arrays: lists of numbers of any kind that Parquet holds, and ids."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Shaped

log = logging.getLogger(__name__)
LONGEST = 1e18
"""Length of a vector beyond which its squares, and those of differences, leave float32."""
SHORTEST = 1e-18
"""Length below which the squares of a vector that is not zero vanish in float32."""
ORDINARY = (1e-30, 1e35)
"""Squares, summed in float32, of vectors that need no closer look; NaN is none of them."""
ROUNDED = 1e-4
"""Share of their variance that float64 numbers may lose as they become float32."""
FEW_ROWS = 64
"""Fewer rows do not tell how far vectors are apart."""
BFLOAT16 = "bfloat16"
_SIXTEEN_BITS = (pa.uint16(), pa.int16())


class VectorError(Exception):
    """A column cannot be read; who reads it knows its file.

    Attributes:
      row: place of the first row at fault; None where no row of this type can be right.
    """

    def __init__(self, row: int | None, text: str) -> None:
        super().__init__(text)
        self.row = row


Converter = Callable[[pa.Array], Shaped[np.ndarray, " number"]]


def converter(field: pa.Field, sample: pa.Array) -> Converter:
    """Returns what makes numbers of the flat values of a vector column.

    Arrow has no bfloat16. Its bits come as 16-bit whole numbers, or as two bytes under an extension
    type that names it (`lance.bfloat16`). Whole numbers are taken for such bits where all that are
    not 0 would be numbers between 2^-30 and 2^16 in size: those of a vector in 16 whole bits are
    not, for they also have small ones.

    Args:
      field: of the column, with its metadata.
      sample: flat values of the first rows, see `flat`.

    Raises:
      VectorError: no values of this type are numbers.
    """
    type_ = sample.type
    if _is_named(field, BFLOAT16) and pa.types.is_fixed_size_binary(type_):
        if type_.byte_width != 2:
            raise VectorError(None, f"has bfloat16 of {type_.byte_width} bytes; write two")
        return _of_two_bytes
    if type_ in _SIXTEEN_BITS and (_is_named(field, BFLOAT16) or _looks_like_bfloat16(sample)):
        log.info("column %r holds %s, which are read as the bits of bfloat16", field.name, type_)
        return _of_bits
    if pa.types.is_nested(type_):
        raise VectorError(None, f"has lists of {type_}; write one flat list of numbers a row")
    numeric = (pa.types.is_floating, pa.types.is_integer, pa.types.is_decimal)
    if any(is_kind(type_) for is_kind in (*numeric, pa.types.is_boolean, pa.types.is_null)):
        return _of_numbers
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return _of_texts
    raise VectorError(None, f"has lists of {type_}; write lists of numbers")


def flat(column: pa.Array) -> tuple[pa.Array, int]:
    """Returns the values of all rows of a vector column, one after the other, and a row's width.

    Args:
      column: lists, large or fixed-size ones, or a tensor of one dimension.

    Raises:
      VectorError: it is of another type, a row is null, or widths differ.
    """
    if isinstance(column, pa.ExtensionArray):
        shape = getattr(column.type, "shape", ())
        if sum(size > 1 for size in shape) > 1:
            raise VectorError(
                None, f"has tensors of the shape {list(shape)}; write one vector a row"
            )
        column = column.storage
    type_ = column.type
    if pa.types.is_dictionary(type_):
        column, type_ = column.dictionary_decode(), type_.value_type
    if pa.types.is_list_view(type_) or pa.types.is_large_list_view(type_):
        column = column.cast(pa.large_list(type_.value_type))
    elif not _is_list(type_):
        raise VectorError(None, f"has type {type_}; write lists of numbers")
    if column.null_count:
        valid = column.drop_null()
        width = len(valid[0]) if len(valid) else "some"
        row = column.is_null().index(True).as_py()
        raise VectorError(row, f"has 0 numbers, not {width}, for it is null")
    if pa.types.is_fixed_size_list(type_):
        width = type_.list_size
    else:
        widths = column.value_lengths().to_numpy(zero_copy_only=False)
        width = int(widths[0])
        odd = widths != width
        if odd.any():
            row = int(np.argmax(odd))
            raise VectorError(row, f"has {widths[row]} numbers, not {width or 'some'}")
    if not width:
        raise VectorError(0, "has 0 numbers, not some")
    values = column.flatten()
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    return (values.dictionary_decode() if pa.types.is_dictionary(values.type) else values), width


def block_of(values: pa.Array, *, width: int, convert: Converter) -> Float[np.ndarray, "row dim"]:
    """Returns float32 vectors of flat values, checked; read-only where they are the values.

    Args:
      values: see `flat`.
      width: numbers of a row.
      convert: see `converter`.

    Raises:
      VectorError: a number is null, not finite or beyond float32, squares would not be finite or
        vanish, or float64 numbers differ by less than float32 can hold.
    """
    if values.null_count:
        raise VectorError(
            values.is_null().index(True).as_py() // width, "has nan, a null, among its numbers"
        )
    try:
        exact = convert(values)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise VectorError(*_no_number(values, width)) from error
    with np.errstate(over="ignore"):
        block = exact.astype(np.float32, copy=False).reshape(-1, width)
        squares = np.einsum("rd,rd->r", block, block)
    exact = exact.reshape(-1, width)
    if not ((squares > ORDINARY[0]) & (squares < ORDINARY[1])).all():
        _check_numbers(exact, block)
    if exact.dtype == np.float64:
        _check_rounding(exact, block)
    return block


def _check_numbers(
    exact: Shaped[np.ndarray, "row dim"], block: Float[np.ndarray, "row dim"]
) -> None:
    """Raises VectorError where a number is not finite, or a square leaves float32."""
    finite = np.isfinite(block)
    if not finite.all():
        row, place = divmod(int(np.argmin(finite)), block.shape[1])
        number = exact[row, place]
        beyond = f", for float32 does not hold {number}," if np.isfinite(number) else ""
        raise VectorError(row, f"has {block[row, place]}{beyond} among its numbers")
    lengths = np.sqrt(np.einsum("rd,rd->r", block, block, dtype=np.float64))
    odd = (lengths > LONGEST) | ((lengths < SHORTEST) & (lengths > 0))
    if odd.any():
        row = int(np.argmax(odd))
        raise VectorError(
            row, f"has the length {lengths[row]:.3g}, whose square float32 does not hold"
        )


def ids_of(column: pa.Array) -> pa.Array:
    """Returns ids or queries as text.

    Whole numbers are the ids that they spell, those written as floats too.

    Args:
      column: text, bytes in UTF-8, or numbers.

    Raises:
      VectorError: it is of another type, or a row has no id, or a number that is not whole.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    type_ = column.type
    if pa.types.is_floating(type_):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, type_), column)
    try:
        names = _texts(column)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise VectorError(
            None, f"has type {type_}, not all of which is text; write text"
        ) from error
    empty = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(names), ""), True)
    if pc.any(empty).as_py():
        raise VectorError(empty.index(True).as_py(), "is empty")
    return names


def _texts(column: pa.Array) -> pa.Array:
    type_ = column.type
    if pa.types.is_floating(type_):
        numbers = column.cast(pa.float64())
        whole = pc.and_(pc.equal(numbers, pc.floor(numbers)), pc.less(pc.abs(numbers), 2.0**53))
        if not pc.all(whole).as_py():
            row = pc.fill_null(whole, True).index(False).as_py()
            raise VectorError(row, f"= {numbers[row].as_py()} is no whole number")
        return numbers.cast(pa.int64()).cast(pa.string())
    if pa.types.is_decimal(type_):
        return column.cast(pa.int64()).cast(pa.string())
    kinds = (
        *(pa.types.is_integer, pa.types.is_null),
        *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
        *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view),
    )
    if not any(is_kind(type_) for is_kind in kinds):
        raise VectorError(None, f"has type {type_}; write text or whole numbers")
    return column.cast(pa.string())


def _is_list(type_: pa.DataType) -> bool:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_kind(type_) for is_kind in kinds)


def _is_named(field: pa.Field, name: str) -> bool:
    """Whether a column or its values are of an extension type of a name, known here or not."""
    named = []
    for part in (field, getattr(field.type, "value_field", None)):
        if part is not None:
            named.append((part.metadata or {}).get(b"ARROW:extension:name", b"").decode())
            named.append(getattr(part.type, "extension_name", ""))
    return any(name in each.lower() for each in named)


def _of_bits(values: pa.Array) -> Float[np.ndarray, " number"]:
    bits = values.to_numpy(zero_copy_only=False).astype(np.uint16)
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _of_two_bytes(values: pa.Array) -> Float[np.ndarray, " number"]:
    raw = np.frombuffer(values.buffers()[1], "<u2")[values.offset : values.offset + len(values)]
    return (raw.astype(np.uint32) << 16).view(np.float32)


def _of_numbers(values: pa.Array) -> Shaped[np.ndarray, " number"]:
    if not pa.types.is_floating(values.type):
        values = values.cast(pa.float64(), safe=False)
    return values.to_numpy(zero_copy_only=False)


def _of_texts(values: pa.Array) -> Shaped[np.ndarray, " number"]:
    return values.cast(pa.float64()).to_numpy(zero_copy_only=False)


def _looks_like_bfloat16(values: pa.Array) -> bool:
    numbers = np.abs(_of_bits(values.drop_null()))
    numbers = numbers[numbers != 0]
    return len(numbers) > 0 and bool(((numbers >= 2.0**-30) & (numbers <= 2.0**16)).all())


def _no_number(values: pa.Array, width: int) -> tuple[int, str]:
    """Returns the row of the first text that is no number, and what to say."""
    for place, value in enumerate(values.to_pylist()):
        try:
            float(value)
        except ValueError:
            return place // width, f"has {value!r} among its numbers"
    return 0, f"has values of type {values.type} that are no numbers"


def _check_rounding(
    exact: Float[np.ndarray, "row dim"], block: Float[np.ndarray, "row dim"]
) -> None:
    """Raises VectorError where float32 loses much of what tells float64 vectors apart."""
    if len(exact) < FEW_ROWS:
        return
    centred, rounding = exact - exact.mean(axis=0), exact - block
    spread, lost, size = (float(np.vdot(part, part)) for part in (centred, rounding, exact))
    if lost > ROUNDED * spread and spread > 1e-26 * size:  # below, all are the same
        raise VectorError(
            None,
            "has float64 numbers that differ by less than float32 holds; subtract their mean "
            "vector before they are written",
        )
