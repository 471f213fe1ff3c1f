"""What one span says, read from the official message: the reading half of the oracle (see `tests.oracle`).

Written from DESIGN.md and ATTRIBUTES.md alone; it is slow and plain on purpose and shares no code with the package.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status, TracesData

from tests.oracle_tables import (
    CACHE_APART_SCOPES,
    CLAIM_ROWS,
    COST_ATTRIBUTES,
    DOCUMENT_FAMILIES,
    GENAI_OPERATIONS,
    LANGFUSE_COLUMNS,
    MODEL_ATTRIBUTES,
    NAMED_CLASSES,
    OPENINFERENCE_KINDS,
    PLAIN_FAMILIES,
    PROJECT_ATTRIBUTES,
    PROVIDER_ATTRIBUTES,
    REASONING_IN_TOTAL_SCOPES,
    USER_ATTRIBUTES,
    ZERO_IS_NO_COST_SCOPES,
)

Plain = str | bool | int | float | None
"""A value that can mean something; arrays, maps, bytes and unset values are None."""

Attributes = Mapping[str, Plain]

DAY_US = 24 * 3600 * 1_000_000
MAX_TOKENS = 10**12
MAX_COST_USD = 10**6
MAX_ID_BYTES = 512
MAX_JSON_BYTES = 65_536
MAX_TEXT = 256

BAD_ID = "bad_id"


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Token figures of one span; the written ones are as the producer reported prompt and completion."""

    prompt: int = 0
    completion: int = 0
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0
    embedding: int = 0
    written_prompt: int = 0
    written_completion: int = 0

    @property
    def has_any(self) -> bool:
        figures = (self.prompt, self.completion, self.cache_read, self.cache_write, self.reasoning, self.embedding)
        return max(figures) > 0


@dataclass(frozen=True, kw_only=True)
class SpanRead:
    """One span as the documents read it; times in microseconds, 0 unknown; `claim` is (row, session id)."""

    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    name: str
    start_us: int
    end_us: int
    error: bool
    span_class: str
    service: str
    scope: str
    project: str
    claim: tuple[int, str] | None
    user_id: str
    model: str
    usage: Usage
    cost_nano: int | None
    encoding: bytes

    @property
    def has_usage(self) -> bool:
        return self.usage.has_any


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The columns of one attribute family; None where the producer gave no usable value."""

    family: str
    prompt: int | None = None
    completion: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    total: int | None = None
    inclusive: bool = False


def plain_value(value: AnyValue) -> Plain:
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value
    if kind == "bool_value":
        return value.bool_value
    if kind == "int_value":
        return value.int_value
    if kind == "double_value":
        return value.double_value
    return None


def read_attributes(pairs: Sequence[KeyValue], *, unquote: bool = False) -> dict[str, Plain]:
    """Turns attributes into a dictionary; of one key's several values the last stays."""
    found = {pair.key: plain_value(pair.value) for pair in pairs}
    return {key: unquoted(value) for key, value in found.items()} if unquote else found


def unquoted(value: Plain) -> Plain:
    """Gives the content of a JSON string literal, and anything else as it is."""
    if isinstance(value, str) and len(value) >= 2 and value[0] == value[-1] == '"':
        try:
            content = json.loads(value)
        except ValueError:
            return value
        return content if isinstance(content, str) else value
    return value


def token_number(value: object) -> int | None:
    """Gives a usable token figure, or None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        text = value.strip()
        if not re.fullmatch(r"[+-]?[0-9]+", text):
            return None
        value = Decimal(text)
    elif isinstance(value, float):
        value = Decimal(repr(value))
    elif isinstance(value, int):
        value = Decimal(value)
    else:
        return None
    if not value.is_finite() or value < 0 or value > MAX_TOKENS or value != int(value):
        return None
    return int(value)


def cost_number(value: object) -> int | None:
    """Gives a usable cost in nano-dollars, rounded half-even, or None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        text = value.strip()
        if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text):
            return None
        try:
            amount = Decimal(text)
        except InvalidOperation:
            return None
    elif isinstance(value, float):
        amount = Decimal(repr(value))
    elif isinstance(value, int):
        amount = Decimal(value)
    else:
        return None
    if not amount.is_finite() or amount < 0 or amount > MAX_COST_USD:
        return None
    return int((amount * 10**9).to_integral_value(rounding=ROUND_HALF_EVEN))


