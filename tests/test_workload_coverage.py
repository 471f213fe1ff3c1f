"""The random workloads hold every attribute that is read, and every shape in which producers tell usage."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import Phase, given, settings
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from aggregator.core import conventions as table
from tests.oracle_spans import SpanRead, plain_value, read_record
from tests.oracle_traces import Counted, Tree, count, distinct, flat_price, trace_figures
from tests.workloads import Workload, workloads

pytestmark = pytest.mark.timeout(400)  # the first draws all workloads

LOG_MS = 1_795_000_000_000
EXAMPLES = 400


@pytest.fixture(scope="module")
def gathered() -> list[Workload]:
    """Always the same workloads, some of what the property tests see."""
    found: list[Workload] = []

    @settings(max_examples=EXAMPLES, derandomize=True, database=None, phases=[Phase.generate], deadline=None)
    @given(workloads(max_spans=10))
    def gather(workload: Workload) -> None:
        found.append(workload)

    gather()
    return found


# --- attributes -----------------------------------------------------------------------------------------------------


def written(message: TracesData) -> Iterator[str]:
    """Names of attributes, `name=value` of those that tell a class, `name|member` of JSON text, scopes."""
    documents = {family.document for family in table.USAGE if family.document} | {table.COST[0].attribute}
    for resource_spans in message.resource_spans:
        yield from (f"resource {pair.key}" for pair in resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            yield f"scope {scope_spans.scope.name}"
            for one in scope_spans.spans:
                for pair in one.attributes:
                    yield pair.key
                    value = plain_value(pair.value)
                    if isinstance(value, str):
                        yield f"{pair.key}={value.strip().lower()}"
                    if pair.key in documents and isinstance(value, str):
                        yield from (f"{pair.key}|{member}" for member in members(value))


def members(text: str) -> Iterator[str]:
    """The members of a JSON object, nested ones dotted; MLflow's scopes write it as JSON text once more."""
    try:
        document = json.loads(text)
        document = json.loads(document) if isinstance(document, str) else document
    except ValueError:
        return
    if isinstance(document, dict):
        for name, value in document.items():
            yield name
            if isinstance(value, dict):
                yield from (f"{name}.{inner}" for inner in value)


def wanted() -> set[str]:
    """All that the table reads."""
    names = {*table.SESSION_ID, *table.USER_ID, *table.MODEL, *table.PROVIDER}
    names |= {f"resource {name}" for name in (*table.PROJECT, table.SERVICE, table.RESOURCE_SESSION_ID)}
    names |= {f"{row.attribute}|{row.key}" if row.key else row.attribute for row in table.COST}
    for row in table.CLASS_EVIDENCE:
        names |= {f"{row.attribute}={value}" for value in row.values}
    for family in table.USAGE:
        columns = [name for column in family[:6] for name in column]
        names |= {f"{family.document}|{name}" if family.document else name for name in columns}
    return names | {"=".join(table.PLACEHOLDER)}


def test_every_attribute_that_is_read_is_written(gathered: list[Workload]) -> None:
    found = Counter(name for workload in gathered for message in workload.spans for name in written(message))
    assert {name for name in wanted() if not found[name]} == set()
    scopes = [name.removeprefix("scope ") for name in found if name.startswith("scope ")]
    for habit in table.SCOPE_HABITS:
        assert any(scope.startswith(habit.scope) for scope in scopes), habit
    assert any(scope.startswith(table.JSON_TEXT_SCOPE) for scope in scopes)
    for row in table.CLASS_EVIDENCE:
        for ending, _ in row.endings:
            assert any(name.startswith(f"{row.attribute}=") and name.endswith(ending) for name in found), ending


# --- shapes ---------------------------------------------------------------------------------------------------------


