"""The values that travel along the data path.

They are plain slotted classes, written once by their maker and read by everyone after.
Times are microseconds since the epoch, rounded down, and 0 stands for "not known"; log times are milliseconds.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from mypy_extensions import i64

# The class of a span (ATTRIBUTES.md, "Class of a span").
OTHER: Final = 0
LLM: Final = 1
EMBEDDING: Final = 2
AGENT: Final = 3
TOOL: Final = 4
CHAIN: Final = 5
CLASS_NAMES: Final = ("other", "llm", "embedding", "agent", "tool", "chain")

NO_CLAIM: Final = -1
"""`Span.claim_row` of a span that claims no session."""

NO_COST: Final = -1
"""`Span.cost_nano` of a span that reports no cost (0 is a cost)."""

UNKNOWN_MODEL: Final = "unknown"

DEFAULT_PROJECT: Final = "default"


class SessionRef(NamedTuple):
    """Names one session; the same id in two projects is two sessions."""

    project: str
    session_id: str


class Partition(NamedTuple):
    """Names one partition of an input topic; sorts as the list that shards are dealt by."""

    topic: str
    number: int


class Span:
    """One span as the aggregator keeps it; what is not needed for a rollup is gone already.

    Identity is (`trace_id`, `span_id`), 16 and 8 bytes; `parent_id` is 8 bytes or empty.
    `start_us` and `end_us` are 0 where missing or not believable.
    `prompt_tokens` includes cached tokens and `completion_tokens` includes reasoning; on a span of class
    `embedding` both are 0 and `embedding_tokens` holds the usage.
    `written_prompt_tokens` and `written_completion_tokens` are the figures as the producer wrote them.
    """

    __slots__ = (
        "cache_read_tokens",
        "cache_write_tokens",
        "claim_row",
        "claim_session_id",
        "completion_tokens",
        "cost_nano",
        "embedding_tokens",
        "end_us",
        "error",
        "model",
        "name",
        "parent_id",
        "project",
        "prompt_tokens",
        "provider",
        "reasoning_tokens",
        "scope",
        "service",
        "span_class",
        "span_id",
        "start_us",
        "trace_id",
        "user_id",
        "written_completion_tokens",
        "written_prompt_tokens",
    )

    def __init__(
        self,
        *,
        trace_id: bytes,
        span_id: bytes,
        parent_id: bytes = b"",
        name: str = "",
        start_us: i64 = 0,
        end_us: i64 = 0,
        error: bool = False,
        span_class: i64 = OTHER,
        service: str = "",
        scope: str = "",
        project: str = DEFAULT_PROJECT,
        claim_row: i64 = NO_CLAIM,
        claim_session_id: str = "",
        user_id: str = "",
        model: str = "",
        provider: str = "",
        prompt_tokens: i64 = 0,
        completion_tokens: i64 = 0,
        cache_read_tokens: i64 = 0,
        cache_write_tokens: i64 = 0,
        reasoning_tokens: i64 = 0,
        embedding_tokens: i64 = 0,
        written_prompt_tokens: i64 = 0,
        written_completion_tokens: i64 = 0,
        cost_nano: i64 = NO_COST,
    ) -> None:
        self.trace_id: bytes = trace_id
        self.span_id: bytes = span_id
        self.parent_id: bytes = parent_id
        self.name: str = name
        self.start_us: i64 = start_us
        self.end_us: i64 = end_us
        self.error: bool = error
        self.span_class: i64 = span_class
        self.service: str = service
        self.scope: str = scope
        self.project: str = project
        self.claim_row: i64 = claim_row
        self.claim_session_id: str = claim_session_id
        self.user_id: str = user_id
        self.model: str = model
        self.provider: str = provider
        self.prompt_tokens: i64 = prompt_tokens
        self.completion_tokens: i64 = completion_tokens
        self.cache_read_tokens: i64 = cache_read_tokens
        self.cache_write_tokens: i64 = cache_write_tokens
        self.reasoning_tokens: i64 = reasoning_tokens
        self.embedding_tokens: i64 = embedding_tokens
        self.written_prompt_tokens: i64 = written_prompt_tokens
        self.written_completion_tokens: i64 = written_completion_tokens
        self.cost_nano: i64 = cost_nano

    def has_tokens(self) -> bool:
        """Whether some token figure is above zero."""
        return (
            self.prompt_tokens > 0
            or self.completion_tokens > 0
            or self.embedding_tokens > 0
            or self.cache_read_tokens > 0
            or self.cache_write_tokens > 0
            or self.reasoning_tokens > 0
        )


class Decoded:
    """What one record held.

    `spans` are usable ones in wire order.  `ignored` has one (field, reason) per value that was passed over.
    `dropped` has one reason per span that could not be used.  A record that lost something for good has a
    `partial_reason` (label) and `partial_detail` (text) and goes to the dead-letter topic once beside being applied.
    """

    __slots__ = ("dropped", "ignored", "partial_detail", "partial_reason", "spans")

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.ignored: list[tuple[str, str]] = []
        self.dropped: list[str] = []
        self.partial_reason: str = ""
        self.partial_detail: str = ""


class ModelUsage:
    """What one model adds to a trace; `reported_costs` and `priced_costs` as in `TraceRollup`.

    A reported cost of 0 without a call adds nothing, and is not among them.
    """

    __slots__ = (
        "calls",
        "completion_tokens",
        "cost_nano",
        "embedding_tokens",
        "priced_costs",
        "prompt_tokens",
        "reported_costs",
    )

    def __init__(self) -> None:
        self.calls: i64 = 0
        self.prompt_tokens: i64 = 0
        self.completion_tokens: i64 = 0
        self.embedding_tokens: i64 = 0
        self.cost_nano: int = 0
        self.reported_costs: i64 = 0
        self.priced_costs: i64 = 0


class TraceRollup:
    """The figures of one trace (DESIGN sections 3 and 4), computed from all its spans at once.

    `cost_nano` has no upper bound, hence a Python integer.  `reported_costs` and `priced_costs` count the spans that
    added a cost of that kind.  `users` are (user id, start_us, span id) in order of first use, 16 at most;
    `services` are sorted, 16 at most.  `scopes` is the `repeated_calls.scopes_mark` of the calls that counted.
    """

    __slots__ = (
        "cache_read_tokens",
        "cache_write_tokens",
        "completion_tokens",
        "cost_nano",
        "embedding_tokens",
        "ended_us",
        "error_count",
        "llm_span_completion_tokens",
        "llm_span_count",
        "llm_span_prompt_tokens",
        "missing_root",
        "models",
        "name",
        "nested_llm",
        "priced_costs",
        "prompt_tokens",
        "reasoning_tokens",
        "reported_costs",
        "scopes",
        "services",
        "span_count",
        "started_us",
        "unpriced_calls",
        "users",
        "wrapper_usage",
    )

    def __init__(self) -> None:
        self.name: str = ""
        self.started_us: i64 = 0
        self.ended_us: i64 = 0
        self.span_count: i64 = 0
        self.llm_span_count: i64 = 0
        self.error_count: i64 = 0
        self.prompt_tokens: i64 = 0
        self.completion_tokens: i64 = 0
        self.cache_read_tokens: i64 = 0
        self.cache_write_tokens: i64 = 0
        self.reasoning_tokens: i64 = 0
        self.embedding_tokens: i64 = 0
        self.llm_span_prompt_tokens: i64 = 0
        self.llm_span_completion_tokens: i64 = 0
        self.cost_nano: int = 0
        self.reported_costs: i64 = 0
        self.priced_costs: i64 = 0
        self.unpriced_calls: i64 = 0
        self.models: dict[str, ModelUsage] = {}
        self.users: list[tuple[str, int, bytes]] = []
        self.services: list[str] = []
        self.scopes: i64 = 0
        self.wrapper_usage: bool = False
        self.nested_llm: bool = False
        self.missing_root: bool = False


class Counts(NamedTuple):
    """The additive figures of a trace, in the order in which they travel to Redis and are summed there.

    Cost is cut into whole dollars and the nano-dollars that remain (0 to 999,999,999), so that sums stay exact in
    the doubles of Lua; both carry no sign.
    """

    trace_count: int = 0
    span_count: int = 0
    llm_span_count: int = 0
    error_count: int = 0
    error_trace_count: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    embedding_tokens: int = 0
    llm_span_prompt_tokens: int = 0
    llm_span_completion_tokens: int = 0
    unpriced_calls: int = 0
    reported_costs: int = 0
    priced_costs: int = 0
    conflicting_claim_traces: int = 0
    wrapper_usage_traces: int = 0
    nested_llm_traces: int = 0
    missing_root_traces: int = 0
    truncated_traces: int = 0
    cost_whole_usd: int = 0
    cost_rest_nano: int = 0


TIME_LAST: Final = 2**53 - 1
"""Stands for an unknown start where things are ordered by start: it sorts last and is exact in a double."""


class FirstUse(NamedTuple):
    """When a user id was first seen in a trace; ordered by (start, span id)."""

    start_us: int  # TIME_LAST where unknown
    span_id: str  # hex
    user_id: str


class TracePut:
    """One trace rollup on its way into a session, under (trace id, version); `core/put.py` makes it.

    `changed_ms` is the greatest log time among the records that changed the trace.
    A tombstone (the trace left this session) is not `shown`, and everything in it is empty or zero.

    `packed` is what the script reads, a series of MessagePack values: trace id in hex, version, its three contents,
    changed_ms, born_ms, first, started_us, ended_us (0 unknown), the first use of a user or "", the number of models;
    all of `Counts`; and of each model its name, calls, prompt, completion, embedding, whole dollars, nano-dollars,
    reported and priced costs.
    `born_ms` is that of the trace state; `first` (1 or 0) says that the stored state of the trace did not belong to
    this session before this write.
    A use is start_us in 16 digits, span id in 16 characters, user id, in one text.

    `entry` is the JSON text that is stored: the trace's entry of the summary, with the private
    `"_": [distinct spans, replacements, started_us, changed_ms, ended_us, counts, users, services, models, scopes,
    contents]` as its first member.  The first two are the halves of the version, and `contents` are those of
    `TraceState.contents`.  To keep it short, `changed_ms`, `ended_us` and the start of each first use are distances
    from `started_us` (the first one from its milliseconds), in `counts` a negative number stands for as many zeros,
    and the costs of a model are missing from where they are 0.  `scopes` are `TraceRollup.scopes`.
    """

    __slots__ = ("changed_ms", "entry", "packed", "shown", "trace_id", "version")

    def __init__(
        self, *, trace_id: bytes, version: i64, changed_ms: i64, shown: bool, packed: bytes, entry: bytes
    ) -> None:
        self.trace_id: bytes = trace_id
        self.version: i64 = version
        self.changed_ms: i64 = changed_ms
        self.shown: bool = shown
        self.packed: bytes = packed
        self.entry: bytes = entry


class SessionRollup:
    """A session as it is read back for its summary.

    `trace_entries` are the entries as parsed JSON objects with their private part, in no order, tombstones left out.
    `models` maps a name to [calls, prompt, completion, embedding, whole dollars, nano-dollars, reported costs, priced
    costs].
    """

    __slots__ = (
        "close_reason",
        "counts",
        "ended_us",
        "models",
        "opened_ms",
        "ref",
        "revision",
        "services",
        "started_us",
        "trace_entries",
        "truncated",
        "users",
    )

    def __init__(
        self,
        *,
        ref: SessionRef,
        revision: int,
        close_reason: str,
        opened_ms: int,
        started_us: int,
        ended_us: int,
        counts: Counts,
        users: list[FirstUse],
        services: list[str],
        models: dict[str, list[int]],
        trace_entries: list[dict[str, object]],
        truncated: bool,
    ) -> None:
        self.ref = ref
        self.revision = revision
        self.close_reason = close_reason
        self.opened_ms = opened_ms
        self.started_us = started_us
        self.ended_us = ended_us
        self.counts = counts
        self.users = users
        self.services = services
        self.models = models
        self.trace_entries = trace_entries
        self.truncated = truncated
