"""docs/events.md, made from the catalogue of events."""

from __future__ import annotations

from aggregator.telemetry import Event

_HEAD = """# Log events

Made from `aggregator/telemetry/logs.py` by `make docs`.

Each line is one event: JSON unless on a terminal (`AGGREGATOR_LOG__FORMAT`), with its name in `event`, its `level`, a `timestamp` in UTC, and the fields below.
Names and fields are part of the interface, as metrics are: they change with a major version only.
Lines with a field `logger` come from libraries, and carry a sentence instead of a name.
No event carries what was said to a model or by it; which of them can name a session is in [security.md](security.md#personal-data).

| event | level | meaning | fields |
|---|---|---|---|
"""  # noqa: E501 - a sentence is a line


def page() -> str:
    """The whole document."""
    rows = []
    for event in Event:
        fields = ", ".join(f"`{field}`" for field in event.fields)
        rows.append(f"| `{event}` | {' or '.join(event.levels)} | {event.meaning} | {fields} |".replace("|  |", "| |"))
    return _HEAD + "\n".join(rows) + "\n"
