"""How producers write classes, usage, costs and ids: the attribute side of `tests.workloads`."""

from __future__ import annotations

import json
from dataclasses import dataclass

from tests.builders import Value
from tests.oracle_tables import (
    CLAIM_ROWS,
    COST_ATTRIBUTES,
    GENAI_OPERATIONS,
    MODEL_ATTRIBUTES,
    NAMED_CLASSES,
    PROJECT_ATTRIBUTES,
    PROVIDER_ATTRIBUTES,
    USER_ATTRIBUTES,
)

__all__ = (
    "CLASS_ATTRIBUTES",
    "FAMILIES",
    "HOSTILE_COSTS",
    "HOSTILE_IDS",
    "HOSTILE_TOKENS",
    "MODEL_ATTRIBUTES",
    "OWN_SESSION_ATTRIBUTE",
    "PROJECT_ATTRIBUTES",
    "PROVIDER_ATTRIBUTES",
    "SESSION_ATTRIBUTES",
    "USAGE_PREFIXES",
    "USER_ATTRIBUTES",
    "Tokens",
    "cost_attributes",
    "usage_attributes",
)

OWN_SESSION_ATTRIBUTE = "app.session"
"""Claims only where the operator names it; workloads hold it in any case."""

SESSION_ATTRIBUTES = (*CLAIM_ROWS, "session.id", "session.id", OWN_SESSION_ATTRIBUTE)

HOSTILE_IDS: tuple[Value, ...] = (
    "",
    "  ",
    "\0",
    "s-1\x1b",
    "\x85s\x9f",
    "x" * 513,
    "é" * 257,
    "x" * 512,
    1.5,
    b"s",
    ["s-1"],
    {"a": 1},
    None,
    False,
)
HOSTILE_TOKENS: tuple[Value, ...] = (
    -1,
    1.5,
    float("nan"),
    float("inf"),
    10**12 + 1,
    10**12,
    12.0,
    "12",
    " 12 ",
    "+12",
    "-1",
    "12.0",
    "1e3",
    "abc",
    "0" * 30_000 + "x",
    "",
    True,
    b"1",
    [1],
    None,
)
HOSTILE_COSTS: tuple[Value, ...] = (
    -0.1,
    -1,
    float("nan"),
    float("inf"),
    1_000_000.5,
    "-1",
    "nan",
    "abc",
    "1e99999999999999999999",
    "",
    True,
    [1],
)

USAGE_PREFIXES = (
    "llm.token_count.",
    "gen_ai.usage.",
    "llm.usage.",
    "ai.usage.",
    "langfuse.observation.usage_details",
    "mlflow.chat.tokenUsage",
    "langsmith.metadata.usage_metadata",
)

