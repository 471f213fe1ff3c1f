"""From what was read of one span to a `Span`, by the rules of the table in `conventions`.

Every decoder fills a `RawSpan` and hands it to `finish`, so that they differ only in how they read bytes.
"""

from __future__ import annotations

import re
from typing import Final

from mypy_extensions import i64

from . import conventions as table
from .conventions import Conventions
from .figures import Ignored, believable_us
from .model import DEFAULT_PROJECT, Decoded, Span
from .raw import RawSpan, Resource, Scope
from .span_usage import read_call
from .texts import MAX_NAME_CHARACTERS, first_name, name_of, unquoted

FUTURE_MS: Final = 24 * 3600 * 1000
"""How far after its record's log time a span's time is believed."""

MAX_ID_BYTES: Final = 512
TOO_LONG: Final = "too_long"
CONTROL_CHARACTERS: Final = "control_characters"

_KNOWN_IDS: Final = 4096
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")

_NO_TRACE: Final = bytes(16)
_NO_SPAN: Final = bytes(8)


def resource_of(attributes: dict[str, object], conventions: Conventions) -> Resource:
    """What is kept of a resource with these attributes."""
    project = DEFAULT_PROJECT
    for attribute in conventions.project_attributes:
        name = name_of(attributes.get(attribute))
        if name:
            project = name
            break
    session_id = identifier(attributes.get(table.RESOURCE_SESSION_ID)) if conventions.resource_claims else ""
    wrong = wrong_with(session_id)
    service = name_of(attributes.get(table.SERVICE))
    return Resource(service, project, "" if wrong else session_id, wrong, table.OWN_SPANS in attributes)


def scope_of(name: str) -> Scope:
    """The scope of that name."""
    habit = table.NO_HABIT
    for one in table.SCOPE_HABITS:
        if name.startswith(one.scope):
            habit = one
            break
    return Scope(
        name[:MAX_NAME_CHARACTERS],
        json_text=name.startswith(table.JSON_TEXT_SCOPE),
        cache_apart=habit.cache_apart,
        providers=habit.providers,
        rest_is_completion=habit.rest_is_completion,
        zero_is_no_cost=habit.zero_is_no_cost,
    )


def put(raw: RawSpan, conventions: Conventions, code: i64, value: object) -> None:
    """Note a wanted attribute; of one that occurs twice the last counts."""
    if raw.scope.json_text and isinstance(value, str):
        value = unquoted(value)
    raw.put(code, value, conventions.roles[code])


def finish(raw: RawSpan, conventions: Conventions, log_ms: i64, out: Decoded) -> None:
    """Turn a raw span into a `Span` of `out`, or say there why it was left out."""
    if raw.resource.own:  # or each traced batch would come back as the spans of another one
        out.ignored.append(("span", "own"))
        return
    if len(raw.trace_id) != 16 or raw.trace_id == _NO_TRACE:
        _drop(raw, out, "bad_trace_id", raw.trace_id)
        return
    if len(raw.span_id) != 8 or raw.span_id == _NO_SPAN:
        _drop(raw, out, "bad_span_id", raw.span_id)
        return
    if raw.roles & table.HAS_PLACEHOLDER and raw.values[conventions.placeholder] == table.PLACEHOLDER[1]:
        out.ignored.append(("span", "placeholder"))
        return
    parent_id = raw.parent_id
    if parent_id and (len(parent_id) != 8 or parent_id == _NO_SPAN):
        parent_id = b""
    latest_us = (log_ms + FUTURE_MS) * 1000
    span = Span(
        trace_id=raw.trace_id,
        span_id=raw.span_id,
        parent_id=parent_id,
        name=raw.name if len(raw.name) <= MAX_NAME_CHARACTERS else raw.name[:MAX_NAME_CHARACTERS],
        start_us=believable_us(raw.start_ns, latest_us, "start_time", out.ignored),
        end_us=believable_us(raw.end_ns, latest_us, "end_time", out.ignored),
        error=raw.error,
        service=raw.resource.service,
        scope=raw.scope.name,
        project=raw.resource.project,
    )
    _claim(span, raw, conventions, out)
    roles = raw.roles
    if roles & table.HAS_USER:
        span.user_id = _user(raw.values, conventions, out.ignored)
    if roles & table.HAS_PROVIDER:
        span.provider = first_name(raw.values, conventions.provider_codes)
    if roles & ~(table.HAS_CLAIM | table.HAS_USER | table.HAS_PROVIDER):
        read_call(span, raw, conventions, out.ignored)
    out.spans.append(span)


def _drop(raw: RawSpan, out: Decoded, reason: str, wrong: bytes) -> None:
    out.dropped.append(reason)
    kind = "trace id" if reason == "bad_trace_id" else "span id"
    _partial(raw, out, "bad_id", f"{kind} of {len(wrong)} bytes" + (", all zero" if wrong and not any(wrong) else ""))


def _partial(raw: RawSpan, out: Decoded, reason: str, what: str) -> None:
    """Mark the record as partial; the first reason stays."""
    if not out.partial_reason:
        out.partial_reason = reason
        out.partial_detail = f"span {raw.index} ({raw.name[:64]!r}): {what}"


def identifier(value: object) -> str:
    """The text of a session or user id without white space around it, or "" where there is none."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else ""


def wrong_with(text: str) -> str:
    """The reason why this can't be a session or user id, "" where nothing is wrong with it."""
    if len(text) * 4 > MAX_ID_BYTES and len(text.encode()) > MAX_ID_BYTES:
        return TOO_LONG
    return "" if text.isprintable() or _CONTROL.search(text) is None else CONTROL_CHARACTERS


def _claim(span: Span, raw: RawSpan, conventions: Conventions, out: Decoded) -> None:
    """Let the first row with a usable session id claim the span; the resource's comes last."""
    wrong = ""
    if raw.roles & table.HAS_CLAIM:
        for i, code in enumerate(conventions.claim_codes):
            value = raw.values[code]
            if value is not None:
                before = len(out.ignored)
                session_id = _usable_id(value, "session_id", conventions, out.ignored)
                if session_id:
                    span.claim_row = conventions.claim_rows[i]
                    span.claim_session_id = session_id
                    return
                if not wrong and len(out.ignored) > before:
                    wrong = out.ignored[before][1]
    if raw.resource.session_id:
        span.claim_row = conventions.resource_claim_row
        span.claim_session_id = raw.resource.session_id
        return
    if raw.resource.wrong:
        wrong = wrong or raw.resource.wrong
        out.ignored.append(("session_id", raw.resource.wrong))
    if wrong:
        what = f"more than {MAX_ID_BYTES} bytes" if wrong == TOO_LONG else "control characters"
        _partial(raw, out, f"session_id_{wrong}", f"session id of {what}, and no other")


def _user(values: list[object], conventions: Conventions, ignored: Ignored) -> str:
    for code in conventions.user_codes:
        value = values[code]
        if value is not None:
            user_id = _usable_id(value, "user_id", conventions, ignored)
            if user_id:
                return user_id
    return ""


def _usable_id(value: object, field: str, conventions: Conventions, ignored: Ignored) -> str:
    """The session or user id that a value is, "" where it is none; ids are few, and are looked at once."""
    ids = conventions.cache.ids
    if isinstance(value, str):
        known = ids.get(value)
        if known is not None:
            return known
    found = identifier(value)
    if not found:
        return ""
    reason = wrong_with(found)
    if reason:
        ignored.append((field, reason))
        return ""
    if isinstance(value, str) and len(value) <= MAX_ID_BYTES:
        if len(ids) >= _KNOWN_IDS:
            ids.clear()
        ids[value] = found
    return found
