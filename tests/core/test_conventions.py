"""The table of attributes, row by row, against expectations written down here by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from aggregator.core.conventions import Conventions
from aggregator.core.decode import decode, decode_reference
from aggregator.core.model import AGENT, CHAIN, EMBEDDING, LLM, NO_CLAIM, NO_COST, OTHER, TOOL, Decoded, Span
from tests.builders import record, span, to_json, to_protobuf

LOG_MS = 1_763_900_000_000
CONVENTIONS = Conventions()

Attributes = Mapping[str, object]

SPAN_FIELDS = (
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


def as_dict(span: Span) -> dict[str, object]:
    return {field: getattr(span, field) for field in SPAN_FIELDS}


def any_value(value: object) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, bytes):
        return AnyValue(bytes_value=value)
    if value is None:
        return AnyValue()
    if isinstance(value, list):
        array = AnyValue()
        array.array_value.values.extend(any_value(element) for element in value)
        return array
    assert isinstance(value, str)
    return AnyValue(string_value=value)


def key_values(attributes: Attributes) -> list[KeyValue]:
    return [KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]


def read(
    attributes: Attributes, resource: Attributes | None = None, scope: str = "", conventions: Conventions = CONVENTIONS
) -> Decoded:
    """Decode one span with these attributes, by the fast decoder and the reference, which must agree."""
    data = TracesData()
    resource_spans = data.resource_spans.add()
    resource_spans.resource.attributes.extend(key_values(resource or {}))
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.name = scope
    span = scope_spans.spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, name="n")
    span.start_time_unix_nano = span.end_time_unix_nano = LOG_MS * 1_000_000
    span.attributes.extend(key_values(attributes))
    record = data.SerializeToString()
    fast = decode(record, log_ms=LOG_MS, conventions=conventions)
    reference = decode_reference(record, log_ms=LOG_MS, conventions=conventions)
    assert [as_dict(span) for span in fast.spans] == [as_dict(span) for span in reference.spans]
    assert fast.ignored == reference.ignored
    assert (fast.partial_reason, fast.partial_detail) == (reference.partial_reason, reference.partial_detail)
    return fast


def span_of(
    attributes: Attributes, resource: Attributes | None = None, scope: str = "", conventions: Conventions = CONVENTIONS
) -> Span:
    (span,) = read(attributes, resource, scope, conventions).spans
    return span


def descending(names: Sequence[str]) -> list[dict[str, str]]:
    """All names with a value each, then without the first, and so on: each time the first one left must win."""
    return [{name: f"of {name}" for name in names[i:]} for i in range(len(names))]


def reversed_(attributes: dict[str, str]) -> dict[str, str]:
    return dict(reversed(attributes.items()))


# --- session id -----------------------------------------------------------------------------------------------------

FIRST_ROW = 32  # of the table: stored in trace states, so it must not move with the operator's attributes
SESSION_IDS = [
    "session.id",
    "langfuse.session.id",
    "traceloop.association.properties.session_id",
    "ai.telemetry.metadata.sessionId",
    "ai.settings.context.sessionId",
    "langsmith.metadata.session_id",
    "langsmith.metadata.thread_id",
    "langsmith.metadata.conversation_id",
    "mlflow.trace.session",
    "gcp.vertex.agent.session_id",
    "langfuse.trace.metadata.langfuse_session_id",
    "langfuse.observation.metadata.langfuse_session_id",
    "gen_ai.conversation.id",
]


def test_too_many_own_session_attributes_are_refused() -> None:
    Conventions(session_id_attributes=[f"my.{n}" for n in range(32)])
    with pytest.raises(ValueError, match="33 own session attributes"):
        Conventions(session_id_attributes=[f"my.{n}" for n in range(33)])


@pytest.mark.parametrize("attributes", descending(SESSION_IDS), ids=SESSION_IDS)
def test_session_id_rows_rank_in_order(attributes: dict[str, str]) -> None:
    first = next(iter(attributes))
    for given in (attributes, reversed_(attributes)):
        span = span_of(given, {"session.id": "of the resource"})
        assert (span.claim_row, span.claim_session_id) == (FIRST_ROW + SESSION_IDS.index(first), f"of {first}")


def test_session_id_of_the_resource_comes_last() -> None:
    span = span_of({}, {"session.id": " s "})
    assert (span.claim_row, span.claim_session_id) == (FIRST_ROW + len(SESSION_IDS), "s")


@pytest.mark.parametrize(
    "attribute",
    ["langsmith.trace.session_id", "langsmith.trace.session_name", "llm.invocation_parameters", "sessionId"],
)
def test_what_only_looks_like_a_session_id(attribute: str) -> None:
    span = span_of({attribute: '{"sessionId": "s"}'})
    assert (span.claim_row, span.claim_session_id) == (NO_CLAIM, "")


def test_operators_session_attributes_go_in_front() -> None:
    conventions = Conventions(session_id_attributes=["my.session", "gen_ai.conversation.id"])
    given = {"session.id": "c", "gen_ai.conversation.id": "b", "my.session": "a"}
    span = span_of(given, conventions=conventions)
    assert (span.claim_row, span.claim_session_id) == (FIRST_ROW - 2, "a")
    del given["my.session"]
    assert span_of(given, conventions=conventions).claim_session_id == "b"
    assert span_of({"session.id": "c"}, conventions=conventions).claim_row == FIRST_ROW, "rows are stored"
    assert span_of({}, {"session.id": "r"}, conventions=conventions).claim_row == FIRST_ROW + len(SESSION_IDS)


@pytest.mark.parametrize("ignored", SESSION_IDS)
def test_an_ignored_session_attribute_makes_no_claim_and_leaves_the_others_their_rows(ignored: str) -> None:
    conventions = Conventions(ignored_attributes=[ignored])
    everything = {name: f"of {name}" for name in SESSION_IDS if name >= ignored}
    left = [name for name in SESSION_IDS if name in everything and name != ignored]
    span = span_of(everything, {"session.id": "r"}, conventions=conventions)
    if left:
        assert (span.claim_row, span.claim_session_id) == (FIRST_ROW + SESSION_IDS.index(left[0]), f"of {left[0]}")
    else:
        assert span.claim_session_id == "r"
    assert read({ignored: "x" * 513}, conventions=conventions).partial_reason == ""


def test_an_ignored_session_id_is_ignored_on_the_resource_as_well() -> None:
    conventions = Conventions(ignored_attributes=["session.id"])
    browser = {"session.id": "browser"}
    assert span_of({}, browser, conventions=conventions).claim_row == NO_CLAIM
    assert span_of(browser, browser, conventions=conventions).claim_row == NO_CLAIM
    assert span_of({"gen_ai.conversation.id": "c"}, browser, conventions=conventions).claim_session_id == "c"
    assert read({}, {"session.id": "x" * 513, "": "no name"}, conventions=conventions).ignored == []
    as_project = Conventions(project_attributes=["session.id"], ignored_attributes=["session.id"])
    span = span_of({}, browser, conventions=as_project)
    assert (span.project, span.claim_row) == ("browser", NO_CLAIM)
    only_on_spans = Conventions(session_id_attributes=["session.id"], ignored_attributes=["session.id"])
    assert span_of({"session.id": "s"}, browser, conventions=only_on_spans).claim_session_id == "s"
    assert span_of({}, browser, conventions=only_on_spans).claim_row == NO_CLAIM
    others = Conventions(ignored_attributes=["langfuse.session.id", "user.id"])
    assert span_of({}, browser, conventions=others).claim_session_id == "browser"


@pytest.mark.parametrize(
    ("value", "session_id"),
    [("  s \t", "s"), (12, "12"), (-7, "-7"), (2**63 - 1, str(2**63 - 1)), (True, "true"), (False, "false")],
)
def test_session_id_as_text(value: object, session_id: str) -> None:
    span = span_of({"session.id": value})
    assert (span.claim_row, span.claim_session_id) == (FIRST_ROW, session_id)


@pytest.mark.parametrize("value", ["", " \n", None, 1.5, b"s", ["s"]])
def test_unusable_session_id_leaves_the_claim_to_the_next_row(value: object) -> None:
    decoded = read({"session.id": value, "gen_ai.conversation.id": "next"})
    assert decoded.spans[0].claim_session_id == "next"
    assert (decoded.ignored, decoded.partial_reason) == ([], "")
    assert span_of({"session.id": value}).claim_row == NO_CLAIM


def test_too_long_session_id_with_another_row() -> None:
    decoded = read({"session.id": "ä" * 257, "langfuse.session.id": " " + "ä" * 256})
    assert decoded.spans[0].claim_session_id == "ä" * 256
    assert decoded.ignored == [("session_id", "too_long")]
    assert decoded.partial_reason == ""


@pytest.mark.parametrize(
    ("attributes", "resource", "count"),
    [
        ({"session.id": "x" * 513}, {}, 1),
        ({}, {"session.id": "x" * 513}, 1),
        ({"session.id": "x" * 513}, {"session.id": "y" * 600}, 2),
    ],
)
def test_too_long_session_id_without_another_makes_the_record_partial(
    attributes: Attributes, resource: Attributes, count: int
) -> None:
    decoded = read(attributes, resource)
    assert decoded.spans[0].claim_row == NO_CLAIM
    assert decoded.ignored == [("session_id", "too_long")] * count
    assert decoded.partial_reason == "session_id_too_long"
    assert decoded.partial_detail == "span 0 ('n'): session id of more than 512 bytes, and no other"


# --- user, project, service, provider -------------------------------------------------------------------------------

USER_IDS = [
    "user.id",
    "langfuse.user.id",
    "traceloop.association.properties.user_id",
    "ai.telemetry.metadata.userId",
    "ai.settings.context.userId",
    "langsmith.metadata.user_id",
    "mlflow.trace.user",
    "enduser.id",
]


@pytest.mark.parametrize("attributes", descending(USER_IDS), ids=USER_IDS)
def test_user_rows_rank_in_order(attributes: dict[str, str]) -> None:
    assert span_of(attributes).user_id == f"of {next(iter(attributes))}"
    assert span_of(reversed_(attributes)).user_id == f"of {next(iter(attributes))}"


@pytest.mark.parametrize(("value", "user_id"), [(" u ", "u"), (3, "3"), (True, "true"), (" ", "next"), (b"u", "next")])
def test_user_id_as_text(value: object, user_id: str) -> None:
    assert span_of({"user.id": value, "enduser.id": "next"}).user_id == user_id


def test_operators_user_attributes_go_in_front() -> None:
    conventions = Conventions(user_attributes=["my.user", "enduser.id"])
    given = {"user.id": "c", "enduser.id": "b", "my.user": "a"}
    assert span_of(given, conventions=conventions).user_id == "a"
    assert span_of({**given, "my.user": " "}, conventions=conventions).user_id == "b"
    assert span_of({"user.id": "c"}, conventions=conventions).user_id == "c"
    assert span_of(given).user_id == "c"


def test_an_ignored_user_attribute_is_not_read_for_the_user_but_for_what_else_it_says() -> None:
    conventions = Conventions(ignored_attributes=["user.id"])
    assert span_of({"user.id": "a", "enduser.id": "b"}, conventions=conventions).user_id == "b"
    assert span_of({"user.id": "a"}, conventions=conventions).user_id == ""
    as_session = Conventions(session_id_attributes=["user.id"], ignored_attributes=["user.id"])
    span = span_of({"user.id": "a", "session.id": "s"}, conventions=as_session)
    assert (span.claim_session_id, span.user_id) == ("a", "")


def test_too_long_user_id_is_ignored() -> None:
    decoded = read({"user.id": "u" * 513, "enduser.id": "next"})
    assert decoded.spans[0].user_id == "next"
    assert decoded.ignored == [("user_id", "too_long")]
    assert decoded.partial_reason == ""
    assert span_of({"user.id": "u" * 513}).user_id == ""


PROJECTS = ["openinference.project.name", "arize.project.name", "model_id"]


@pytest.mark.parametrize("attributes", descending(PROJECTS), ids=PROJECTS)
def test_project_rows_rank_in_order(attributes: dict[str, str]) -> None:
    assert span_of({}, attributes).project == f"of {next(iter(attributes))}"
    assert span_of({}, reversed_(attributes)).project == f"of {next(iter(attributes))}"


def test_project_default_and_operators_list() -> None:
    assert span_of(dict.fromkeys(PROJECTS, "p")).project == "default"
    assert span_of({}, {"openinference.project.name": " ", "model_id": " p "}).project == " p "
    conventions = Conventions(project_attributes=["deployment", "team"])
    assert span_of({}, {"team": "t", "openinference.project.name": "p"}, conventions=conventions).project == "t"
    assert span_of({}, {"openinference.project.name": "p"}, conventions=conventions).project == "default"


def test_service_is_of_the_resource() -> None:
    assert span_of({"service.name": "of the span"}, {"service.name": "chat"}).service == "chat"
    assert span_of({"service.name": "of the span"}).service == ""


PROVIDERS = ["gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system"]


@pytest.mark.parametrize("attributes", descending(PROVIDERS), ids=PROVIDERS)
def test_provider_rows_rank_in_order(attributes: dict[str, str]) -> None:
    assert span_of(attributes).provider == f"of {next(iter(attributes))}"
    assert span_of(reversed_(attributes)).provider == f"of {next(iter(attributes))}"


def test_blank_provider_gives_way() -> None:
    assert span_of({"llm.provider": " ", "llm.system": 5}).provider == ""


def test_names_are_cut() -> None:
    span = span_of(
        {"llm.model_name": "m" * 300, "llm.system": "v" * 300},
        {"service.name": "s" * 300, "model_id": "p" * 300},
        scope="o" * 300,
    )
    assert [span.model, span.provider, span.service, span.project, span.scope] == [c * 256 for c in "mvspo"]


# --- class ----------------------------------------------------------------------------------------------------------

CLASSES = [
    ("openinference.span.kind", "LLM", LLM),
    ("openinference.span.kind", "EMBEDDING", EMBEDDING),
    ("openinference.span.kind", "AGENT", AGENT),
    ("openinference.span.kind", "TOOL", TOOL),
    ("openinference.span.kind", "CHAIN", CHAIN),
    ("openinference.span.kind", "RETRIEVER", OTHER),
    ("openinference.span.kind", "UNKNOWN", OTHER),
    ("gen_ai.operation.name", "chat", LLM),
    ("gen_ai.operation.name", "text_completion", LLM),
    ("gen_ai.operation.name", "generate_content", LLM),
    ("gen_ai.operation.name", "completion", LLM),
    ("gen_ai.operation.name", "generate", LLM),
    ("gen_ai.operation.name", "embeddings", EMBEDDING),
    ("gen_ai.operation.name", "invoke_agent", AGENT),
    ("gen_ai.operation.name", "create_agent", AGENT),
    ("gen_ai.operation.name", "execute_tool", TOOL),
    ("gen_ai.operation.name", "invoke_workflow", CHAIN),
    ("gen_ai.operation.name", "agent_step", CHAIN),
    ("ai.operationId", "ai.generateText.doGenerate", LLM),
    ("ai.operationId", "ai.streamText.doStream", LLM),
    ("ai.operationId", "ai.embedMany.doEmbed", EMBEDDING),
    ("ai.operationId", "ai.embed", EMBEDDING),
    ("ai.operationId", "ai.embedMany", EMBEDDING),
    ("ai.operationId", "ai.toolCall", TOOL),
    ("ai.operationId", "ai.generateText", CHAIN),
    ("langfuse.observation.type", "generation", LLM),
    ("langfuse.observation.type", "embedding", EMBEDDING),
    ("langfuse.observation.type", "agent", AGENT),
    ("langfuse.observation.type", "tool", TOOL),
    ("langfuse.observation.type", "chain", CHAIN),
    ("mlflow.spanType", "LLM", LLM),
    ("mlflow.spanType", "CHAT_MODEL", LLM),
    ("mlflow.spanType", "EMBEDDING", EMBEDDING),
    ("mlflow.spanType", "AGENT", AGENT),
    ("mlflow.spanType", "TOOL", TOOL),
    ("mlflow.spanType", "CHAIN", CHAIN),
    ("langsmith.span.kind", "llm", LLM),
    ("langsmith.span.kind", "tool", TOOL),
    ("langsmith.span.kind", "chain", CHAIN),
    ("traceloop.span.kind", "tool", TOOL),
    ("traceloop.span.kind", "agent", AGENT),
    ("traceloop.span.kind", "workflow", CHAIN),
    ("traceloop.span.kind", "task", CHAIN),
    ("llm.request.type", "chat", LLM),
    ("llm.request.type", "completion", LLM),
    ("llm.request.type", "embedding", EMBEDDING),
]


@pytest.mark.parametrize(("attribute", "value", "span_class"), CLASSES)
def test_class_by_evidence(attribute: str, value: str, span_class: int) -> None:
    for written in (value, value.upper(), value.lower(), f" {value.title()} "):
        assert span_of({attribute: written}).span_class == span_class


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("openinference.span.kind", " "),
        ("openinference.span.kind", 5),
        ("gen_ai.operation.name", ""),
        ("ai.operationId", " "),
        ("langfuse.observation.type", "span"),
        ("mlflow.spanType", "RETRIEVER"),
        ("langsmith.span.kind", "retriever"),
        ("traceloop.span.kind", "unknown"),
    ],
)
def test_evidence_that_says_nothing_falls_through(attribute: str, value: object) -> None:
    assert span_of({attribute: value, "llm.request.type": "embedding"}).span_class == EMBEDDING
    assert span_of({attribute: value}).span_class == OTHER


def test_evidence_ranks_in_order() -> None:
    rows = list(dict.fromkeys(attribute for attribute, _, _ in CLASSES))
    agent = {
        "openinference.span.kind": "AGENT",
        "gen_ai.operation.name": "invoke_agent",
        "ai.operationId": "ai.generateText",
        "langfuse.observation.type": "agent",
        "mlflow.spanType": "AGENT",
        "langsmith.span.kind": "chain",
        "traceloop.span.kind": "agent",
    }
    llm = {"gen_ai.operation.name": "chat", "ai.operationId": ".doStream", "langfuse.observation.type": "generation"}
    llm |= {"mlflow.spanType": "LLM", "langsmith.span.kind": "llm", "traceloop.span.kind": "tool"}
    llm |= {"llm.request.type": "chat"}
    for i, row in enumerate(rows[:-1]):
        later = {name: llm[name] for name in rows[i + 1 :]}
        expected = CHAIN if row in ("ai.operationId", "langsmith.span.kind") else AGENT
        assert span_of({**later, row: agent[row]}).span_class == expected


def test_usage_with_a_model_is_a_call() -> None:
    usage = {"gen_ai.usage.input_tokens": 3}
    assert span_of({**usage, "gen_ai.request.model": "m"}).span_class == LLM
    assert span_of(usage).span_class == OTHER
    assert span_of({"gen_ai.request.model": "m"}).span_class == OTHER
    assert span_of({"gen_ai.usage.input_tokens": "many", "gen_ai.request.model": "m"}).span_class == OTHER
    assert span_of({**usage, "gen_ai.request.model": "m", "traceloop.span.kind": "task"}).span_class == CHAIN


def test_langchain_marks_chat_models_as_agents() -> None:
    message = {"llm.input_messages.0.message.role": "user"}
    given = {"openinference.span.kind": "AGENT", "llm.model_name": "m", **message}
    assert span_of(given).span_class == LLM
    assert span_of({"gen_ai.operation.name": "invoke_agent", "llm.model_name": "m", **message}).span_class == LLM
    assert span_of({**given, "llm.model_name": " "}).span_class == AGENT
    assert span_of({**given, "openinference.span.kind": "CHAIN"}).span_class == CHAIN
    del given["llm.input_messages.0.message.role"]
    for other in ("llm.input_messages", "llm.output_messages.0.message.role", "llm.inputs_messages.0.message.role"):
        assert span_of({**given, other: "x"}).span_class == AGENT
    assert span_of({"openinference.span.kind": "AGENT", "gen_ai.request.model": "m", **message}).span_class == AGENT


# --- usage ----------------------------------------------------------------------------------------------------------

PROMPT, COMPLETION, READ, WRITE, REASONING, TOTAL = "prompt", "completion", "read", "write", "reasoning", "total"

# One list per family, in order; the first prompt and completion names are what the others are tested beside.
FAMILIES: list[list[tuple[str, str]]] = [
    [
        (PROMPT, "llm.token_count.prompt"),
        (COMPLETION, "llm.token_count.completion"),
        (READ, "llm.token_count.prompt_details.cache_read"),
        (WRITE, "llm.token_count.prompt_details.cache_write"),
        (REASONING, "llm.token_count.completion_details.reasoning"),
        (TOTAL, "llm.token_count.total"),
    ],
    [
        (PROMPT, "gen_ai.usage.input_tokens"),
        (PROMPT, "gen_ai.usage.prompt_tokens"),
        (PROMPT, "llm.usage.prompt_tokens"),
        (COMPLETION, "gen_ai.usage.output_tokens"),
        (COMPLETION, "gen_ai.usage.completion_tokens"),
        (COMPLETION, "llm.usage.completion_tokens"),
        (READ, "gen_ai.usage.cache_read.input_tokens"),
        (READ, "gen_ai.usage.cache_read_input_tokens"),
        (READ, "gen_ai.usage.details.cache_read_tokens"),
        (WRITE, "gen_ai.usage.cache_write.input_tokens"),
        (WRITE, "gen_ai.usage.cache_creation.input_tokens"),
        (WRITE, "gen_ai.usage.cache_write_input_tokens"),
        (WRITE, "gen_ai.usage.cache_creation_input_tokens"),
        (WRITE, "gen_ai.usage.details.cache_write_tokens"),
        (REASONING, "gen_ai.usage.reasoning.output_tokens"),
        (REASONING, "gen_ai.usage.reasoning_tokens"),
        (REASONING, "gen_ai.usage.details.reasoning_tokens"),
        (REASONING, "gen_ai.usage.details.thoughts_tokens"),
        (REASONING, "gen_ai.usage.completion_tokens_details.reasoning_tokens"),
        (REASONING, "gen_ai.usage.experimental.reasoning_tokens"),
        (TOTAL, "gen_ai.usage.total_tokens"),
        (TOTAL, "llm.usage.total_tokens"),
    ],
    [
        (PROMPT, "ai.usage.inputTokens"),
        (PROMPT, "ai.usage.promptTokens"),
        (COMPLETION, "ai.usage.outputTokens"),
        (COMPLETION, "ai.usage.completionTokens"),
        (READ, "ai.usage.cachedInputTokens"),
        (READ, "ai.usage.inputTokenDetails.cacheReadTokens"),
        (WRITE, "ai.usage.inputTokenDetails.cacheWriteTokens"),
        (REASONING, "ai.usage.reasoningTokens"),
        (REASONING, "ai.usage.outputTokenDetails.reasoningTokens"),
        (TOTAL, "ai.usage.totalTokens"),
        (TOTAL, "ai.usage.tokens"),
    ],
    [
        (PROMPT, "langfuse.observation.usage_details|input"),
        (PROMPT, "langfuse.observation.usage_details|prompt_tokens"),
        (PROMPT, "langfuse.observation.usage_details|input_tokens"),
        (COMPLETION, "langfuse.observation.usage_details|output"),
        (COMPLETION, "langfuse.observation.usage_details|completion_tokens"),
        (COMPLETION, "langfuse.observation.usage_details|output_tokens"),
        (READ, "langfuse.observation.usage_details|input_cached_tokens"),
        (READ, "langfuse.observation.usage_details|input_cache_read"),
        (READ, "langfuse.observation.usage_details|cache_read_input_tokens"),
        (READ, "langfuse.observation.usage_details|prompt_tokens_details.cached_tokens"),
        (READ, "langfuse.observation.usage_details|input_tokens_details.cached_tokens"),
        (WRITE, "langfuse.observation.usage_details|input_cache_creation"),
        (WRITE, "langfuse.observation.usage_details|cache_creation_input_tokens"),
        (REASONING, "langfuse.observation.usage_details|output_reasoning"),
        (REASONING, "langfuse.observation.usage_details|output_reasoning_tokens"),
        (REASONING, "langfuse.observation.usage_details|completion_tokens_details.reasoning_tokens"),
        (REASONING, "langfuse.observation.usage_details|output_tokens_details.reasoning_tokens"),
        (TOTAL, "langfuse.observation.usage_details|total"),
        (TOTAL, "langfuse.observation.usage_details|total_tokens"),
    ],
    [
        (PROMPT, "mlflow.chat.tokenUsage|input_tokens"),
        (COMPLETION, "mlflow.chat.tokenUsage|output_tokens"),
        (READ, "mlflow.chat.tokenUsage|cache_read_input_tokens"),
        (WRITE, "mlflow.chat.tokenUsage|cache_creation_input_tokens"),
        (TOTAL, "mlflow.chat.tokenUsage|total_tokens"),
    ],
    [
        (PROMPT, "langsmith.metadata.usage_metadata|input_tokens"),
        (COMPLETION, "langsmith.metadata.usage_metadata|output_tokens"),
        (READ, "langsmith.metadata.usage_metadata|input_token_details.cache_read"),
        (WRITE, "langsmith.metadata.usage_metadata|input_token_details.cache_creation"),
        (REASONING, "langsmith.metadata.usage_metadata|output_token_details.reasoning"),
        (TOTAL, "langsmith.metadata.usage_metadata|total_tokens"),
    ],
]
CELLS = [(family, column, name) for family, cells in enumerate(FAMILIES) for column, name in cells]


def usage(figures: Mapping[str, object]) -> dict[str, object]:
    """Attributes for these figures; `attribute|name` is a member of the attribute's JSON text."""
    attributes: dict[str, object] = {}
    documents: dict[str, dict[str, object]] = {}
    for name, value in figures.items():
        attribute, bar, member = name.partition("|")
        if bar:
            documents.setdefault(attribute, {})[member] = value
        else:
            attributes[attribute] = value
    return attributes | {attribute: json.dumps(document) for attribute, document in documents.items()}


