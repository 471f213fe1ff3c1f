"""docs/configuration.md, made from the settings model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, cast

from pydantic import BaseModel

from aggregator.settings import Settings, load_settings, variable

DERIVED: Final = {("session", "late_ttl_s"): "= `AGGREGATOR_SESSION__RETENTION_S`"}
_URLS: Final = {("redis", "url")}
_TYPES: Final = {
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
    "array": "list",
    "string": "text",
}
_BOUNDS: Final = (
    ("exclusiveMinimum", "above {}"), ("minimum", "at least {}"), ("maximum", "at most {}"),
    ("minItems", "at least {} of them"), ("maxItems", "at most {} of them"),
    ("minLength", ""), ("maxLength", "at most {} characters"), ("pattern", "`{}`"),
)  # fmt: skip
_HEAD: Final = """# Configuration

Made from the settings model (`aggregator/settings/groups.py`) by `make docs`.

Settings come from the environment: `AGGREGATOR_<GROUP>__<NAME>`.
A variable that is misspelt or wrong stops the start with one message that lists all of them.
`session-aggregator check` says what the settings lead to.
Lists are comma-separated, an empty variable counts as not set, and `_S` means seconds.

## From files

`AGGREGATOR_SECRETS_DIR` names a directory, as `/run/secrets/session-aggregator`, with one value a file, for any setting.
A file is named `kafka__sasl_password` or `kafka/sasl_password`, in any case, with or without `AGGREGATOR_` before it.
So a Kubernetes Secret with such keys can be mounted whole, and Docker's secrets be given such names.
A variable goes before a file of the same setting; both go before the default.
A file that names no setting stops the start like a misspelt variable.
Names that begin with a dot are passed over, and so is white space around a value.
Files are read once, at the start, and what is in them is never quoted, neither in messages nor in logs.
"""  # noqa: E501 - a sentence is a line


def page() -> str:
    """The whole document."""
    parts = [_HEAD]
    for group, info in Settings.model_fields.items():
        model = cast("type[BaseModel]", info.annotation)
        parts.append(f"\n## {group}\n\n{_line(model.__doc__ or '')}\n\n{_table(group, model)}\n")
    return "".join(parts)


def default(group: str, field: str) -> str:
    """The default of a setting as one would write it into the environment."""
    value = getattr(getattr(load_settings({}), group), field)
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case tuple():
            return ",".join(value)
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def _table(group: str, model: type[BaseModel]) -> str:
    made = model.model_json_schema()
    rows = ["| variable | type | default | meaning | example |", "|---|---|---|---|---|"]
    for name, described in made["properties"].items():
        value = _value(described, made.get("$defs", {}))
        standing = DERIVED.get((group, name)) or _code(default(group, name))
        secret = " Never shown." if value.get("format") == "password" else ""
        examples = _code(str(described["examples"][0])) if "examples" in described else ""
        kind = "URL" if (group, name) in _URLS else _kind(value)
        cells = (_code(variable(group, name)), kind, standing, f"{_line(described['description'])}{secret}", examples)
        rows.append(f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |"))
    return "\n".join(rows)


def _value(described: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a value looks like, whether or not there must be one."""
    if "anyOf" in described:
        described = next(kind for kind in described["anyOf"] if kind.get("type") != "null")
    if "$ref" in described:
        described = definitions[described["$ref"].rpartition("/")[2]]
    if described.get("type") == "array":  # pydantic writes the length of a tuple as that of a text
        return {{"minLength": "minItems", "maxLength": "maxItems"}.get(name, name): v for name, v in described.items()}
    return described


def _kind(value: Mapping[str, Any]) -> str:
    """Type and bounds in words."""
    if "enum" in value:
        return " or ".join(_code(word) for word in value["enum"])
    words = _TYPES[value["type"]]
    words = {"path": "file", "password": "secret"}.get(value.get("format", ""), words)
    bounds = [how.format(_number(value[name])) for name, how in _BOUNDS if name in value and how]
    return ", ".join([words, *bounds])


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _line(text: str) -> str:
    """One line, as it stands in a table."""
    return re.sub(r"\s+", " ", text).strip().replace("|", "\\|")


def _code(text: str) -> str:
    return f"`{text}`" if text else ""
