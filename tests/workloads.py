"""Random workloads for property tests: what producers of all kinds send, cut into records.

`workloads()` gives a `Workload`: its `spans` are single-span messages (every version of every span once), its
`records` one way of delivering them.  `layouts(spans)` gives further ways: other orders, cuts, duplicates, partitions;
by law 2 all end in the same sessions.  Figures, times, ids and names come from small pools, so that repeats, sums,
twins and conflicts come about by themselves; some are also made on purpose (`echoes`).

What the documents leave open is not generated; where two versions of a span differ, their ends or tokens do.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from tests.builders import BASE_MS, Value, joined, record, span
from tests.oracle_tables import COST_ATTRIBUTES, REASONING_IN_TOTAL_SCOPES
from tests.workload_attributes import (
    CLASS_ATTRIBUTES,
    FAMILIES,
    HOSTILE_COSTS,
    HOSTILE_IDS,
    HOSTILE_TOKENS,
    MODEL_ATTRIBUTES,
    OWN_SESSION_ATTRIBUTE,
    PROJECT_ATTRIBUTES,
    PROVIDER_ATTRIBUTES,
    SESSION_ATTRIBUTES,
    USAGE_PREFIXES,
    USER_ATTRIBUTES,
    Tokens,
    cost_attributes,
    usage_attributes,
)
from tests.workload_shapes import FUTURE_MS, Sketch, calls_within, echoes, fresh_sketches, one_in, token_figures

__all__ = ("OWN_SESSION_ATTRIBUTE", "Record", "Workload", "laid_out", "layouts", "oracle_input", "workloads")

SESSIONS: tuple[Value, ...] = ("s-1", "s-1", "s-2", "a/b é", 7, True, " s-1 ")
PROJECTS = ("", "demo", "p/2")
USERS: tuple[Value, ...] = ("u-1", "u-2", " u-2", "", 3, "x" * 513)
SERVICES = ("", "chat", "search")
PROVIDERS = ("openai", "anthropic", "Anthropic", "aws.bedrock", "AwsBedrock")
COSTS: tuple[Value, ...] = (0, 0.0, 0.25, 0.1, "0.5", " 1e-3 ", 1.5e-9, 2.5e-9, 1, 1_000_000)


class Record(NamedTuple):
    """One record on its way to a partition of the input topic."""

    message: TracesData
    partition: int
    log_ms: int


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Spans, one message each, and one way of delivering them."""

    spans: list[TracesData]
    records: list[Record]


def oracle_input(records: Sequence[Record]) -> list[tuple[TracesData, int]]:
    """Gives records as the oracle takes them."""
    return [(one.message, one.log_ms) for one in records]


def laid_out(
    spans: Sequence[TracesData], rng: random.Random, *, partitions: int = 4, duplicates: bool = True
) -> list[Record]:
    """Shuffles spans, repeats some, cuts them into records, and deals those to partitions.

    Log times rise by a second from record to record; no span is lost.
    """
    deliveries = list(spans)
    if duplicates:
        deliveries += [one for one in spans if rng.random() < 0.2]
    rng.shuffle(deliveries)
    records: list[Record] = []
    while deliveries:
        size = rng.choice((1, 1, 2, 3, 5, 8))
        message = joined(deliveries[:size])
        records.append(Record(message, rng.randrange(partitions), BASE_MS + 1000 * len(records)))
        del deliveries[:size]
    return records


def layouts(
    spans: Sequence[TracesData], *, partitions: int = 4, duplicates: bool = True
) -> st.SearchStrategy[list[Record]]:
    """Gives ways of delivering the same spans; the simplest is one record each, in order, on partition 0."""

    def lay_out(seed: int) -> list[Record]:
        if seed == 0:
            return [Record(one, 0, BASE_MS + 1000 * n) for n, one in enumerate(spans)]
        return laid_out(spans, random.Random(seed), partitions=partitions, duplicates=duplicates)

    return st.integers(0, 2**16).map(lay_out)


@st.composite
def workloads(
    draw: st.DrawFn, *, max_traces: int = 3, max_spans: int = 8, partitions: int = 4, duplicates: bool = True
) -> Workload:
    """Draws the spans of a few traces and one way of delivering them."""
    spans: list[TracesData] = []
    home = draw(st.sampled_from(SESSIONS)), draw(st.sampled_from(PROJECTS))
    for trace in range(1, draw(st.integers(1, max_traces)) + 1):
        spans += draw(traces(trace, home=home, max_spans=max_spans))
    records = draw(layouts(spans, partitions=partitions, duplicates=duplicates))
    return Workload(spans=spans, records=records)