def figures(span: Span) -> tuple[int, ...]:
    cache = (span.cache_read_tokens, span.cache_write_tokens)
    return (span.prompt_tokens, span.completion_tokens, *cache, span.reasoning_tokens)


def written(span: Span) -> tuple[int, int]:
    return span.written_prompt_tokens, span.written_completion_tokens


@pytest.mark.parametrize(("family", "column", "name"), CELLS)
def test_usage_cell(family: int, column: str, name: str) -> None:
    if column == TOTAL:
        span = span_of(usage({name: 12}))
        assert (figures(span), written(span)) == ((12, 0, 0, 0, 0), (0, 0))
        return
    base = {FAMILIES[family][0][1]: 100, next(n for c, n in FAMILIES[family] if c == COMPLETION): 50}
    if column == PROMPT:
        base.pop(FAMILIES[family][0][1])
        expected = (7, 50, 0, 0, 0)
    elif column == COMPLETION:
        base.pop(next(n for c, n in FAMILIES[family] if c == COMPLETION))
        expected = (100, 7, 0, 0, 0)
    else:
        expected = (100, 50, 7 * (column == READ), 7 * (column == WRITE), 7 * (column == REASONING))
    span = span_of(usage({**base, name: 7}))
    assert (figures(span), written(span)) == (expected, expected[:2])


