"""The tables of ATTRIBUTES.md, copied out for the oracle (see `tests.oracle_spans`)."""

from __future__ import annotations

CLAIM_ROWS = (
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
)
USER_ATTRIBUTES = (
    "user.id",
    "langfuse.user.id",
    "traceloop.association.properties.user_id",
    "ai.telemetry.metadata.userId",
    "ai.settings.context.userId",
    "langsmith.metadata.user_id",
    "mlflow.trace.user",
    "enduser.id",
)
PROJECT_ATTRIBUTES = ("openinference.project.name", "arize.project.name", "model_id")
COST_ATTRIBUTES = ("llm.cost.total", "gen_ai.usage.cost", "gen_ai.cost.total_cost", "operation.cost")
MODEL_ATTRIBUTES = (
    "gen_ai.response.model",
    "llm.model_name",
    "gen_ai.request.model",
    "llm.response.model_name",
    "llm.request.model_name",
    "ai.model.id",
    "mlflow.llm.model",
    "langfuse.observation.model.name",
    "embedding.model_name",
)

OPENINFERENCE_KINDS = {"llm": "llm", "embedding": "embedding", "agent": "agent", "tool": "tool", "chain": "chain"}
GENAI_OPERATIONS = {
    "chat": "llm",
    "text_completion": "llm",
    "generate_content": "llm",
    "completion": "llm",
    "generate": "llm",
    "embeddings": "embedding",
    "invoke_agent": "agent",
    "create_agent": "agent",
    "execute_tool": "tool",
}
NAMED_CLASSES = (
    (
        "langfuse.observation.type",
        {"generation": "llm", "embedding": "embedding", "agent": "agent", "tool": "tool", "chain": "chain"},
    ),
    (
        "mlflow.spanType",
        {
            "llm": "llm",
            "chat_model": "llm",
            "embedding": "embedding",
            "agent": "agent",
            "tool": "tool",
            "chain": "chain",
        },
    ),
    ("langsmith.span.kind", {"llm": "llm", "tool": "tool", "chain": "chain"}),
    ("traceloop.span.kind", {"tool": "tool", "agent": "agent", "workflow": "chain", "task": "chain"}),
    ("llm.request.type", {"chat": "llm", "completion": "llm", "embedding": "embedding"}),
)

# The columns of a family: prompt, completion, cache read, cache write, reasoning, total.
G, V = "gen_ai.usage.", "ai.usage."
PLAIN_FAMILIES: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...] = (
    (
        "openinference",
        (
            ("llm.token_count.prompt",),
            ("llm.token_count.completion",),
            ("llm.token_count.prompt_details.cache_read",),
            ("llm.token_count.prompt_details.cache_write",),
            ("llm.token_count.completion_details.reasoning",),
            ("llm.token_count.total",),
        ),
    ),
    (
        "gen_ai",
        (
            (G + "input_tokens", G + "prompt_tokens", "llm.usage.prompt_tokens"),
            (G + "output_tokens", G + "completion_tokens", "llm.usage.completion_tokens"),
            (G + "cache_read.input_tokens", G + "cache_read_input_tokens", G + "details.cache_read_tokens"),
            (
                G + "cache_write.input_tokens",
                G + "cache_creation.input_tokens",
                G + "cache_write_input_tokens",
                G + "cache_creation_input_tokens",
                G + "details.cache_write_tokens",
            ),
            (
                G + "reasoning.output_tokens",
                G + "reasoning_tokens",
                G + "details.reasoning_tokens",
                G + "details.thoughts_tokens",
                G + "completion_tokens_details.reasoning_tokens",
                G + "experimental.reasoning_tokens",
            ),
            (G + "total_tokens", "llm.usage.total_tokens"),
        ),
    ),
    (
        "vercel",
        (
            (V + "inputTokens", V + "promptTokens"),
            (V + "outputTokens", V + "completionTokens"),
            (V + "cachedInputTokens", V + "inputTokenDetails.cacheReadTokens"),
            (V + "inputTokenDetails.cacheWriteTokens",),
            (V + "reasoningTokens", V + "outputTokenDetails.reasoningTokens"),
            (V + "totalTokens", V + "tokens"),
        ),
    ),
)
# Scopes (by the beginning of their name) that write a prompt without cache, and for which providers (none: any);
# and scopes of which the total alone holds the reasoning.
CACHE_APART_SCOPES = (
    ("opentelemetry.instrumentation.bedrock", ()),
    ("openlit", ("anthropic", "aws.bedrock")),
    ("openinference.instrumentation.agno", ("anthropic", "awsbedrock")),
)
ZERO_IS_NO_COST_SCOPES = ("openlit",)
REASONING_IN_TOTAL_SCOPES = (
    "opentelemetry.instrumentation.google_generativeai",
    "opentelemetry.instrumentation.vertexai",
    "openinference.instrumentation.vertexai",
)
PROVIDER_ATTRIBUTES = ("gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system")
LANGFUSE_COLUMNS: tuple[tuple[str, ...], ...] = (
    ("input", "prompt_tokens", "input_tokens"),
    ("output", "completion_tokens", "output_tokens"),
    (
        "input_cached_tokens",
        "input_cache_read",
        "cache_read_input_tokens",
        "prompt_tokens_details.cached_tokens",
        "input_tokens_details.cached_tokens",
    ),
    ("input_cache_creation", "cache_creation_input_tokens"),
    (
        "output_reasoning",
        "output_reasoning_tokens",
        "completion_tokens_details.reasoning_tokens",
        "output_tokens_details.reasoning_tokens",
    ),
    ("total", "total_tokens"),
)
# After Langfuse's, by the attribute that holds them.
DOCUMENT_FAMILIES: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...] = (
    (
        "mlflow.chat.tokenUsage",
        (
            ("input_tokens",),
            ("output_tokens",),
            ("cache_read_input_tokens",),
            ("cache_creation_input_tokens",),
            (),
            ("total_tokens",),
        ),
    ),
    (
        "langsmith.metadata.usage_metadata",
        (
            ("input_tokens",),
            ("output_tokens",),
            ("input_token_details.cache_read",),
            ("input_token_details.cache_creation",),
            ("output_token_details.reasoning",),
            ("total_tokens",),
        ),
    ),
)
