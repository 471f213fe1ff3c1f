"""The summary of a session (DESIGN section 7), and how times, durations and costs are written."""

from __future__ import annotations

import json
from typing import Any, Final

from mypy_extensions import i64

from aggregator.core.model import SessionRollup
from aggregator.core.naming import encode_ref
from aggregator.core.repeated_calls import NO_SCOPES, SeenTrace, count_repeated

SCHEMA: Final = "session-summary/1"
NANO: Final = 1_000_000_000
# Positions in the private part of an entry (model.TracePut).
_STARTED: Final = 2
_ENDED: Final = 4
_SCOPES: Final = 9
_DAY_US: Final = 86_400_000_000
_2: Final = [f"{n:02d}" for n in range(100)]
_3: Final = [f"{n:03d}" for n in range(1000)]


def _date(days: i64) -> str:
    """The date of a day number since 1970-01-01 (proleptic Gregorian; H. Hinnant's civil-from-days)."""
    z: i64 = days + 719468
    era: i64 = z // 146097
    doe: i64 = z - era * 146097
    yoe: i64 = (doe - doe // 1460 + doe // 36524 - doe // 146096) // 365
    doy: i64 = doe - (365 * yoe + yoe // 4 - yoe // 100)
    mp: i64 = (5 * doy + 2) // 153
    day: i64 = doy - (153 * mp + 2) // 5 + 1
    month: i64 = mp + 3 if mp < 10 else mp - 9
    year: i64 = yoe + era * 400 + (1 if month <= 2 else 0)
    return f"{int(year):04d}-{int(month):02d}-{int(day):02d}T"


_dates: Final[dict[int, str]] = {}


def rfc3339(time_us: i64) -> str:
    """RFC 3339 in UTC with microseconds, of fixed width, so that texts sort as times do."""
    days: i64 = time_us // _DAY_US
    date = _dates.get(days)
    if date is None:
        if len(_dates) > 64:
            _dates.clear()
        date = _date(days)
        _dates[days] = date
    us: i64 = time_us % _DAY_US
    second: i64 = us // 1_000_000
    us %= 1_000_000
    return f"{date}{_2[second // 3600]}:{_2[second // 60 % 60]}:{_2[second % 60]}.{_3[us // 1000]}{_3[us % 1000]}Z"


def cost_text(whole_usd: int, rest_nano: int) -> str:
    """Decimal dollars with nine places; `rest_nano` may exceed a dollar."""
    return f"{whole_usd + rest_nano // NANO}.{rest_nano % NANO:09d}"


def duration_text(started_us: i64, ended_us: i64) -> str:
    """Milliseconds as a JSON number with what of the microseconds is not zero, `null` where a bound is unknown."""
    if started_us == 0 or ended_us == 0:
        return "null"
    us: i64 = ended_us - started_us
    return str(us // 1000) + ".0" if us % 1000 == 0 else repr(int(us) / 1000)


def cost_source(reported: int, priced: int) -> str:
    """`reported`, `priced`, `mixed` or `none`, from how many spans added a cost of each kind."""
    if reported:
        return "mixed" if priced else "reported"
    return "priced" if priced else "none"


def _shown(entry: dict[str, object]) -> dict[str, object]:
    """An entry as the summary shows it: without its private part."""
    return {name: value for name, value in entry.items() if name != "_"}


def _seen(entry: dict[str, object]) -> SeenTrace:
    private, tokens = _private(entry), entry["tokens"]
    started_us: int = private[_STARTED]
    return SeenTrace(
        started_us,
        started_us + private[_ENDED],
        str(entry["trace_id"]),
        private[_SCOPES] if len(private) > _SCOPES else NO_SCOPES,
        tokens["prompt"] if isinstance(tokens, dict) else 0,
        tokens["completion"] if isinstance(tokens, dict) else 0,
    )


def _private(entry: dict[str, object]) -> Any:
    return entry["_"]


def _duration_ms(started_us: int, ended_us: int) -> float | None:
    return (ended_us - started_us) / 1000 if started_us and ended_us else None


def _entry_order(entry: dict[str, object]) -> tuple[bool, str, str]:
    started_at = entry["started_at"]
    return (started_at is None, str(started_at), str(entry["trace_id"]))


def summary(session: SessionRollup, *, detail: bool = True) -> bytes:
    """The summary as UTF-8 JSON; the same session gives the same bytes, whoever makes it and whenever.

    Without `detail` it leaves out traces and models and says that it is truncated: for a topic that takes no larger
    one.
    """
    counts = session.counts
    models: dict[str, object] = {}
    for name in sorted(session.models):
        calls, prompt, completion, embedding, whole_usd, rest_nano, reported, priced = session.models[name]
        models[name] = {
            "calls": calls,
            "prompt": prompt,
            "completion": completion,
            "embedding": embedding,
            "cost_usd": cost_text(whole_usd, rest_nano),
            "cost_source": cost_source(reported, priced),
        }
    users = [use.user_id for use in session.users]
    key = encode_ref(session.ref)
    document = {
        "schema": SCHEMA,
        "summary_id": f"{key}@{session.revision}",
        "project": session.ref.project,
        "session_id": session.ref.session_id,
        "revision": session.revision,
        "close_reason": session.close_reason,
        "opened_at": rfc3339(session.opened_ms * 1000),
        "started_at": rfc3339(session.started_us) if session.started_us else None,
        "ended_at": rfc3339(session.ended_us) if session.ended_us else None,
        "duration_ms": _duration_ms(session.started_us, session.ended_us),
        "user_id": users[0] if users else None,
        "user_ids": users,
        "trace_count": counts.trace_count,
        "span_count": counts.span_count,
        "llm_span_count": counts.llm_span_count,
        "error_count": counts.error_count,
        "error_trace_count": counts.error_trace_count,
        "tokens": {
            "prompt": counts.prompt_tokens,
            "completion": counts.completion_tokens,
            "total": counts.prompt_tokens + counts.completion_tokens,
            "cache_read": counts.cache_read_tokens,
            "cache_write": counts.cache_write_tokens,
            "reasoning": counts.reasoning_tokens,
            "embedding": counts.embedding_tokens,
        },
        "llm_span_tokens": {
            "prompt": counts.llm_span_prompt_tokens,
            "completion": counts.llm_span_completion_tokens,
            "total": counts.llm_span_prompt_tokens + counts.llm_span_completion_tokens,
        },
        "cost_usd": cost_text(counts.cost_whole_usd, counts.cost_rest_nano),
        "cost_source": cost_source(counts.reported_costs, counts.priced_costs),
        "unpriced_calls": counts.unpriced_calls,
        "models": models if detail else {},
        "services": session.services,
        "traces": [_shown(entry) for entry in sorted(session.trace_entries, key=_entry_order)] if detail else [],
        "flags": {
            "conflicting_claim_traces": counts.conflicting_claim_traces,
            "wrapper_usage_traces": counts.wrapper_usage_traces,
            "nested_llm_traces": counts.nested_llm_traces,
            "missing_root_traces": counts.missing_root_traces,
            "repeated_call_traces": count_repeated([_seen(entry) for entry in session.trace_entries]),
        },
        "truncated": session.truncated or not detail,
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