@pytest.mark.parametrize("column", [PROMPT, COMPLETION, READ, WRITE, REASONING, TOTAL])
@pytest.mark.parametrize("family", range(len(FAMILIES)))
def test_names_of_a_column_rank_in_order(family: int, column: str) -> None:
    names = [name for c, name in FAMILIES[family] if c == column]
    for i in range(len(names)):
        given: dict[str, object] = {name: 10 + j for j, name in enumerate(names) if j >= i}
        span = span_of(usage(given))
        assert sum(figures(span)) in ((10 + i), 2 * (10 + i))  # details are added to their total


@pytest.mark.parametrize("family", range(len(FAMILIES)))
def test_families_are_never_added(family: int) -> None:
    given = {cells[0][1]: 100 + i for i, cells in enumerate(FAMILIES) if i >= family}
    assert figures(span_of(usage(given))) == (100 + family, 0, 0, 0, 0)


VERCEL_STREAM: dict[str, object] = {  # as AI SDK 6 writes it
    "gen_ai.usage.input_tokens": 4988,
    "gen_ai.usage.output_tokens": 465,
    "ai.usage.inputTokens": 4988,
    "ai.usage.outputTokens": 465,
    "ai.usage.totalTokens": 5453,
    "ai.usage.cachedInputTokens": 256,
    "ai.usage.outputTokenDetails.reasoningTokens": 33,
}