_ODD_EVIDENCE: dict[str, tuple[dict[str, Value], ...]] = {
    "llm": (
        {"openinference.span.kind": "LLM"},
        {"openinference.span.kind": "LLM"},
        {"openinference.span.kind": " ", "gen_ai.operation.name": "chat"},
        {"openinference.span.kind": "AGENT", "llm.input_messages.0.message.role": "user"},
        {"gen_ai.operation.name": "Text_Completion"},
        {"gen_ai.operation.name": "generate_content"},
        {"ai.operationId": "ai.generateText.doGenerate"},
        {"ai.operationId": "ai.streamText.doStream"},
        {"langfuse.observation.type": "generation"},
        {"langfuse.observation.type": "span", "mlflow.spanType": "CHAT_MODEL"},
        {"langsmith.span.kind": "llm"},
        {"llm.request.type": "chat"},
    ),
    "embedding": (
        {"openinference.span.kind": "embedding"},
        {"gen_ai.operation.name": "embeddings"},
        {"ai.operationId": "ai.embed"},
        {"ai.operationId": "ai.embedMany"},
        {"ai.operationId": "ai.embedMany.doEmbed"},
        {"langfuse.observation.type": "embedding"},
        {"mlflow.spanType": "EMBEDDING"},
        {"llm.request.type": "embedding"},
    ),
    "agent": (
        {"openinference.span.kind": "AGENT"},
        {"gen_ai.operation.name": "invoke_agent"},
        {"langfuse.observation.type": "agent"},
        {"mlflow.spanType": "AGENT"},
        {"traceloop.span.kind": "agent"},
    ),
    "tool": (
        {"openinference.span.kind": "TOOL", "gen_ai.operation.name": "chat"},
        {"gen_ai.operation.name": "execute_tool"},
        {"ai.operationId": "ai.toolCall"},
        {"langfuse.observation.type": "tool"},
        {"mlflow.spanType": "TOOL"},
        {"langsmith.span.kind": "tool"},
        {"traceloop.span.kind": "tool"},
    ),
    "chain": (
        {"openinference.span.kind": "CHAIN"},
        {"gen_ai.operation.name": "agent_step"},
        {"ai.operationId": "ai.generateText"},
        {"langfuse.observation.type": "chain"},
        {"mlflow.spanType": "CHAIN"},
        {"langsmith.span.kind": "chain"},
        {"traceloop.span.kind": "workflow"},
        {"traceloop.span.kind": "task"},
    ),
    "other": (
        {},
        {"openinference.span.kind": "RETRIEVER", "llm.request.type": "chat"},
        {"langsmith.span.kind": "prompt"},
    ),
}


def _evidence(span_class: str) -> tuple[dict[str, Value], ...]:
    """Every single attribute that shows a class, and the odd combinations."""
    tables = (("gen_ai.operation.name", GENAI_OPERATIONS), *NAMED_CLASSES)
    named: list[dict[str, Value]] = [
        {attribute: value} for attribute, values in tables for value, found in values.items() if found == span_class
    ]
    return (*_ODD_EVIDENCE[span_class], *named)


CLASS_ATTRIBUTES = {span_class: _evidence(span_class) for span_class in _ODD_EVIDENCE}
"""Ways to show a class; a span of class `other` becomes `llm` where it has both usage and a model."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Figures that a producer wants to report."""

    prompt: int = 0
    completion: int = 0
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0
    total: int | None = None
    total_only: bool = False

    @property
    def nothing(self) -> bool:
        return not self.total_only and self.prompt + self.completion == 0

    @property
    def has_details(self) -> bool:
        return self.total is not None or self.cache_read + self.cache_write + self.reasoning > 0


