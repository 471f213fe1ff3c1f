"""The benchmark's input: OpenInference spans of about 1 kB with 12 to 20 attributes, the same for the same seed.

A session is five turns, each turn one trace.  The log is written turn by turn over all sessions, so
that the traces of one session are as far apart as there are sessions: no batch holds two of them, and nothing is won
by coalescing that a live system could not win.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData

PROJECT: Final = "bench"
TURNS: Final = 5
USERS: Final = 1000

_SENTENCE: Final = (
    "the order was shipped on monday and our model suggests two ways to answer this question about your account "
    "please find attached all documents that were retrieved for it while tokens stream in from several providers"
)
_MODELS: Final = (("gpt-4o-2024-08-06", "openai"), ("gpt-4o-mini", "openai"), ("claude-sonnet-4-5", "anthropic"))
_TURN_US: Final = 4_000_000  # how long a turn takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How spans lie in traces and traces in records."""

    traces: int  # per record
    kinds: Sequence[str]  # of a trace's spans, the first is the root

    @property
    def trace_spans(self) -> int:
        return len(self.kinds)

    @property
    def record_spans(self) -> int:
        return self.traces * len(self.kinds)


LARGE: Final = Shape(traces=8, kinds=("CHAIN", "RETRIEVER", "LLM", "TOOL", "LLM", "TOOL", "LLM", "CHAIN"))
SMALL: Final = Shape(traces=1, kinds=("CHAIN", "LLM", "TOOL", "LLM"))
LONE: Final = Shape(traces=64, kinds=("LLM",))
"""For many sessions rather than many spans."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One Kafka message: its timestamp in ms and its value."""

    timestamp_ms: int
    value: bytes