def test_another_family_of_the_same_call_lends_its_details() -> None:
    assert figures(span_of(VERCEL_STREAM)) == (4988, 465, 256, 0, 33)
    third: dict[str, object] = {
        "llm.token_count.prompt": 4988,
        "llm.token_count.completion": 465,
        "llm.token_count.total": 5453,
    }
    assert figures(span_of(third | VERCEL_STREAM)) == (4988, 465, 256, 0, 33)
    langfuse = {"input": 4732, "input_cached_tokens": 256, "output": 432, "output_reasoning": 33, "total": 5453}
    document = {"langfuse.observation.usage_details": json.dumps(langfuse)}
    assert figures(span_of(third | document)) == (4988, 465, 256, 0, 33)


def test_langsmith_tells_details_in_a_document_beside_the_sums() -> None:
    document = {
        "input_tokens": 1864,
        "output_tokens": 149,
        "total_tokens": 2013,
        "input_token_details": {"cache_read": 64},
        "output_token_details": {"reasoning": 9},
    }
    sums: dict[str, object] = {
        "gen_ai.usage.input_tokens": 1864,
        "gen_ai.usage.output_tokens": 149,
        "gen_ai.usage.total_tokens": 2013,
    }
    metadata = {"langsmith.metadata.usage_metadata": json.dumps(document)}
    assert figures(span_of(sums | metadata)) == figures(span_of(metadata)) == (1864, 149, 64, 0, 9)
    assert figures(span_of(sums | {"gen_ai.usage.output_tokens": 148} | metadata)) == (1864, 148, 0, 0, 0)