@st.composite
def traces(draw: st.DrawFn, trace: int, *, home: tuple[Value, str], max_spans: int = 8) -> list[TracesData]:
    """Draws all versions of all spans of one trace, which mostly belongs to the session and project `home`."""
    if draw(one_in(3)):
        home = draw(st.sampled_from(SESSIONS)), draw(st.sampled_from(PROJECTS))
    sketches: list[Sketch] = []
    size = draw(st.integers(1, max_spans))
    while len(sketches) < size:
        number = trace * 100 + len(sketches)
        if len(sketches) > 0 and draw(one_in(3)):
            sketches.append(draw(echoes(number, sketches)))
        elif len(sketches) > 0 and draw(one_in(4)):
            sketches += draw(calls_within(number, sketches))
        else:
            sketches.append(draw(fresh_sketches(number, sketches)))
    writer = _Writer(
        draw=draw,
        trace=trace,
        session=home[0],
        project=home[1],
        claimed=not draw(one_in(8)),
    )
    emitted: list[TracesData] = []
    for sketch in sketches:
        emitted += writer.versions(sketch)
    if draw(one_in(6)):
        emitted.append(writer.placeholder(trace * 100 + 90, sketches[0].number))
    if draw(one_in(10)):
        emitted.append(writer.bad_id())
    return emitted