def shapes(tree: Tree, counted: Counted) -> Iterator[str]:
    """What a trace has of the ways in which producers tell usage (ATTRIBUTES.md, "How producers differ")."""
    for span in tree.spans:
        inner = [tree.by_id[span_id] for span_id in tree.below(span)]
        counting = [one for one in inner if one.span_id in counted.counting]
        if span.span_class not in ("llm", "embedding") and span.has_usage:
            yield f"usage on {span.span_class} alone" if span.span_id in counted.counting else "repeated on a parent"
            if span.usage.prompt and not span.usage.completion and counting:
                yield "total only, on a parent"
            if counting and span.usage.prompt > sum(one.usage.prompt for one in counting):
                yield "a parent that has counted over several turns"
        if span.span_class == "llm":
            yield from llm_shapes(tree, counted, span, inner)
        if span.span_class == "embedding" and span.span_id in counted.repeats_one:
            yield "embedding repeated"


def llm_shapes(tree: Tree, counted: Counted, span: SpanRead, inner: list[SpanRead]) -> Iterator[str]:
    nested = [one for one in inner if one.span_class == "llm" and one.has_usage]
    if not span.has_usage:
        yield "llm without tokens above llm" if nested else "llm without tokens"
    elif not inner:
        yield "leaf"
    elif span.span_id in counted.repeats_several:
        yield "sum of several calls"
    elif counted.repeats_one.get(span.span_id) in tree.below(span):
        yield "llm in llm, one call"
    elif nested:
        yield "llm in llm, two calls"
        for one in nested:
            path = tree.path_up(one.span_id)
            between = {tree.by_id[step].span_class for step in path[: path.index(span.span_id)]}
            yield from (f"llm in llm, with {kind} between" for kind in between - {"llm"})
    if span.span_id in counted.repeats_one and counted.repeats_one[span.span_id] not in tree.below(span):
        twin = tree.by_id[counted.repeats_one[span.span_id]]
        yield "twin" if span.usage.completion == twin.usage.completion else "twin but for a token"
    if span.span_id in counted.counting and span.usage.cache_read:
        yield "cache"


SHAPES = {
    "leaf",
    "llm without tokens",  # streaming without usage
    "llm without tokens above llm",  # dspy with litellm underneath
    "llm in llm, one call",  # llama-index with openai, litellm with openai
    "llm in llm, two calls",  # google-adk
    "llm in llm, with other between",  # its agent_run has no attributes
    "llm in llm, with tool between",  # an agent called as a tool
    "llm in llm, with agent between",
    "sum of several calls",
    "twin",
    "twin but for a token",  # OpenLLMetry beside the SDK of Anthropic
    "repeated on a parent",  # smolagents, Vercel
    "a parent that has counted over several turns",  # strands
    "total only, on a parent",  # crewai
    "usage on agent alone",  # claude-agent-sdk
    "usage on chain alone",
    "embedding repeated",
    "cache",
}


def test_every_shape_of_producers_comes_about(gathered: list[Workload]) -> None:
    found: Counter[str] = Counter()
    for workload in gathered:
        traces: dict[bytes, list[SpanRead]] = {}
        for message in workload.spans:
            for one in read_record(message, LOG_MS)[0]:
                traces.setdefault(one.trace_id, []).append(one)
        for spans in traces.values():
            tree = Tree(distinct(spans))
            found.update(set(shapes(tree, count(tree))))
            found.update(outcomes(spans))
    assert {name for name in SHAPES | OUTCOMES if not found[name]} == set()


OUTCOMES = {"reported", "priced", "unpriced", "reported and priced", "no root", "conflict", "unclaimed", "cycle"}


def outcomes(spans: list[SpanRead]) -> Iterator[str]:
    """What else a trace may come to."""
    figures = trace_figures(spans, price=flat_price)
    tree = Tree(distinct(spans))
    cut = {span.span_id for span in tree.spans if span.parent_id in tree.by_id} - tree.parent.keys()
    told = {
        "reported": figures.reported_costs > 0,
        "priced": figures.priced_costs > 0,
        "reported and priced": figures.reported_costs > 0 and figures.priced_costs > 0,
        "unpriced": figures.unpriced_calls > 0,
        "no root": figures.missing_root,
        "conflict": figures.conflicting_claims,
        "unclaimed": figures.session is None,
        "cycle": bool(cut),
    }
    yield from (name for name, holds in told.items() if holds)