@pytest.mark.parametrize(
    "other",
    [
        {"ai.usage.inputTokens": 4987},
        {"ai.usage.outputTokens": 464},
        {"ai.usage.inputTokens": None, "ai.usage.outputTokens": None},
        {"gen_ai.usage.input_tokens": 0, "gen_ai.usage.output_tokens": 0, "ai.usage.totalTokens": None}
        | {"ai.usage.inputTokens": 0, "ai.usage.outputTokens": 0},
    ],
)
def test_a_family_of_another_call_lends_nothing(other: dict[str, object]) -> None:
    assert figures(span_of(VERCEL_STREAM | other))[2:] == (0, 0, 0)


def test_each_detail_is_of_the_first_family_that_has_it() -> None:
    genai = {"gen_ai.usage.cache_read.input_tokens": 200, "gen_ai.usage.reasoning_tokens": 0}
    mlflow = {"input_tokens": 4988, "output_tokens": 465, "cache_read_input_tokens": 1}
    document = {"mlflow.chat.tokenUsage": json.dumps(mlflow | {"cache_creation_input_tokens": 9})}
    assert figures(span_of(VERCEL_STREAM | genai | document)) == (4988, 465, 200, 9, 33)


def test_lent_details_are_included_as_the_figures_that_lend_them_say() -> None:
    """Where the total says that they are apart, or the cache is larger than the prompt."""
    genai = {"gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 20}
    apart = {"llm.token_count.prompt": 100, "llm.token_count.completion": 20}
    details = {"gen_ai.usage.cache_read_input_tokens": 40, "gen_ai.usage.total_tokens": 160}
    assert figures(span_of(apart | genai | details)) == (140, 20, 40, 0, 0)
    assert written(span_of(apart | genai | details)) == (100, 20)
    assert figures(span_of(apart | genai | {"gen_ai.usage.cache_read_input_tokens": 140})) == (240, 20, 140, 0, 0)


def test_further_families_are_not_looked_at_where_nothing_is_missing() -> None:
    whole = {
        "llm.token_count.prompt": 100,
        "llm.token_count.completion": 20,
        "llm.token_count.prompt_details.cache_read": 3,
        "llm.token_count.prompt_details.cache_write": 2,
        "llm.token_count.completion_details.reasoning": 1,
    }
    decoded = read(whole | {"gen_ai.usage.input_tokens": "none"})
    assert (figures(decoded.spans[0]), decoded.ignored) == ((100, 20, 3, 2, 1), [])


def test_aggregated_usage_is_a_repeat() -> None:
    assert figures(span_of({"gen_ai.aggregated_usage.input_tokens": 5})) == (0,) * 5


def test_a_family_of_unusable_values_gives_way() -> None:
    decoded = read({"llm.token_count.prompt": -1, "gen_ai.usage.input_tokens": 5})
    assert figures(decoded.spans[0]) == (5, 0, 0, 0, 0)
    assert decoded.ignored == [("usage", "negative")]


def test_details_nested_in_openai_usage() -> None:
    document = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "prompt_tokens_details": {"cached_tokens": 30},
        "completion_tokens_details": {"reasoning_tokens": 20},
    }
    assert figures(span_of({"langfuse.observation.usage_details": json.dumps(document)})) == (100, 50, 30, 0, 20)
    document = {"input_tokens": 100, "output_tokens_details": 5, "input_tokens_details": {"cached_tokens": 30}}
    assert figures(span_of({"langfuse.observation.usage_details": json.dumps(document)})) == (100, 0, 30, 0, 0)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        # exclusive: the total is the sum of all the parts
        ({"input": 10, "output": 5, "total": 15}, (10, 5, 0, 0, 0)),
        (
            {"input": 10, "input_cached_tokens": 90, "output": 5, "output_reasoning": 7, "total": 112},
            (100, 12, 90, 0, 7),
        ),
        ({"input_audio": 10, "cache_x": 5, "output_text": 4, "other": 1, "total": 20}, (15, 4, 0, 0, 0)),
        ({"input": 10, "output": 5, "comment": "no figure", "total": 15}, (10, 5, 0, 0, 0)),
        ({"input_tokens": 10, "output_tokens": 5, "total": 15}, (10, 5, 0, 0, 0)),
        # as they are
        ({"input": 100, "input_cached_tokens": 90, "output": 5, "total": 105}, (100, 5, 90, 0, 0)),
        ({"input": 10, "output": 5, "total": 15, "total_tokens": 15}, (10, 5, 0, 0, 0)),
        ({"input": 10, "output": 5, "total_tokens": 15}, (10, 5, 0, 0, 0)),
        ({"total": 0}, (0, 0, 0, 0, 0)),
    ],
)
def test_langfuse_keys_are_open(document: dict[str, object], expected: tuple[int, ...]) -> None:
    decoded = read({"langfuse.observation.usage_details": json.dumps(document)})
    assert (figures(decoded.spans[0]), written(decoded.spans[0])) == (expected, expected[:2])
    assert decoded.ignored == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [  # prompt, completion, read, write, reasoning, total → inclusive
        ((10, 5, 30, 20, 0, None), (60, 5, 30, 20, 0)),  # more cache than prompt
        ((100, 5, 30, 20, 0, 155), (150, 5, 30, 20, 0)),  # the total holds the cache beside the prompt
        ((100, 5, 30, 20, 3, 158), (150, 8, 30, 20, 3)),  # … and the reasoning beside the completion
        ((100, 5, 30, 20, 3, 105), (100, 5, 30, 20, 3)),  # inclusive already
        ((100, 5, 30, 20, 3, 155), (150, 5, 30, 20, 3)),
        ((100, 5, 30, 20, 3, 108), (100, 8, 30, 20, 3)),
        ((100, 5, 30, 20, 3, 999), (100, 5, 30, 20, 3)),  # a total that tells nothing
        ((100, 5, 30, 20, 3, 50), (100, 5, 30, 20, 3)),
        ((100, 5, 0, 0, 6, None), (100, 11, 0, 0, 6)),  # more reasoning than completion
        ((100, 5, 0, 0, 3, 108), (100, 8, 0, 0, 3)),
        ((100, 5, 100, 0, 5, None), (100, 5, 100, 0, 5)),
        ((100, 5, 0, 0, 0, 105), (100, 5, 0, 0, 0)),
        ((None, 5, None, None, None, 90), (0, 5, 0, 0, 0)),  # a total without one of its parts
        ((None, None, 40, None, None, 90), (90, 0, 40, 0, 0)),
    ],
)
def test_inclusive_totals(given: tuple[int | None, ...], expected: tuple[int, ...]) -> None:
    names = [
        next(name for c, name in FAMILIES[0] if c == column)
        for column in (PROMPT, COMPLETION, READ, WRITE, REASONING, TOTAL)
    ]
    span = span_of({name: value for name, value in zip(names, given, strict=True) if value is not None})
    assert figures(span) == expected
    assert written(span) == (given[0] or 0, given[1] or 0)