class Traffic:
    """Makes records of one shape.

    `start_ms` is the time of the first record; the records are spread evenly over `span_ms`.
    """

    def __init__(self, shape: Shape, *, sessions: int, turns: int = TURNS, start_ms: int, span_ms: int) -> None:
        self.shape: Final = shape
        self.sessions: Final = sessions
        self.turns: Final = turns
        self._start_ms = start_ms
        self._span_ms = span_ms
        self._random = random.Random(20260101)  # noqa: S311 - the same input each time is what is wanted
        self._prose = " ".join(self._random.choices(_SENTENCE.split(), k=20_000))
        self._ids = [str(uuid.UUID(int=self._random.getrandbits(128), version=4)) for _ in range(sessions)]
        self._users = [f"user-{self._random.randrange(USERS):05d}" for _ in range(sessions)]
        self._resource = Resource(
            attributes=[
                _text("service.name", "support-assistant"),
                _text("openinference.project.name", PROJECT),
                _text("telemetry.sdk.language", "python"),
                _text("telemetry.sdk.version", "1.38.0"),
            ]
        )

    @property
    def traces(self) -> int:
        return self.sessions * self.turns

    @property
    def spans(self) -> int:
        return self.traces * self.shape.trace_spans

    def records(self) -> Iterator[Record]:
        """All records, in the order of the log."""
        count = -(-self.traces // self.shape.traces)
        batch: list[Span] = []
        held = made = 0
        for _ in range(self.turns):
            for session in self._random.sample(range(self.sessions), self.sessions):
                timestamp_ms = self._start_ms + self._span_ms * made // count
                batch += self._trace(session, timestamp_ms * 1000 - _TURN_US)
                held += 1
                if held == self.shape.traces:
                    yield self._record(batch, timestamp_ms)
                    made += 1
                    held, batch = 0, []
        if batch:
            yield self._record(batch, self._start_ms + self._span_ms)

    @staticmethod
    def session_ids(record: Record) -> set[str]:
        """The sessions that a record belongs to."""
        return {
            attribute.value.string_value
            for resource in TracesData.FromString(record.value).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
            for attribute in span.attributes
            if attribute.key == "session.id"
        }

    def _record(self, spans: Sequence[Span], timestamp_ms: int) -> Record:
        scope_spans = ScopeSpans(spans=spans)
        scope_spans.scope.name = "openinference.instrumentation.langchain"
        scope_spans.scope.version = "0.1.53"
        data = TracesData(resource_spans=[ResourceSpans(resource=self._resource, scope_spans=[scope_spans])])
        return Record(timestamp_ms=timestamp_ms, value=data.SerializeToString())

    def _trace(self, session: int, start_us: int) -> list[Span]:
        trace_id = self._random.randbytes(16)
        root_id = self._random.randbytes(8)
        spans: list[Span] = []
        step_us = _TURN_US // len(self.shape.kinds)
        for index, kind in enumerate(self.shape.kinds):
            at_us = start_us + index * step_us
            end_us = at_us + step_us - 1000 if index else start_us + _TURN_US
            span = Span(
                trace_id=trace_id,
                span_id=self._random.randbytes(8) if index else root_id,
                parent_span_id=root_id if index else b"",
                name=_NAMES[kind],
                kind=Span.SPAN_KIND_INTERNAL,
                start_time_unix_nano=at_us * 1000,
                end_time_unix_nano=end_us * 1000,
                attributes=self._attributes(kind, session),
            )
            # One trace in some thirty has a failed tool.
            failed = kind == "TOOL" and self._random.random() < 1 / 60
            span.status.code = span.status.STATUS_CODE_ERROR if failed else span.status.STATUS_CODE_OK
            spans.append(span)
        return spans

    def _attributes(self, kind: str, session: int) -> list[KeyValue]:
        shared = [
            _text("openinference.span.kind", kind),
            _text("session.id", self._ids[session]),
            _text("user.id", self._users[session]),
            _text("metadata", '{"thread": "support", "release": "2026.11", "langgraph_step": 3}'),
            _text("tag.tags", "production"),
        ]
        return (
            shared + {"LLM": self._llm, "TOOL": self._tool, "RETRIEVER": self._retriever, "CHAIN": self._chain}[kind]()
        )

    def _llm(self) -> list[KeyValue]:
        model, provider = self._random.choice(_MODELS)
        prompt, completion = self._random.randrange(200, 4000), self._random.randrange(20, 600)
        return [
            _text("llm.model_name", model),
            _text("llm.provider", provider),
            _text("llm.invocation_parameters", '{"temperature": 0.2, "max_tokens": 1024, "stream": true}'),
            _text("llm.input_messages.0.message.role", "system"),
            _text("llm.input_messages.0.message.content", self._words(20)),
            _text("llm.input_messages.1.message.role", "user"),
            _text("llm.input_messages.1.message.content", self._words(30)),
            _text("llm.output_messages.0.message.role", "assistant"),
            _text("llm.output_messages.0.message.content", self._words(30)),
            _text("input.value", self._words(30)),
            _text("output.value", self._words(30)),
            _number("llm.token_count.prompt", prompt),
            _number("llm.token_count.completion", completion),
            _number("llm.token_count.total", prompt + completion),
            _number("llm.token_count.prompt_details.cache_read", prompt // 2),
        ]

    def _tool(self) -> list[KeyValue]:
        return [
            _text("tool.name", "look_up_order"),
            _text("tool.description", self._words(80)),
            _text("tool.parameters", '{"order": {"type": "string"}, "with_items": {"type": "boolean"}}'),
            _text("tool_call.function.name", "look_up_order"),
            _text("input.value", self._words(140)),
            _text("input.mime_type", "application/json"),
            _text("output.value", self._words(170)),
            _text("output.mime_type", "application/json"),
        ]

    def _retriever(self) -> list[KeyValue]:
        found: list[KeyValue] = []
        for index in range(3):
            at = f"retrieval.documents.{index}.document"
            found += [
                _text(f"{at}.id", f"doc-{self._random.randrange(10_000)}"),
                _text(f"{at}.content", self._words(70)),
                KeyValue(key=f"{at}.score", value=AnyValue(double_value=self._random.random())),
            ]
        return [*found, _text("input.value", self._words(40)), _text("output.mime_type", "application/json")]

    def _chain(self) -> list[KeyValue]:
        return [
            _text("input.value", self._words(210)),
            _text("input.mime_type", "text/plain"),
            _text("output.value", self._words(210)),
            _text("output.mime_type", "text/plain"),
            _text("graph.node.id", "answer"),
            _text("graph.node.parent_id", "route"),
            _text("llm.prompt_template.template", self._words(40)),
            _text("llm.prompt_template.version", "v7"),
        ]

    def _words(self, size: int) -> str:
        at = self._random.randrange(len(self._prose) - size)
        return self._prose[at : at + size]


_NAMES: Final = {
    "CHAIN": "answer_question",
    "RETRIEVER": "search_documents",
    "LLM": "ChatModel",
    "TOOL": "look_up_order",
}


def _text(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


def _number(key: str, value: int) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(int_value=value))