def json_object(value: Plain) -> dict[str, object] | None:
    """Reads an attribute that holds a JSON object as text."""
    if not isinstance(value, str) or len(value.encode()) > MAX_JSON_BYTES:
        return None
    try:
        content = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def first_number(source: Mapping[str, object], names: Sequence[str]) -> int | None:
    for name in names:
        number = token_number(source.get(name))
        if number is not None:
            return number
    return None


def figures_from(family: str, source: Mapping[str, object], columns: tuple[tuple[str, ...], ...]) -> Figures | None:
    """Reads one family; None where nothing of it is usable."""
    prompt, completion, cache_read, cache_write, reasoning, total = (first_number(source, names) for names in columns)
    if all(number is None for number in (prompt, completion, cache_read, cache_write, reasoning, total)):
        return None
    return Figures(
        family=family,
        prompt=prompt,
        completion=completion,
        cache_read=cache_read,
        cache_write=cache_write,
        reasoning=reasoning,
        total=total,
    )


def with_nested(document: Mapping[str, object]) -> dict[str, object]:
    """The members of a document, and those of objects in it under dotted names."""
    nested = {f"{k}.{k2}": v2 for k, v in document.items() if isinstance(v, dict) for k2, v2 in v.items()}
    return nested | {name: value for name, value in document.items() if value is not None}


def langfuse_figures(value: Plain) -> Figures | None:
    """Reads Langfuse's open set of keys: where `total` is the sum of all others, those exclude one another."""
    details = json_object(value)
    if details is None:
        return None
    figures = figures_from("langfuse", with_nested(details), LANGFUSE_COLUMNS)
    if figures is None:
        return None
    parts = {k: n for k, v in details.items() if k != "total" and (n := token_number(v)) is not None}
    if parts and token_number(details.get("total")) == sum(parts.values()):
        prompt = sum(n for k, n in parts.items() if k.startswith(("input", "cache")))
        completion = sum(n for k, n in parts.items() if k.startswith("output"))
        return replace(figures, prompt=prompt, completion=completion, inclusive=True)
    return figures


def families_told(attributes: Attributes) -> list[Figures]:
    """All families that are present, in order."""
    found = [figures_from(family, attributes, columns) for family, columns in PLAIN_FAMILIES]
    found.append(langfuse_figures(attributes.get("langfuse.observation.usage_details")))
    for name, columns in DOCUMENT_FAMILIES:
        document = json_object(attributes.get(name))
        found.append(None if document is None else figures_from(name, with_nested(document), columns))
    return [figures for figures in found if figures is not None]


def read_figures(attributes: Attributes) -> Figures | None:
    """Takes the first family; details and total that it lacks are those of the first other one of the same call."""
    told = families_told(attributes)
    if not told:
        return None
    first = told[0]
    call = (first.prompt or 0, first.completion or 0)
    same = [one for one in told if any(call) and (one.prompt or 0, one.completion or 0) == call] or [first]
    if first.cache_read and first.cache_write and first.reasoning:
        return first
    return replace(
        first,
        cache_read=next((one.cache_read for one in same if one.cache_read), 0),
        cache_write=next((one.cache_write for one in same if one.cache_write), 0),
        reasoning=next((one.reasoning for one in same if one.reasoning), 0),
        total=next((one.total for one in same if one.total is not None), None),
        inclusive=any(one.inclusive for one in same),
    )


def writes_cache_apart(scope: str, attributes: Attributes) -> bool:
    """Says whether a scope is known to leave cached tokens out of the prompt."""
    provider = text_of(attributes, PROVIDER_ATTRIBUTES, "").lower()
    return any(
        scope.startswith(begin) and (not providers or provider in providers) for begin, providers in CACHE_APART_SCOPES
    )