def test_old_names_beside_newer_ones() -> None:
    """OpenLLMetry's Anthropic instrumentation up to 0.47: the prompt, with cache, under its old name."""
    old = {
        "gen_ai.usage.prompt_tokens": 120,
        "gen_ai.usage.completion_tokens": 30,
        "llm.usage.total_tokens": 150,
        "gen_ai.usage.cache_read_input_tokens": 80,
        "gen_ai.usage.cache_creation_input_tokens": 20,
    }
    assert figures(span_of(old)) == (120, 30, 80, 20, 0)
    assert figures(span_of({**old, "gen_ai.usage.input_tokens": 121})) == (121, 30, 80, 20, 0)


def scope_usage(*given: int | None) -> dict[str, object]:
    """The figures, in the order of `figures` with the total as the sixth, by GenAI's names."""
    names = ("input_tokens", "output_tokens", "cache_read.input_tokens", "cache_creation.input_tokens")
    more = ("reasoning_tokens", "total_tokens")
    pairs = zip((*names, *more), given, strict=True)
    return {f"gen_ai.usage.{name}": value for name, value in pairs if value is not None}


CONVERSE = scope_usage(100, 5, 30, 20, None, 105)
GEMINI = scope_usage(100, 5, 30, None, None, 145)


@pytest.mark.parametrize(
    ("scope", "provider", "attributes", "expected"),
    [
        ("opentelemetry.instrumentation.bedrock", "", CONVERSE, (150, 5, 30, 20, 0)),
        ("opentelemetry.instrumentation.bedrock", "AWS", CONVERSE, (150, 5, 30, 20, 0)),
        ("opentelemetry.instrumentation.anthropic", "", CONVERSE, (100, 5, 30, 20, 0)),
        ("openlit.otel.tracing", "anthropic", CONVERSE, (150, 5, 30, 20, 0)),
        ("openlit.otel.tracing", "aws.bedrock", CONVERSE, (150, 5, 30, 20, 0)),
        ("openlit.otel.tracing", "openai", CONVERSE, (100, 5, 30, 20, 0)),
        ("my.openlit", "anthropic", CONVERSE, (100, 5, 30, 20, 0)),
        ("openinference.instrumentation.agno", "Anthropic", CONVERSE, (150, 5, 30, 20, 0)),
        ("openinference.instrumentation.agno", "AwsBedrock", CONVERSE, (150, 5, 30, 20, 0)),
        ("openinference.instrumentation.agno", "OpenAI", CONVERSE, (100, 5, 30, 20, 0)),
        ("openinference.instrumentation.agno", "", CONVERSE, (100, 5, 30, 20, 0)),
        ("openinference.instrumentation.langchain", "Anthropic", CONVERSE, (100, 5, 30, 20, 0)),
        ("opentelemetry.instrumentation.google_generativeai", "", GEMINI, (100, 45, 30, 0, 40)),
        ("opentelemetry.instrumentation.vertexai", "", GEMINI, (100, 45, 30, 0, 40)),
        ("openinference.instrumentation.vertexai", "", GEMINI, (100, 45, 30, 0, 40)),
        ("openinference.instrumentation.google_genai", "", GEMINI, (100, 5, 30, 0, 0)),
        # No candidate came out of it, and a cache that happens to be as large as the thoughts.
        (
            "opentelemetry.instrumentation.vertexai",
            "",
            scope_usage(100, None, 40, None, None, 140),
            (100, 40, 40, 0, 40),
        ),
        ("opentelemetry.instrumentation.vertexai", "", scope_usage(100, 5, None, None, 7, 112), (100, 12, 0, 0, 7)),
        ("opentelemetry.instrumentation.vertexai", "", scope_usage(100, 12, None, None, 7, 112), (100, 12, 0, 0, 7)),
        (
            "opentelemetry.instrumentation.vertexai",
            "",
            scope_usage(None, None, None, None, None, 112),
            (112, 0, 0, 0, 0),
        ),
    ],
)
def test_scopes_with_habits_of_their_own(
    scope: str, provider: str, attributes: Attributes, expected: tuple[int, ...]
) -> None:
    span = span_of({**attributes, "gen_ai.provider.name": provider}, scope=scope)
    assert figures(span) == expected
    assert written(span) == tuple(attributes.get(f"gen_ai.usage.{name}_tokens", 0) for name in ("input", "output"))


