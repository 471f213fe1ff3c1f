"""Numbers as producers write them: token figures, costs and times, each checked and counted where it can't be used.

Every function takes a list to which it appends (field, reason) for a value that it passes over.
"""

from __future__ import annotations

import math
import re
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Final

import orjson
from mypy_extensions import i64

from .model import NO_COST

ABSENT: Final[i64] = -1
"""A token figure that is not there, or not usable."""

MAX_TOKENS: Final = 10**12
MAX_COST_USD: Final = 10**6
MAX_JSON_TEXT_BYTES: Final = 65_536

Ignored = list[tuple[str, str]]

# Possessive, so that a megabyte of zeros and a letter is given up at once.
_INTEGER: Final = re.compile(r"([+-]?)(?=[0-9])0*+([0-9]*+)", re.ASCII)
_DECIMAL: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
_NOT_FINITE: Final = re.compile(r"[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
_NANO: Final = Decimal("1e-9")


def tokens(value: object, ignored: Ignored) -> i64:
    """A token figure from an int, an integral double or decimal integer text; `ABSENT` if there is none."""
    if value is None:
        return ABSENT
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_TOKENS:
        return value
    number = _integral(value)
    if isinstance(number, str):
        ignored.append(("usage", number))
        return ABSENT
    if 0 <= number <= MAX_TOKENS:
        return number
    ignored.append(("usage", "negative" if number < 0 else "too_large"))
    return ABSENT


def _integral(value: object) -> int | str:
    """The integer that a value stands for, or the reason why it is none."""
    if isinstance(value, int):
        return "invalid" if isinstance(value, bool) else value
    if isinstance(value, float):
        if not math.isfinite(value):
            return "not_finite"
        if value != math.floor(value):
            return "negative" if value < 0 else "fractional"
        return int(value)
    match = _INTEGER.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        return "invalid"
    if len(match[2]) > 13:  # not worth parsing, and beyond some length Python would not
        return -1 if match[1] == "-" else MAX_TOKENS + 1
    return int(match[1] + (match[2] or "0"))


def cost_nano(value: object, ignored: Ignored) -> i64:
    """A cost in USD as nano-dollars, rounded half-even from the exact decimal; `NO_COST` if there is none.

    Takes ints, doubles (by their shortest decimal form) and decimal text with fraction and exponent.
    """
    if isinstance(value, float) and 0.0 <= value < 1000.0:
        scaled = value * 1e9
        whole = math.floor(scaled)
        rest = scaled - whole
        # The product is off by less than 0.001: only near one half does the exact decimal decide.
        if rest < 0.49:
            return whole
        if rest > 0.51:
            return whole + 1
    amount = _amount(value)
    if isinstance(amount, str):
        ignored.append(("cost", amount))
        return NO_COST
    if 0 <= amount <= MAX_COST_USD:
        return int(amount.quantize(_NANO, ROUND_HALF_EVEN).scaleb(9))
    ignored.append(("cost", "negative" if amount < 0 else "too_large"))
    return NO_COST


def _amount(value: object) -> Decimal | str:
    """The exact decimal that a value stands for, or the reason why it is none."""
    if isinstance(value, int):
        return "invalid" if isinstance(value, bool) else Decimal(value)
    if isinstance(value, float):
        return Decimal(repr(value)) if math.isfinite(value) else "not_finite"
    if not isinstance(value, str):
        return "invalid"
    text = value.strip()
    if _DECIMAL.fullmatch(text) is not None:
        try:
            return Decimal(text)
        except InvalidOperation:  # an exponent of twenty digits
            return "invalid"
    return "not_finite" if _NOT_FINITE.fullmatch(text) is not None else "invalid"


def json_object(value: object, field: str, ignored: Ignored) -> dict[str, object] | None:
    """The JSON object that an attribute holds as text, or None where it is absent, too long or something else."""
    if value is None:
        return None
    reason = "invalid"
    if isinstance(value, str):
        if len(value) > MAX_JSON_TEXT_BYTES or len(value.encode()) > MAX_JSON_TEXT_BYTES:
            reason = "too_large"
        else:
            try:
                document = orjson.loads(value)
            except orjson.JSONDecodeError:
                document = None
            if isinstance(document, dict):
                return document
    ignored.append((field, reason))
    return None


def json_member(document: dict[str, object], name: str) -> object:
    """The member of that name; where there is none, a dot in the name leads into a nested object."""
    value = document.get(name)
    if value is not None:
        return value
    outer, dot, inner = name.partition(".")
    nested = document.get(outer) if dot else None
    return nested.get(inner) if isinstance(nested, dict) else None


def believable_us(nanoseconds: i64, latest_us: i64, field: str, ignored: Ignored) -> i64:
    """A time in microseconds, rounded down; 0 where it is missing or later than `latest_us`."""
    microseconds = nanoseconds // 1000
    if 0 < microseconds <= latest_us:
        return microseconds
    ignored.append((field, "missing" if microseconds == 0 else "future"))
    return 0