# Per family: prompt, completion, cache read, cache write, reasoning, total; each with the names that producers use.
_G, _V, _O = "gen_ai.usage.", "ai.usage.", "llm.token_count."
_NAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    "openinference": (
        (_O + "prompt",),
        (_O + "completion",),
        (_O + "prompt_details.cache_read",),
        (_O + "prompt_details.cache_write",),
        (_O + "completion_details.reasoning",),
        (_O + "total",),
    ),
    "gen_ai": (
        (_G + "input_tokens",),
        (_G + "output_tokens",),
        (_G + "cache_read.input_tokens", _G + "cache_read_input_tokens", _G + "details.cache_read_tokens"),
        (
            _G + "cache_write.input_tokens",
            _G + "cache_creation.input_tokens",
            _G + "cache_write_input_tokens",
            _G + "cache_creation_input_tokens",
            _G + "details.cache_write_tokens",
        ),
        (
            _G + "reasoning.output_tokens",
            _G + "reasoning_tokens",
            _G + "details.reasoning_tokens",
            _G + "details.thoughts_tokens",
            _G + "completion_tokens_details.reasoning_tokens",
            _G + "experimental.reasoning_tokens",
        ),
        (_G + "total_tokens", "llm.usage.total_tokens"),
    ),
    "legacy": (
        (_G + "prompt_tokens", "llm.usage.prompt_tokens"),
        (_G + "completion_tokens", "llm.usage.completion_tokens"),
        (_G + "cache_read_input_tokens", _G + "cache_read.input_tokens"),
        (_G + "cache_creation_input_tokens", _G + "cache_creation.input_tokens"),
        (_G + "reasoning_tokens",),
        ("llm.usage.total_tokens", _G + "total_tokens"),
    ),
    "vercel": (
        (_V + "inputTokens", _V + "promptTokens"),
        (_V + "outputTokens", _V + "completionTokens"),
        (_V + "cachedInputTokens", _V + "inputTokenDetails.cacheReadTokens"),
        (_V + "inputTokenDetails.cacheWriteTokens",),
        (_V + "reasoningTokens", _V + "outputTokenDetails.reasoningTokens"),
        (_V + "totalTokens", _V + "tokens"),
    ),
    "langfuse": (
        ("input",),
        ("output",),
        ("input_cached_tokens", "input_cache_read", "cache_read_input_tokens"),
        ("input_cache_creation", "cache_creation_input_tokens"),
        ("output_reasoning", "output_reasoning_tokens"),
        ("total",),
    ),
    "openai in langfuse": (
        ("prompt_tokens", "input_tokens"),
        ("completion_tokens", "output_tokens"),
        ("prompt_tokens_details.cached_tokens", "input_tokens_details.cached_tokens"),
        (),
        ("completion_tokens_details.reasoning_tokens", "output_tokens_details.reasoning_tokens"),
        ("total_tokens",),
    ),
    "mlflow": (
        ("input_tokens",),
        ("output_tokens",),
        ("cache_read_input_tokens",),
        ("cache_creation_input_tokens",),
        (),
        ("total_tokens",),
    ),
    "langsmith": (
        ("input_tokens",),
        ("output_tokens",),
        ("input_token_details.cache_read",),
        ("input_token_details.cache_creation",),
        ("output_token_details.reasoning",),
        ("total_tokens",),
    ),
}
_JSON_ATTRIBUTES = {
    "langfuse": "langfuse.observation.usage_details",
    "openai in langfuse": "langfuse.observation.usage_details",
    "mlflow": "mlflow.chat.tokenUsage",
    "langsmith": "langsmith.metadata.usage_metadata",
}
FAMILIES = ("openinference", "openinference", "gen_ai", "gen_ai", "langfuse", *_NAMES)


def usage_attributes(family: str, tokens: Tokens, variant: int) -> dict[str, Value]:
    """Writes figures in one family; `variant` picks among its names, and whether details in JSON are nested."""
    parts: tuple[int | None, ...] = (None,) * 5
    if not tokens.total_only:
        details = (tokens.cache_read or None, tokens.cache_write or None, tokens.reasoning or None)
        parts = (tokens.prompt, tokens.completion, *details)
    figures = (*parts, tokens.total)
    written = {
        names[variant % len(names)]: figure
        for names, figure in zip(_NAMES[family], figures, strict=True)
        if names and figure is not None
    }
    if family not in _JSON_ATTRIBUTES:
        return dict(written)
    return {_JSON_ATTRIBUTES[family]: json.dumps(nested(written) if variant >= 2 else written)}


def nested(figures: dict[str, int]) -> dict[str, object]:
    """Turns dotted names into objects."""
    result: dict[str, object] = {}
    for name, figure in figures.items():
        outer, _, inner = name.partition(".")
        within = result.setdefault(outer, {}) if inner else None
        if isinstance(within, dict):
            within[inner] = figure
        else:
            result[name] = figure
    return result


def cost_attributes(variant: int, value: Value) -> list[tuple[str, Value]]:
    """Writes a cost under one of its names, the JSON one included."""
    if variant < len(COST_ATTRIBUTES):
        return [(COST_ATTRIBUTES[variant], value)]
    finite = not isinstance(value, float) or abs(value) < float("inf")
    usable = finite and not isinstance(value, bytes | list)
    return [("langfuse.observation.cost_details", json.dumps({"input": 1, "total": value}) if usable else "{broken")]