def test_usage_of_an_embedding() -> None:
    embedding: dict[str, object] = {"openinference.span.kind": "EMBEDDING"}
    span = span_of(embedding | {"llm.token_count.prompt": 10, "llm.token_count.prompt_details.cache_read": 20})
    assert (span.embedding_tokens, figures(span)) == (30, (0, 0, 0, 0, 0))
    assert span_of(embedding | {"ai.usage.tokens": 9}).embedding_tokens == 9
    assert span_of({"ai.usage.tokens": 9}).embedding_tokens == 0


@pytest.mark.parametrize(
    ("value", "figure", "reason"),
    [
        (0, 0, None),
        (10**12, 10**12, None),
        (5.0, 5, None),
        ("12", 12, None),
        (" 12\n", 12, None),
        ("+12", 12, None),
        ("-0", 0, None),
        ("0" * 5000 + "7", 7, None),
        (None, 0, None),
        (10**12 + 1, 0, "too_large"),
        (1e300, 0, "too_large"),
        ("9" * 5000, 0, "too_large"),
        ("1000000000001", 0, "too_large"),
        (-1, 0, "negative"),
        (-(2**63), 0, "negative"),
        (-1.5, 0, "negative"),
        (-2.0, 0, "negative"),
        ("-5", 0, "negative"),
        ("-" + "9" * 20, 0, "negative"),
        (1.5, 0, "fractional"),
        (float("nan"), 0, "not_finite"),
        (float("inf"), 0, "not_finite"),
        ("", 0, "invalid"),
        ("12.0", 0, "invalid"),
        ("1e3", 0, "invalid"),
        ("1_0", 0, "invalid"),
        ("१", 0, "invalid"),
        (True, 0, "invalid"),
        (b"5", 0, "invalid"),
        ([5], 0, "invalid"),
    ],
    ids=str,
)
def test_token_values(value: object, figure: int, reason: str | None) -> None:
    decoded = read({"llm.token_count.prompt": value})
    assert figures(decoded.spans[0]) == (figure, 0, 0, 0, 0)
    assert decoded.ignored == ([("usage", reason)] if reason else [])


@pytest.mark.parametrize("attribute", ["langfuse.observation.usage_details", "mlflow.chat.tokenUsage"])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "invalid"),
        ("[]", "invalid"),
        (5, "invalid"),
        (None, None),
        ('{"input": 1, "x": "' + "ä" * 32_768 + '"}', "too_large"),
        ("{" + " " * 65_536 + "}", "too_large"),
        ("{" + " " * 65_534 + "}", None),
    ],
    ids=str,
)
def test_json_text_of_usage(attribute: str, text: object, reason: str | None) -> None:
    decoded = read({attribute: text})
    assert figures(decoded.spans[0]) == (0,) * 5
    assert decoded.ignored == ([("usage", reason)] if reason else [])


# --- cost -----------------------------------------------------------------------------------------------------------

COSTS = [
    "langfuse.observation.cost_details|total",
    "llm.cost.total",
    "gen_ai.usage.cost",
    "gen_ai.cost.total_cost",
    "operation.cost",
]


@pytest.mark.parametrize("first", range(len(COSTS)), ids=COSTS)
def test_cost_rows_rank_in_order(first: int) -> None:
    given: dict[str, object] = {name: 1.5 + i for i, name in enumerate(COSTS) if i >= first}
    assert span_of(usage(given)).cost_nano == 1_500_000_000 + first * 10**9


def test_parts_of_a_cost_are_none() -> None:
    assert span_of({"llm.cost.prompt_details.input": 5.0, "llm.cost.prompt": 1.0}).cost_nano == NO_COST


@pytest.mark.parametrize(
    ("value", "nano", "reason"),
    [
        (0, 0, None),
        (0.0, 0, None),
        (-0.0, 0, None),
        (2, 2_000_000_000, None),
        (0.0123, 12_300_000, None),
        (0.1 + 0.2, 300_000_000, None),
        (0.0000000005, 0, None),  # half to even
        (0.0000000015, 2, None),
        (0.0000000019, 2, None),
        (0.0000000025, 2, None),
        (0.00000000250000001, 3, None),
        (123456.789012345, 123_456_789_012_345, None),
        (10**6, 10**15, None),
        (1e6, 10**15, None),
        ("0.5", 500_000_000, None),
        (" +1.5e-3 ", 1_500_000, None),
        (".5", 500_000_000, None),
        ("5.", 5_000_000_000, None),
        ("1e-999999999", 0, None),
        ("0.00000000050000000000000000000000000000000000001", 1, None),
        (None, NO_COST, None),
        (-0.1, NO_COST, "negative"),
        (-1, NO_COST, "negative"),
        ("-1", NO_COST, "negative"),
        (1000000.1, NO_COST, "too_large"),
        ("1e999999999", NO_COST, "too_large"),
        (float("nan"), NO_COST, "not_finite"),
        (float("-inf"), NO_COST, "not_finite"),
        ("NaN", NO_COST, "not_finite"),
        ("-Infinity", NO_COST, "not_finite"),
        ("", NO_COST, "invalid"),
        ("1_0", NO_COST, "invalid"),
        ("$1", NO_COST, "invalid"),
        (True, NO_COST, "invalid"),
        (b"1", NO_COST, "invalid"),
    ],
    ids=str,
)
def test_cost_values(value: object, nano: int, reason: str | None) -> None:
    decoded = read({"llm.cost.total": value, "llm.token_count.prompt": 1})
    assert decoded.spans[0].cost_nano == nano
    assert decoded.ignored == ([("cost", reason)] if reason else [])


