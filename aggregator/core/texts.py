"""Texts as producers write them: names cut to size, JSON literals unquoted."""

from __future__ import annotations

from typing import Final

import orjson

MAX_NAME_CHARACTERS: Final = 256


def name_of(value: object) -> str:
    """A name, cut to size; "" where there is none or only white space."""
    return value[:MAX_NAME_CHARACTERS] if isinstance(value, str) and value.strip() else ""


def first_name(values: list[object], codes: list[int]) -> str:
    """The first name among the values of these codes."""
    for code in codes:
        value = values[code]
        if value is not None:
            name = name_of(value)
            if name:
                return name
    return ""


def unquoted(text: str) -> str:
    """The content of a JSON string literal; any other text as it is."""
    if len(text) > 1 and text.startswith('"') and text.endswith('"'):
        try:
            content: str = orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
        return content
    return text
