"""Figures and names as people read them.

Ids and names come from whoever sends spans: `harmless` makes them such that a terminal shows them and does not obey.
"""

from __future__ import annotations

import json
import unicodedata
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from pydantic import BaseModel

_SHOWN_AS_CODE: Final = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Categories of characters that steer (escapes, line ends, directions) or that nobody sees."""

_LEAST_SHOWN: Final = Decimal("0.0001")


def harmless(text: str) -> str:
    """The text with what steers a terminal, or can't be seen, written as its code."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_code(char) if unicodedata.category(char) in _SHOWN_AS_CODE else char for char in text)


def _code(char: str) -> str:
    number = ord(char)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def quoted(text: str) -> str:
    """The text as a JSON string with what steers or can't be seen written as its code: exact, and harmless."""
    plain = json.dumps(text, ensure_ascii=False)
    return "".join(json.dumps(char)[1:-1] if unicodedata.category(char) in _SHOWN_AS_CODE else char for char in plain)


def ascii_json(model: BaseModel) -> str:
    """JSON of nothing but printable ASCII: exact for programs, and harmless on a terminal."""
    return json.dumps(model.model_dump(mode="json"), separators=(",", ":"))


def duration(ms: float | None) -> str:
    """In the two largest units."""
    if ms is None:
        return "?"
    if ms < 1000:
        return f"{ms:.0f} ms"
    seconds = ms / 1000
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} m"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours:02d} h"


def dollars(cost: Decimal) -> str:
    """To four decimals; what is smaller is said to be."""
    if 0 < cost < _LEAST_SHOWN:
        return f"<${_LEAST_SHOWN}"
    return f"${cost:,.4f}" if cost < 100 else f"${cost:,.2f}"


def counted(number: int, noun: str) -> str:
    """`1 span`, `2 spans`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def moment(time: datetime | None) -> str:
    """Date and time of day in UTC."""
    return "?" if time is None else f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def ago(time: datetime | None, now: datetime) -> str:
    """How long ago it was."""
    return "?" if time is None else f"{duration(max(0.0, (now - time).total_seconds() * 1000))} ago"