ONE_TOKEN = {"gen_ai.usage.input_tokens": 1}
COSTLESS = {"langfuse.observation.cost_details": '{"input": 0, "output": 0, "total": 0}'}


@pytest.mark.parametrize(
    ("scope", "attributes", "nano"),
    [
        # as Langfuse writes of a generation that failed
        ("langfuse-sdk", COSTLESS, NO_COST),
        ("langfuse-sdk", COSTLESS | {"gen_ai.usage.input_tokens": 0}, NO_COST),
        ("langfuse-sdk", COSTLESS | ONE_TOKEN, 0),
        ("langfuse-sdk", COSTLESS | {"gen_ai.usage.cache_read.input_tokens": 1}, 0),
        ("", COSTLESS | ONE_TOKEN | {"gen_ai.operation.name": "embeddings"}, 0),
        # as OpenLIT writes where it knows no price
        ("openlit.instrumentation.openai", ONE_TOKEN | {"gen_ai.usage.cost": 0}, NO_COST),
        ("openlit.instrumentation.openai", ONE_TOKEN | {"gen_ai.usage.cost": 1e-9}, 1),
        ("my.openlit", ONE_TOKEN | {"gen_ai.usage.cost": 0}, 0),
        # a cost without tokens, as of a tool
        ("", {"llm.cost.total": 1e-9}, 1),
    ],
)
def test_a_cost_of_zero_that_says_nothing(scope: str, attributes: Attributes, nano: int) -> None:
    assert span_of(attributes, scope=scope).cost_nano == nano


@pytest.mark.parametrize(
    ("text", "nano", "reason"),
    [
        ('{"total": 0.5, "input": 0.4}', 500_000_000, None),
        ('{"total": "0.5"}', 500_000_000, None),
        ('{"input": 0.4}', 7, None),
        ('{"total": null}', 7, None),
        ('{"total": -1}', 7, "negative"),
        ("0.5", 7, "invalid"),
        (0.5, 7, "invalid"),
        ('{"total": 1' + " " * 65_536 + "}", 7, "too_large"),
    ],
    ids=str,
)
def test_json_text_of_cost(text: object, nano: int, reason: str | None) -> None:
    decoded = read({"langfuse.observation.cost_details": text, "operation.cost": 7e-9})
    assert decoded.spans[0].cost_nano == nano
    assert decoded.ignored == ([("cost", reason)] if reason else [])


# --- model ----------------------------------------------------------------------------------------------------------

MODELS = [
    "gen_ai.response.model",
    "llm.model_name",
    "gen_ai.request.model",
    "llm.response.model_name",
    "llm.request.model_name",
    "ai.model.id",
    "mlflow.llm.model",
    "langfuse.observation.model.name",
    "embedding.model_name",
]


@pytest.mark.parametrize("attributes", descending(MODELS), ids=MODELS)
def test_model_rows_rank_in_order(attributes: dict[str, str]) -> None:
    assert span_of(attributes).model == f"of {next(iter(attributes))}"
    assert span_of(reversed_(attributes)).model == f"of {next(iter(attributes))}"


def test_model_of_openinference_usage() -> None:
    given: dict[str, object] = {"gen_ai.response.model": "a", "llm.model_name": "b"}
    assert span_of(given | {"llm.token_count.prompt": 1}).model == "b"
    assert span_of(given | {"gen_ai.usage.input_tokens": 1}).model == "a"
    assert span_of({"gen_ai.response.model": "a", "llm.token_count.prompt": 1}).model == "a"


@pytest.mark.parametrize("value", ["", " ", 4, None, b"m", ["m"]])
def test_model_that_is_no_name(value: object) -> None:
    assert span_of({"gen_ai.response.model": value, "ai.model.id": " m "}).model == " m "
    assert span_of({"gen_ai.response.model": value}).model == ""


def test_mlflow_model_is_json_text_in_any_scope() -> None:
    assert span_of({"mlflow.llm.model": '"gpt"'}).model == "gpt"
    assert span_of({"mlflow.llm.model": 5, "embedding.model_name": '"e"'}).model == '"e"'


# --- MLflow's JSON text, placeholders -------------------------------------------------------------------------------


def test_mlflow_writes_json_text() -> None:
    given = {
        "session.id": '"s-1"',
        "user.id": '"u\\u00e9"',
        "mlflow.spanType": '"CHAT_MODEL"',
        "llm.system": '"openai"',
        "mlflow.chat.tokenUsage": '{"input_tokens": 5, "output_tokens": 2}',
        "llm.cost.total": '"0.5"',
    }
    span = span_of(given, {"service.name": '"svc"'}, scope="mlflow.tracing.fluent")
    assert (span.claim_session_id, span.user_id, span.span_class) == ("s-1", "ué", LLM)
    assert (span.provider, span.cost_nano, figures(span)) == ("openai", 500_000_000, (5, 2, 0, 0, 0))
    assert span.service == '"svc"'
    elsewhere = span_of(given, scope="my.mlflow")
    assert (elsewhere.claim_session_id, elsewhere.span_class) == ('"s-1"', OTHER)


@pytest.mark.parametrize("text", ['"', '"open', 'open"', '"a"b"', '"\\ud800"', "5", '""', '" "'])
def test_what_is_no_json_literal_stays(text: str) -> None:
    expected = "next" if text in ('""', '" "') else text
    assert span_of({"session.id": text, "gen_ai.conversation.id": "next"}, scope="mlflow").claim_session_id == expected


def test_placeholders_are_left_out() -> None:
    decoded = read({"logfire.span_type": "pending_span", "session.id": "x" * 600})
    assert decoded.spans == []
    assert decoded.ignored == [("span", "placeholder")]
    assert (decoded.dropped, decoded.partial_reason) == ([], "")
    assert span_of({"logfire.span_type": "span"}).name == "n"


def test_what_a_worker_traces_of_itself_is_left_out() -> None:
    """By its resource alone, in both encodings and by the reference; other resources of the record count."""
    message = record([span(1, {"session.id": "s"})], resource={"session_aggregator.own_spans": True})
    message.resource_spans.extend(record([span(2, {"session.id": "s"})]).resource_spans)
    for data, how in (
        (to_protobuf(message), decode),
        (to_json(message), decode),
        (to_protobuf(message), decode_reference),
    ):
        decoded = how(data, log_ms=LOG_MS, conventions=CONVENTIONS)
        assert [one.span_id[-1] for one in decoded.spans] == [2]
        assert decoded.ignored == [("span", "own")]