def normalised(figures: Figures | None, span_class: str, scope: str, attributes: Attributes) -> Usage:
    """Brings the figures of a family to inclusive totals."""
    if figures is None:
        return Usage()
    written_prompt, written_completion = figures.prompt or 0, figures.completion or 0
    prompt, completion, total = written_prompt, written_completion, figures.total
    if figures.prompt is None and figures.completion is None and total is not None:
        prompt, total = total, None
    cache_read, cache_write, reasoning = figures.cache_read or 0, figures.cache_write or 0, figures.reasoning or 0
    cache, plain_sum = cache_read + cache_write, prompt + completion
    without_cache = cache > 0 and total in (plain_sum + cache, plain_sum + cache + reasoning)
    without_reasoning = reasoning > 0 and total in (plain_sum + reasoning, plain_sum + cache + reasoning)
    if not figures.inclusive:
        add_cache = cache > prompt or without_cache or writes_cache_apart(scope, attributes)
        if scope.startswith(REASONING_IN_TOTAL_SCOPES) and reasoning == 0 and total is not None and total > plain_sum:
            reasoning, without_reasoning, add_cache = total - plain_sum, True, False
        add_reasoning = reasoning > completion or without_reasoning
        prompt += cache if add_cache else 0
        completion += reasoning if add_reasoning else 0
    if span_class == "embedding":
        return Usage(embedding=prompt + completion)
    return Usage(
        prompt=prompt,
        completion=completion,
        cache_read=cache_read,
        cache_write=cache_write,
        reasoning=reasoning,
        written_prompt=written_prompt,
        written_completion=written_completion,
    )


def read_cost(attributes: Attributes, usage: Usage, scope: str) -> int | None:
    """The first usable cost; zero says nothing without tokens, and nothing of scopes that write it for unknown."""
    details = json_object(attributes.get("langfuse.observation.cost_details"))
    values = [None if details is None else details.get("total"), *(attributes.get(name) for name in COST_ATTRIBUTES)]
    found = next((cost for value in values if (cost := cost_number(value)) is not None), None)
    means_nothing = not usage.has_any or scope.startswith(ZERO_IS_NO_COST_SCOPES)
    return None if found == 0 and means_nothing else found


def read_model(attributes: Attributes, family: str) -> str:
    names = MODEL_ATTRIBUTES if family != "openinference" else ("llm.model_name", *MODEL_ATTRIBUTES)
    for name in names:
        value = attributes.get(name)
        if name == "mlflow.llm.model":
            value = unquoted(value)
        if isinstance(value, str) and value.strip():
            return value[:MAX_TEXT]
    return ""


def read_class(attributes: Attributes, *, has_figures: bool, model: str) -> str:
    found = class_by_evidence(attributes, has_figures=has_figures, model=model)
    own_model = attributes.get("llm.model_name")
    messages = any(key.startswith("llm.input_messages.") for key in attributes)
    if found == "agent" and isinstance(own_model, str) and own_model.strip() and messages:
        return "llm"
    return found


def class_by_evidence(attributes: Attributes, *, has_figures: bool, model: str) -> str:
    lowered = {k: v.strip().lower() for k, v in attributes.items() if isinstance(v, str)}
    if kind := lowered.get("openinference.span.kind"):
        return OPENINFERENCE_KINDS.get(kind, "other")
    if operation := lowered.get("gen_ai.operation.name"):
        return GENAI_OPERATIONS.get(operation, "chain")
    if operation := lowered.get("ai.operationId"):
        if operation.endswith((".dogenerate", ".dostream")):
            return "llm"
        if operation.endswith(".doembed") or operation in ("ai.embed", "ai.embedmany"):
            return "embedding"
        return "tool" if operation == "ai.toolcall" else "chain"
    for name, classes in NAMED_CLASSES:
        if lowered.get(name) in classes:
            return classes[lowered[name]]
    return "llm" if has_figures and model else "other"


def identifier(value: Plain) -> str | None:
    """Gives a session or user id as text without white space around it; None where it is no id."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return value.strip() or None if isinstance(value, str) else None


def unusable(text: str) -> str:
    """Says why an id can't be used; "" where it can."""
    if len(text.encode()) > MAX_ID_BYTES:
        return "too_long"
    return "control_characters" if any(unicodedata.category(one) == "Cc" for one in text) else ""