# --- Writing out ------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Writer:
    """Writes the spans of one trace as some producer would."""

    draw: st.DrawFn
    trace: int
    session: Value
    project: str
    claimed: bool

    def versions(self, sketch: Sketch) -> list[TracesData]:
        """Writes a span, and seldom an earlier or later version of it as well."""
        attributes, clean = self.attributes(sketch)
        resource = self.resource()
        made = [self.emitted(sketch, attributes, resource)]
        known_end = sketch.end is not None and sketch.end < FUTURE_MS / 2
        if self.seldom(8) and known_end:  # sent early, with less
            less = attributes[:: self.draw(st.integers(1, 4))]
            made.append(self.emitted(replace(sketch, end=None), less, resource))
        if self.seldom(8) and known_end and sketch.end is not None:  # sent again, with all drawn anew
            again = replace(sketch, end=sketch.end + 5, tokens=self.draw(token_figures()))
            made.append(self.emitted(again, self.attributes(again)[0], self.resource()))
        if self.seldom(8) and clean and sketch.tokens.prompt + sketch.tokens.completion > 0:  # same end, no tokens
            less = [pair for pair in attributes if not pair[0].startswith(USAGE_PREFIXES)]
            made.append(self.emitted(sketch, less, resource))
        return made

    def emitted(self, sketch: Sketch, attributes: list[tuple[str, Value]], resource: dict[str, Value]) -> TracesData:
        name = self.draw(st.sampled_from(("turn", "step", "", "n" * 300)))
        made = span(
            sketch.number,
            self.quoted(attributes) if sketch.scope.startswith("mlflow") else attributes,
            trace=self.trace,
            parent=sketch.parent,
            name=f"{name}{sketch.number}" if name else "",
            start=sketch.start,
            end=sketch.end,
            error=self.seldom(8),
        )
        return record([made], resource=resource, scope=sketch.scope)

    def placeholder(self, number: int, parent: int) -> TracesData:
        """Writes a pending span, with usage and a claim that must not be looked at."""
        attributes: dict[str, Value] = {
            "logfire.span_type": "pending_span",
            "session.id": "pending",
            "openinference.span.kind": "LLM",
            "llm.token_count.prompt": 1000,
        }
        return record([span(number, attributes, trace=self.trace, parent=parent)])

    def bad_id(self) -> TracesData:
        """Writes a span that can't be told from others, or whose trace can't."""
        traces: list[int | bytes] = [0, b"", b"\1" * 8, self.trace]
        trace = self.draw(st.sampled_from(traces))
        bad = span(1, {"session.id": "s-1"}, trace=trace)
        if trace == self.trace:
            bad.span_id = self.draw(st.sampled_from((b"", bytes(8), b"\1" * 7, b"\1" * 16)))
        return record([bad])

    def seldom(self, n: int) -> bool:
        return self.draw(one_in(n))

    def pick(self, pool: Sequence[Value]) -> Value:
        return self.draw(st.sampled_from(pool))

    def quoted(self, attributes: list[tuple[str, Value]]) -> list[tuple[str, Value]]:
        """MLflow writes every text as JSON; text without quotes is taken as it is."""
        if not self.draw(st.booleans()):
            return attributes
        return [(key, json.dumps(value) if isinstance(value, str) else value) for key, value in attributes]

    def resource(self) -> dict[str, Value]:
        resource: dict[str, Value] = {}
        if service := self.draw(st.sampled_from(SERVICES)):
            resource["service.name"] = service
        project = self.draw(st.sampled_from(PROJECTS)) if self.seldom(6) else self.project
        if project or self.seldom(4):  # An empty name is no name.
            resource[self.draw(st.sampled_from(PROJECT_ATTRIBUTES))] = project
        if self.claimed and self.seldom(10):
            resource["session.id"] = self.pick(SESSIONS)
        return resource

    def attributes(self, sketch: Sketch) -> tuple[list[tuple[str, Value]], bool]:
        """Writes all attributes; the flag says that the usage is written so that it is read as sketched."""
        evidence = self.draw(st.sampled_from(CLASS_ATTRIBUTES[sketch.span_class]))
        tokens = sketch.tokens
        if sketch.scope.startswith(REASONING_IN_TOTAL_SCOPES) and not tokens.total_only:
            beside = self.draw(st.sampled_from((0, 4, 9)))
            tokens = replace(tokens, reasoning=0, total=tokens.prompt + tokens.completion + beside)
        usage, clean, family = self.usage(tokens)
        openinference = family == "openinference" and "openinference.span.kind" in evidence
        written: list[tuple[str, Value]] = [
            *evidence.items(),
            *usage.items(),
            *self.model(sketch, openinference=openinference, hazard="llm.input_messages.0.message.role" in evidence),
            *self.cost(),
            *self.claims(),
        ]
        if self.seldom(3) or sketch.scope.startswith(("openlit", "openinference.instrumentation.agno")):
            written.append((self.draw(st.sampled_from(PROVIDER_ATTRIBUTES)), self.pick(PROVIDERS)))
        if self.seldom(3):
            written.append((self.draw(st.sampled_from(USER_ATTRIBUTES)), self.pick(USERS)))
        if written and self.seldom(12):  # A key that occurs twice: the last one stays.
            written.insert(0, (self.draw(st.sampled_from(written))[0], self.pick(("s-2", 10, None))))
        return written, clean

    def usage(self, tokens: Tokens) -> tuple[dict[str, Value], bool, str]:
        if tokens.nothing:
            return {}, False, ""
        family, variant = self.draw(st.sampled_from(FAMILIES)), self.draw(st.integers(0, 5))
        usage = usage_attributes(family, tokens, variant)
        if self.seldom(8):
            key = self.draw(st.sampled_from(sorted(usage)))
            if isinstance(usage[key], int) and not tokens.has_details:
                usage[key] = self.pick(HOSTILE_TOKENS)
                return usage, False, ""
        if self.seldom(5):  # A second family beside it, which is not added, but may tell more of the same call.
            second = self.draw(st.sampled_from(FAMILIES))
            details = self.draw(token_figures())
            same = replace(details, prompt=tokens.prompt, completion=tokens.completion, total_only=False)
            beside = self.draw(st.sampled_from((same, same, details, Tokens(prompt=3, completion=2))))
            usage = usage_attributes(second, beside, variant) | usage
            return usage, False, "openinference" if second == "openinference" else family
        return usage, True, family

    def model(self, sketch: Sketch, *, openinference: bool, hazard: bool) -> list[tuple[str, Value]]:
        """Names a model; the documents leave open which goes first on a half OpenInference span."""
        name = sketch.model
        if hazard:
            return [("llm.model_name", name)]
        if self.seldom(4):
            return []
        if openinference and self.seldom(4):
            return [("gen_ai.response.model", "second"), ("llm.model_name", name)]
        allowed = [one for one in MODEL_ATTRIBUTES if one != "mlflow.llm.model" or sketch.scope.startswith("mlflow")]
        first = self.draw(st.sampled_from(allowed))
        pairs: list[tuple[str, Value]] = [(first, name)]
        if self.seldom(6):
            later = allowed[max(allowed.index(first) + 1, 2) :]
            pairs += [(later[-1], "second")] if later else []
        return pairs

    def cost(self) -> list[tuple[str, Value]]:
        if not self.seldom(3):
            return []
        variant = self.draw(st.integers(0, len(COST_ATTRIBUTES)))
        if self.seldom(5):
            return cost_attributes(variant, self.pick(HOSTILE_COSTS)) + cost_attributes(2, self.pick(COSTS))
        return cost_attributes(variant, self.pick(COSTS))

    def claims(self) -> list[tuple[str, Value]]:
        """Claims the trace's own session, seldom another one, and puts unusable ids before it."""
        if not self.claimed or self.draw(st.booleans()):
            return []
        session = self.pick(SESSIONS) if self.seldom(4) else self.session
        pairs = [(self.draw(st.sampled_from(SESSION_ATTRIBUTES)), session)]
        if self.seldom(5):
            pairs.append((self.draw(st.sampled_from(SESSION_ATTRIBUTES)), self.pick(HOSTILE_IDS)))
        return pairs
