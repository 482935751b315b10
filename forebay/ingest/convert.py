"""One column becomes its declared type: the rules for values, the same for JSON, Parquet and computed columns.

    String     text; of a bounded String, at most that many UTF-8 bytes and no NUL (it lies inline in tiles)
    Bool       true or false
    Int64      a whole number; also 5.0, up to 2^53
    Float64    a number; NaN is null, an infinity is refused
    Decimal    a number or numeric text, rounded half-even once to its scale; at most 2^53 units. A JSON number is a
               double and means the shortest decimal that names it, so 0.125 is exactly 125 thousandths
    Timestamp  an instant: ISO 8601 text with an offset, whole UTC microseconds, or an Arrow timestamp with a time zone;
               what is finer than a microsecond is cut off; years 1 to 9999

A value that breaks its rule becomes null and is reported as a fault; a row never decides what another becomes.
"""

from __future__ import annotations

import decimal
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from forebay.core.texts import bytes_of, lengths_of
from forebay.ingest.batch import EVENT_BYTES_MAX, INFINITE, INSTANT, TOO_LARGE, WRONG_TYPE, stored_type
from forebay.instants import EARLIEST_US, LATEST_US
from forebay.language.types import (
    DECIMAL_UNITS_MAX,
    AnyType,
    BoolType,
    DecimalType,
    Float64Type,
    Int64Type,
    StringType,
    TimestampType,
)

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
EXACT_MAX = 2**53
"""Beyond this a double is not one whole number but several."""
NEAR_TIE = 2.0**-51
"""Twice the relative error of (shortest decimal → double) · 10^scale: nearer to a tie than this, the text decides."""

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
_PLAIN_NUMBER = r"^[+-]?[0-9]{1,18}(\.[0-9]{1,18})?$"
_NUL = re.compile(rb"\0")
_PLAIN = pa.decimal128(38, 18)
_PLAIN_ARRAYS = frozenset([pa.StringArray, pa.Int64Array, pa.DoubleArray, pa.BooleanArray])
_EXACT = decimal.Context(prec=2 * EVENT_BYTES_MAX, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)


@dataclass(frozen=True, eq=False)
class Converted:
    """A column in its stored type, and the rows that broke its rule by reason (they are null)."""

    array: pa.Array
    faults: dict[str, Mask]


def convert(kind: AnyType, column: pa.Array | pa.ChunkedArray, *, unicode: bool = False) -> Converted:
    """A column of any Arrow type as the declared type. Text may be none, in spite of its type, unless `unicode`."""
    array = _plain(column)
    if pa.types.is_null(array.type):
        return Converted(pa.nulls(len(array), stored_type(kind)), {})
    if unicode or not pa.types.is_string(array.type):
        return _RULES[type(kind)](kind, array)
    array, broken = _each(array.cast(pa.binary()), pa.string())  # a file may hold text that is no UTF-8
    converted = _RULES[type(kind)](kind, array)
    return merged([converted, Converted(converted.array, {WRONG_TYPE: broken})]) if broken.any() else converted


def whole_numbers(array: pa.Array) -> Converted:
    """Numbers rounded half-even to Int64: for computed columns, where a fraction is a matter of course."""
    if pa.types.is_integer(array.type):
        return _to_int64(Int64Type(), array)
    rounded = _to_decimal(DecimalType(0), array)
    return Converted(pa.array(units_of(rounded.array), pa.int64(), mask=~_valid(rounded.array)), rounded.faults)


def merged(parts: Sequence[Converted]) -> Converted:
    """Parts of one column, each null where another has its values."""
    faults: dict[str, Mask] = {}
    for part in parts:
        for reason, mask in part.faults.items():
            faults[reason] = mask | faults.get(reason, False)
    return Converted(pc.coalesce(*(part.array for part in parts)), faults)


def words_of(array: pa.Array) -> tuple[Ints, Ints]:
    """The low and high words of a decimal128 column; 0 where null."""
    if not len(array):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    words = np.frombuffer(array.buffers()[1], np.int64, 2 * (array.offset + len(array)))[2 * array.offset :]
    low, high = words[0::2], words[1::2]
    if not array.null_count:
        return low, high
    valid = _valid(array)
    return np.where(valid, low, 0), np.where(valid, high, 0)


