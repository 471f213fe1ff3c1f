"""What is put on the input topic: the workloads of the property tests with times of today, and records that are wrong.

All traces of all workloads go through one shuffle: a trace lies in pieces in many records and partitions, among others,
and some pieces come twice.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from typing import Final, NamedTuple

from hypothesis import HealthCheck, Phase, given, settings
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from tests.builders import BASE_MS, EMPTY, joined, span_id, to_json, to_protobuf, trace_id
from tests.oracle import partial_reasons
from tests.oracle_tables import PROJECT_ATTRIBUTES
from tests.workloads import Workload, workloads

PARTITIONS: Final = 4
WORKLOADS: Final = 80
_PROJECTS: Final = 8  # so that some sessions have a few traces and some have dozens

UNDECODABLE: Final = {
    b"\xff": "not_protobuf",
    b"not a record": "not_protobuf",
    b"\x0a\x03\x12\x05\x0a": "not_protobuf",
    b'{"resourceSpans": [': "not_json",
    b'{"resourceSpans": [{"scopeSpans": 7}]}': "wrong_type",
    b"[1]": "not_protobuf",
}
"""Values that are no record, and the reason that their dead letters give."""


class Delivery(NamedTuple):
    """One record; `message` is what the oracle is told of it, `reasons` why a dead letter may say that it is wrong."""

    partition: int
    value: bytes | None
    message: TracesData
    reasons: frozenset[str]
    partial: bool = False


@cache
def drawn_workloads() -> tuple[Workload, ...]:
    """The same workloads in every run, from simple to wild."""
    found: list[Workload] = []

    @settings(
        max_examples=WORKLOADS,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(workloads(partitions=PARTITIONS))
    def collect(workload: Workload) -> None:
        found.append(workload)

    collect()
    return tuple(found)


def todays_spans(count: int, now_ms: int) -> list[TracesData]:
    """The spans of so many workloads, `WORKLOADS` at most: one message each, own traces, times shortly before now."""
    moved_ns = (now_ms - 60_000 - BASE_MS) * 1_000_000
    spans: list[TracesData] = []
    for number, workload in enumerate(drawn_workloads()[:count]):
        for original in workload.spans:
            message = TracesData()
            message.CopyFrom(original)
            _move(message, number, moved_ns)
            spans.append(message)
    return spans


def _move(message: TracesData, number: int, moved_ns: int) -> None:
    for resource_spans in message.resource_spans:
        for attribute in resource_spans.resource.attributes:
            if attribute.key in PROJECT_ATTRIBUTES and attribute.value.string_value:
                attribute.value.string_value += f" {number % _PROJECTS}"
        for span in (span for scope in resource_spans.scope_spans for span in scope.spans):
            if len(span.trace_id) == len(trace_id(0)) and any(span.trace_id):
                span.trace_id = trace_id(int.from_bytes(span.trace_id) + number * 1000)
            span.start_time_unix_nano += moved_ns if span.start_time_unix_nano else 0
            span.end_time_unix_nano += moved_ns if span.end_time_unix_nano else 0


def deliveries(spans: Sequence[TracesData], now_ms: int, *, seed: int) -> list[Delivery]:
    """Deal spans to records and partitions, some of them twice, in both encodings, with wrong records in between."""
    dice = random.Random(seed)
    pieces = [*spans, *dice.sample(spans, len(spans) // 4)]
    dice.shuffle(pieces)
    made: list[Delivery] = []
    while pieces:
        size = dice.choice((1, 1, 2, 3, 5, 8))
        message = joined(pieces[:size])
        del pieces[:size]
        value = dice.choice((to_protobuf, to_json))(message)
        reasons = frozenset(partial_reasons(message, now_ms))
        made.append(Delivery(dice.randrange(PARTITIONS), value, message, reasons, partial=True))
    made += [one._replace(partition=dice.randrange(PARTITIONS)) for one in dice.sample(made, len(made) // 8)]
    for value, reason in UNDECODABLE.items():
        made.append(Delivery(dice.randrange(PARTITIONS), value, TracesData(), frozenset({reason})))
    for empty in (*EMPTY, None):
        made.append(Delivery(dice.randrange(PARTITIONS), empty, TracesData(), frozenset()))
    dice.shuffle(made)
    return made


def known_trace(number: int, now_ms: int, *, session: str, spans: int = 2, tokens: int = 10) -> TracesData:
    """A trace of a chain with LLM calls below it, for tests that count."""
    message = TracesData()
    scope = message.resource_spans.add().scope_spans.add()
    for index in range(spans):
        span = scope.spans.add(trace_id=trace_id(number), span_id=span_id(index + 1), name=f"span {index}")
        span.start_time_unix_nano = (now_ms + index) * 1_000_000
        span.end_time_unix_nano = (now_ms + index + 1) * 1_000_000
        if index:
            span.parent_span_id = span_id(1)
            span.attributes.add(key="llm.token_count.prompt").value.int_value = tokens
        span.attributes.add(key="openinference.span.kind").value.string_value = "LLM" if index else "CHAIN"
        span.attributes.add(key="session.id").value.string_value = session
    return message