def read_claim(candidates: Sequence[Plain]) -> tuple[tuple[int, str] | None, str]:
    """Gives the claim of the first usable row, and why the first row that was passed over was."""
    passed_over = ""
    for row, value in enumerate(candidates):
        session_id = identifier(value)
        if session_id is None:
            continue
        reason = unusable(session_id)
        if not reason:
            return (row, session_id), passed_over
        passed_over = passed_over or reason
    return None, passed_over


def read_user(attributes: Attributes, names: Sequence[str]) -> str:
    ids = [identifier(attributes.get(name)) for name in names]
    return next((i for i in ids if i is not None and not unusable(i)), "")


def text_of(attributes: Attributes, names: Sequence[str], default: str) -> str:
    values = [attributes.get(name) for name in names]
    return next((v[:MAX_TEXT] for v in values if isinstance(v, str) and v), default)


def usable_id(value: bytes, length: int) -> bool:
    return len(value) == length and any(value)


def known_us(nanoseconds: int, log_ms: int) -> int:
    """Gives a time in microseconds, 0 where it is missing or more than a day after the log time."""
    microseconds = nanoseconds // 1000
    return microseconds if microseconds <= log_ms * 1000 + DAY_US else 0


def read_record(
    message: TracesData,
    log_ms: int,
    *,
    session_id_attributes: Sequence[str] = (),
    project_attributes: Sequence[str] = (),
    user_attributes: Sequence[str] = (),
    ignored_attributes: Sequence[str] = (),
) -> tuple[list[SpanRead], set[str]]:
    """Reads all spans of one record; the set says why it is `partial`, and is empty if it is not."""
    users = [*user_attributes, *(name for name in USER_ATTRIBUTES if name not in ignored_attributes)]
    spans: list[SpanRead] = []
    partial: set[str] = set()
    for resource_spans in message.resource_spans:
        resource = read_attributes(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            scope = scope_spans.scope.name
            for span in scope_spans.spans:
                if not usable_id(span.trace_id, 16) or not usable_id(span.span_id, 8):
                    partial.add(BAD_ID)
                    continue
                attributes = read_attributes(span.attributes, unquote=scope.startswith("mlflow"))
                if attributes.get("logfire.span_type") == "pending_span":
                    continue
                own = [attributes.get(name) for name in session_id_attributes]
                rows = [None if name in ignored_attributes else attributes.get(name) for name in CLAIM_ROWS]
                of_resource = None if "session.id" in ignored_attributes else resource.get("session.id")
                claim, passed_over = read_claim([*own, *rows, of_resource])
                if passed_over and claim is None:
                    partial.add(f"session_id_{passed_over}")
                project = text_of(resource, project_attributes or PROJECT_ATTRIBUTES, "default")
                user_id = read_user(attributes, users)
                spans.append(read_span(span, attributes, resource, scope, project, claim, user_id, log_ms))
    return spans, partial


def read_span(
    span: SpanMessage,
    attributes: Attributes,
    resource: Attributes,
    scope: str,
    project: str,
    claim: tuple[int, str] | None,
    user_id: str,
    log_ms: int,
) -> SpanRead:
    """Reads one span with usable ids."""
    figures = read_figures(attributes)
    model = read_model(attributes, "" if figures is None else figures.family)
    span_class = read_class(attributes, has_figures=figures is not None, model=model)
    parent = span.parent_span_id
    usage = normalised(figures, span_class, scope, attributes)
    return SpanRead(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_id=parent if usable_id(parent, 8) else b"",
        name=span.name[:MAX_TEXT],
        start_us=known_us(span.start_time_unix_nano, log_ms),
        end_us=known_us(span.end_time_unix_nano, log_ms),
        error=span.status.code == Status.STATUS_CODE_ERROR,
        span_class=span_class,
        service=text_of(resource, ("service.name",), ""),
        scope=scope[:MAX_TEXT],
        project=project,
        claim=claim,
        user_id=user_id,
        model=model,
        usage=usage,
        cost_nano=read_cost(attributes, usage, scope),
        encoding=span.SerializeToString(deterministic=True),
    )