def units_of(array: pa.Array) -> Ints:
    """The units of a decimal128 column whose values fit 64 bits; 0 where null."""
    return words_of(array)[0]


def decimal_array(units: Ints, valid: Mask | None, scale: int) -> pa.Array:
    """A decimal128 column of units, all of them there (`None`) or some."""
    words = np.empty((len(units), 2), np.int64)
    words[:, 0], words[:, 1] = units, units >> 63
    mask = None if valid is None or valid.all() else pa.array(valid).buffers()[1]
    return pa.Array.from_buffers(stored_type(DecimalType(scale)), len(units), [mask, pa.py_buffer(words)])


def _plain(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One chunk, dictionaries decoded, every kind of text as `string`."""
    if type(column) in _PLAIN_ARRAYS:
        return column
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    if pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type):
        array = array.cast(pa.string())
    return array


def _valid(array: pa.Array) -> Mask:
    return np.asarray(array.is_valid())


def filled(array: pa.Array, value: Any) -> pa.Array:
    """The array with a value in place of nulls."""
    return array.fill_null(value) if array.null_count else array


def with_nul(array: pa.Array) -> Mask:
    """Which texts hold the character NUL."""
    if _NUL.search(bytes_of(array)) is None:
        return np.zeros(len(array), np.bool_)
    return np.asarray(filled(pc.match_substring(array, "\0"), False))


def _numpy(array: pa.Array) -> npt.NDArray[Any]:
    return np.asarray(filled(array, 0))


def _as(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """The array as another type, which it may have already: a kernel is long in coming for nothing."""
    return array if array.type == kind else array.cast(kind)


def _faults(**masks: Mask) -> dict[str, Mask]:
    return {reason: mask for reason, mask in masks.items() if np.count_nonzero(mask)}


def _refused(kind: AnyType, array: pa.Array) -> Converted:
    """Every value of a column that has the wrong type altogether."""
    return Converted(pa.nulls(len(array), stored_type(kind)), _faults(**{WRONG_TYPE: _valid(array)}))


def _without(array: pa.Array, faults: dict[str, Mask]) -> Converted:
    """The column with its faulty values nulled."""
    for mask in faults.values():
        array = pc.if_else(pa.array(mask), pa.scalar(None, array.type), array)
    return Converted(array, faults)


def _to_string(kind: AnyType, array: pa.Array) -> Converted:
    if not pa.types.is_string(array.type):
        return _refused(kind, array)
    assert isinstance(kind, StringType)
    if kind.max_bytes is None:
        return Converted(array, {})
    long, nul = lengths_of(array) > kind.max_bytes, with_nul(array)
    return _without(array, _faults(**{WRONG_TYPE: nul & ~long, TOO_LARGE: long}))


def _to_bool(kind: AnyType, array: pa.Array) -> Converted:
    return Converted(array, {}) if pa.types.is_boolean(array.type) else _refused(kind, array)


def _to_int64(kind: AnyType, array: pa.Array) -> Converted:
    if pa.types.is_uint64(array.type):
        faults = _faults(**{TOO_LARGE: _numpy(array) > np.uint64(2**63 - 1)})
        return Converted(_without(array, faults).array.cast(pa.int64()), faults)
    if pa.types.is_integer(array.type):
        return Converted(_as(array, pa.int64()), {})
    if not (pa.types.is_floating(array.type) or pa.types.is_decimal(array.type)):
        return _refused(kind, array)
    number = array.cast(pa.string()).cast(pa.float64()) if pa.types.is_decimal(array.type) else array.cast(pa.float64())
    values = _numpy(number)
    valid = _valid(number) & ~np.isnan(values)
    endless, large = np.isinf(values), np.abs(values) > EXACT_MAX
    whole = np.rint(values) == values
    faults = _faults(
        **{INFINITE: valid & endless, TOO_LARGE: valid & large & ~endless, WRONG_TYPE: valid & ~large & ~whole}
    )
    good = valid & ~large & whole
    return Converted(pa.array(np.where(good, values, 0).astype(np.int64), mask=~good), faults)


def _to_float64(kind: AnyType, array: pa.Array) -> Converted:
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.string()).cast(pa.float64())
    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        return _refused(kind, array)
    array = array if array.type == pa.float64() else array.cast(pa.float64(), safe=False)
    values = _numpy(array)
    if np.isfinite(values).all():
        return Converted(array, {})
    good = _valid(array) & np.isfinite(values)
    return Converted(
        pa.array(values, pa.float64(), mask=~good), _faults(**{INFINITE: _valid(array) & np.isinf(values)})
    )


def _to_decimal(kind: AnyType, array: pa.Array) -> Converted:
    assert isinstance(kind, DecimalType)
    if pa.types.is_integer(array.type):
        return _units_of_integers(kind, array)
    if pa.types.is_floating(array.type):
        return _units_of_floats(kind, _as(array, pa.float64()))
    if pa.types.is_decimal128(array.type):
        return _units_of_decimals(kind, array)
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.string())
    return _units_of_text(kind, array) if pa.types.is_string(array.type) else _refused(kind, array)


def _units_of_integers(kind: DecimalType, array: pa.Array) -> Converted:
    unsigned = pa.types.is_uint64(array.type)
    whole = _to_int64(kind, array).array if unsigned else _as(array, pa.int64())
    values, unit = _numpy(whole), 10**kind.scale
    good = _valid(whole) & (np.abs(values) <= DECIMAL_UNITS_MAX // unit) & (values != -(2**63))
    units = np.where(good, values, 0) * unit
    return Converted(decimal_array(units, good, kind.scale), _faults(**{TOO_LARGE: _valid(array) & ~good}))


def _units_of_floats(kind: DecimalType, array: pa.Array) -> Converted:
    """Half-even of the shortest decimal of each double: by a rounded product, by its digits where near a tie."""
    values = _numpy(array)
    with np.errstate(over="ignore", invalid="ignore"):
        product = values * 10.0**kind.scale
        size = np.abs(product)
        tie = np.abs(size - np.floor(size) - 0.5) <= size * NEAR_TIE
        if not (array.null_count or tie.any()) and (size <= EXACT_MAX // 2).all():  # NaN is not
            units = np.rint(product).astype(np.int64)
            return Converted(decimal_array(units, None, kind.scale), {})
        valid = _valid(array) & ~np.isnan(values)
        endless = valid & np.isinf(values)
        large = valid & ~endless & (size > DECIMAL_UNITS_MAX * (1 + NEAR_TIE))
        good = valid & ~endless & ~large
        units = np.rint(np.where(good, product, 0.0)).astype(np.int64)
    for row in np.flatnonzero(good & tie).tolist():
        units[row] = _half_even(decimal.Decimal(repr(float(values[row]))), kind.scale)
    over = good & (np.abs(units) > DECIMAL_UNITS_MAX)
    faults = _faults(**{INFINITE: endless, TOO_LARGE: large | over})
    return Converted(decimal_array(np.where(good & ~over, units, 0), good & ~over, kind.scale), faults)


def _units_of_decimals(kind: DecimalType, array: pa.Array) -> Converted:
    """Rescaled in 64 bits: what does not fit them is beyond the limit of units anyway."""
    if array.type.scale > kind.scale:
        try:
            array = pc.round(array, kind.scale, "half_to_even").cast(pa.decimal128(38, kind.scale))
        except pa.ArrowInvalid:  # 38 digits that round up to 39
            return _units_of_texts(kind, array.cast(pa.string()))
    valid, shift = _valid(array), kind.scale - array.type.scale
    low, high = words_of(array)
    bound = DECIMAL_UNITS_MAX // 10**shift
    good = valid & (high == low >> 63) & (low >= -bound) & (low <= bound)
    units = np.where(good, low, 0) * (10**shift if shift <= 18 else 0)
    return Converted(decimal_array(units, good, kind.scale), _faults(**{TOO_LARGE: valid & ~good}))


def _units_of_text(kind: DecimalType, array: pa.Array) -> Converted:
    """Plain numbers together, all others one by one."""
    plain = np.asarray(pc.match_substring_regex(array, _PLAIN_NUMBER).fill_null(True))
    if plain.all():
        return _units_of_decimals(kind, array.cast(_PLAIN))
    null = pa.scalar(None, pa.string())
    parts = [
        _units_of_decimals(kind, pc.if_else(pa.array(plain), array, null).cast(_PLAIN)),
        _units_of_texts(kind, pc.if_else(pa.array(~plain), array, null)),
    ]
    return merged(parts)


def _units_of_texts(kind: DecimalType, array: pa.Array) -> Converted:
    count = len(array)
    units, valid = np.zeros(count, np.int64), np.zeros(count, np.bool_)
    wrong, large = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    for row in np.flatnonzero(_valid(array)).tolist():
        text = array[row].as_py()
        if len(text) > EVENT_BYTES_MAX or not _NUMBER.fullmatch(text):
            wrong[row] = True
            continue
        number = _half_even(decimal.Decimal(text), kind.scale)
        large[row] = abs(number) > DECIMAL_UNITS_MAX
        units[row], valid[row] = (0 if large[row] else number), not large[row]
    return Converted(decimal_array(units, valid, kind.scale), _faults(**{WRONG_TYPE: wrong, TOO_LARGE: large}))


def _half_even(number: decimal.Decimal, scale: int) -> int:
    """The units of a finite decimal, exactly; what is far beyond the limit is just beyond it."""
    if not number or number.adjusted() + scale < -2:
        return 0
    if number.adjusted() + scale > 20:
        return 2 * DECIMAL_UNITS_MAX
    return int(number.scaleb(scale, _EXACT).to_integral_value(decimal.ROUND_HALF_EVEN, _EXACT))


def _to_timestamp(kind: AnyType, array: pa.Array) -> Converted:
    if pa.types.is_string(array.type):
        array, broken = _instants_of_text(array)
        faults = _faults(**{WRONG_TYPE: broken})
    elif pa.types.is_timestamp(array.type) and array.type.tz is not None:
        array, faults = _microseconds(array), {}
    elif pa.types.is_integer(array.type):
        whole = _to_int64(kind, array)
        array, faults = whole.array, dict(whole.faults)
    else:
        return _refused(kind, array)
    instants = array.view(pa.int64())
    values = _numpy(instants)
    beyond = (values < EARLIEST_US) | (values > LATEST_US)  # no null is: it counts as 1970
    if beyond.any():
        faults[TOO_LARGE] = faults.get(TOO_LARGE, beyond) | beyond
        instants = _without(instants, {TOO_LARGE: beyond}).array
    return Converted(instants.view(INSTANT), faults)


def _microseconds(array: pa.Array) -> pa.Array:
    """Microseconds of a timestamp of any unit: finer ones are cut off, coarser ones stay within int64."""
    values = array.cast(pa.int64())
    if array.type.unit == "us":
        return values
    number = _numpy(values)
    if array.type.unit == "ns":
        number = number // 1000
    else:
        unit = 1_000_000 if array.type.unit == "s" else 1000
        number = np.clip(number, -(2**62) // unit, 2**62 // unit) * unit
    return pa.array(number, pa.int64(), mask=~_valid(array))


def _instants_of_text(array: pa.Array) -> tuple[pa.Array, Mask]:
    try:
        return array.cast(INSTANT), np.zeros(len(array), np.bool_)
    except pa.ArrowInvalid:
        return _each(pc.replace_substring_regex(array, r"(\.[0-9]{6})[0-9]+", r"\1"), INSTANT)


def _each(array: pa.Array, target: pa.DataType) -> tuple[pa.Array, Mask]:
    """A cast that nulls the values that cannot be cast, found by halving."""
    try:
        return array.cast(target), np.zeros(len(array), np.bool_)
    except pa.ArrowInvalid:
        if len(array) == 1:
            return pa.nulls(1, target), np.ones(1, np.bool_)
    half = len(array) // 2
    (left, left_broken), (right, right_broken) = _each(array[:half], target), _each(array[half:], target)
    return pa.concat_arrays([left, right]), np.concatenate([left_broken, right_broken])


_RULES: dict[type, Callable[[AnyType, pa.Array], Converted]] = {
    StringType: _to_string,
    BoolType: _to_bool,
    Int64Type: _to_int64,
    Float64Type: _to_float64,
    DecimalType: _to_decimal,
    TimestampType: _to_timestamp,
}
