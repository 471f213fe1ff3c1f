"""Which span attribute means what, as one table; adding a producer is adding rows.

The rows are facts gathered from the sources of the instrumentations.  Their order is the order of preference.
`Conventions` turns the table and the operator's own lists into look-ups by small numbers (codes), which the decoders
use to take wanted attributes and `interpret` uses to read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from mypy_extensions import i64

from .model import AGENT, CHAIN, EMBEDDING, LLM, OTHER, TOOL
from .raw import Cache

# --- the table ------------------------------------------------------------------------------------------------------

SESSION_ID: Final = (
    "session.id",  # OpenInference, OpenTelemetry, Langfuse SDK, Strands
    "langfuse.session.id",  # Langfuse
    "traceloop.association.properties.session_id",  # OpenLLMetry
    "ai.telemetry.metadata.sessionId",  # Vercel AI SDK
    "ai.settings.context.sessionId",  # Vercel AI SDK 7
    "langsmith.metadata.session_id",  # LangSmith; its trace.session_id and .session_name name the project instead
    "langsmith.metadata.thread_id",
    "langsmith.metadata.conversation_id",
    "mlflow.trace.session",  # MLflow
    "gcp.vertex.agent.session_id",  # Google ADK
    "langfuse.trace.metadata.langfuse_session_id",  # Langfuse
    "langfuse.observation.metadata.langfuse_session_id",
    "gen_ai.conversation.id",  # OTel GenAI, Pydantic AI, OpenLIT; may be a sub-agent's, hence last
)
RESOURCE_SESSION_ID: Final = "session.id"  # browser and mobile SDKs; ranks after all of the above

USER_ID: Final = (
    "user.id",
    "langfuse.user.id",
    "traceloop.association.properties.user_id",
    "ai.telemetry.metadata.userId",
    "ai.settings.context.userId",
    "langsmith.metadata.user_id",
    "mlflow.trace.user",
    "enduser.id",
)
PROJECT: Final = ("openinference.project.name", "arize.project.name", "model_id")  # of the resource
SERVICE: Final = "service.name"  # of the resource
PROVIDER: Final = ("gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system")

MODEL: Final = (
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
OPENINFERENCE_MODEL: Final = "llm.model_name"  # goes first where the usage is OpenInference's
JSON_MODEL: Final = "mlflow.llm.model"  # JSON text in any scope

NO_CLASS: Final = -1


class Evidence(NamedTuple):
    """One attribute that tells a span's class: by value, else by the value's ending, else `otherwise`.

    Values and endings are in lower case, since producers' are compared without regard to it.
    `otherwise` is `NO_CLASS` where an unknown value says nothing.
    """

    attribute: str
    values: dict[str, int]
    endings: tuple[tuple[str, int], ...] = ()
    otherwise: int = NO_CLASS


CLASS_EVIDENCE: Final = (
    Evidence(
        "openinference.span.kind",
        {"llm": LLM, "embedding": EMBEDDING, "agent": AGENT, "tool": TOOL, "chain": CHAIN},
        otherwise=OTHER,
    ),
    Evidence(
        "gen_ai.operation.name",
        {
            "chat": LLM,
            "text_completion": LLM,
            "generate_content": LLM,
            "completion": LLM,
            "generate": LLM,
            "embeddings": EMBEDDING,
            "invoke_agent": AGENT,
            "create_agent": AGENT,
            "execute_tool": TOOL,
        },
        otherwise=CHAIN,
    ),
    Evidence(
        "ai.operationId",
        {"ai.embed": EMBEDDING, "ai.embedmany": EMBEDDING, "ai.toolcall": TOOL},
        endings=((".dogenerate", LLM), (".dostream", LLM), (".doembed", EMBEDDING)),
        otherwise=CHAIN,
    ),
    Evidence(
        "langfuse.observation.type",
        {"generation": LLM, "embedding": EMBEDDING, "agent": AGENT, "tool": TOOL, "chain": CHAIN},
    ),
    Evidence(
        "mlflow.spanType",
        {"llm": LLM, "chat_model": LLM, "embedding": EMBEDDING, "agent": AGENT, "tool": TOOL, "chain": CHAIN},
    ),
    Evidence("langsmith.span.kind", {"llm": LLM, "tool": TOOL, "chain": CHAIN}),
    Evidence("traceloop.span.kind", {"tool": TOOL, "agent": AGENT, "workflow": CHAIN, "task": CHAIN}),
    Evidence("llm.request.type", {"chat": LLM, "completion": LLM, "embedding": EMBEDDING}),
)
# OpenInference's LangChain instrumentation marks every run whose name contains "agent" as AGENT, chat models included:
# an agent span with a model of its own and messages to it is the model's.
HAZARD_MODEL: Final = "llm.model_name"
HAZARD_MESSAGES: Final = "llm.input_messages."


class UsageFamily(NamedTuple):
    """The token attributes of one convention; where a column has several names, the first usable one wins.

    With `document` set, the columns are names inside the JSON text of that attribute, a dot stands for nesting (or
    for itself).  `open_keys`: names beyond the columns occur too; where `total` is the sum of all others they
    exclude one another.
    """

    prompt: tuple[str, ...]
    completion: tuple[str, ...]
    cache_read: tuple[str, ...] = ()
    cache_write: tuple[str, ...] = ()
    reasoning: tuple[str, ...] = ()
    total: tuple[str, ...] = ()
    document: str = ""
    open_keys: bool = False


OPENINFERENCE_FAMILY: Final = 0  # its row in USAGE
USAGE: Final = (
    UsageFamily(  # OpenInference
        prompt=("llm.token_count.prompt",),
        completion=("llm.token_count.completion",),
        cache_read=("llm.token_count.prompt_details.cache_read",),
        cache_write=("llm.token_count.prompt_details.cache_write",),
        reasoning=("llm.token_count.completion_details.reasoning",),
        total=("llm.token_count.total",),
    ),
    # OTel GenAI, with the names that it and OpenLLMetry used before: they stand beside newer ones of cache and total.
    # gen_ai.aggregated_usage.* repeats it and is left alone.
    UsageFamily(
        prompt=("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.usage.prompt_tokens"),
        completion=("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.usage.completion_tokens"),
        cache_read=(
            "gen_ai.usage.cache_read.input_tokens",
            "gen_ai.usage.cache_read_input_tokens",
            "gen_ai.usage.details.cache_read_tokens",
        ),
        cache_write=(
            "gen_ai.usage.cache_write.input_tokens",
            "gen_ai.usage.cache_creation.input_tokens",
            "gen_ai.usage.cache_write_input_tokens",
            "gen_ai.usage.cache_creation_input_tokens",
            "gen_ai.usage.details.cache_write_tokens",
        ),
        reasoning=(
            "gen_ai.usage.reasoning.output_tokens",
            "gen_ai.usage.reasoning_tokens",
            "gen_ai.usage.details.reasoning_tokens",
            "gen_ai.usage.details.thoughts_tokens",  # Pydantic AI with Gemini
            "gen_ai.usage.completion_tokens_details.reasoning_tokens",  # OpenLIT with Google ADK
            "gen_ai.usage.experimental.reasoning_tokens",  # Google ADK 1
        ),
        total=("gen_ai.usage.total_tokens", "llm.usage.total_tokens"),
    ),
    UsageFamily(  # Vercel AI SDK
        prompt=("ai.usage.inputTokens", "ai.usage.promptTokens"),
        completion=("ai.usage.outputTokens", "ai.usage.completionTokens"),
        cache_read=("ai.usage.cachedInputTokens", "ai.usage.inputTokenDetails.cacheReadTokens"),
        cache_write=("ai.usage.inputTokenDetails.cacheWriteTokens",),
        reasoning=("ai.usage.reasoningTokens", "ai.usage.outputTokenDetails.reasoningTokens"),
        total=("ai.usage.totalTokens", "ai.usage.tokens"),
    ),
    UsageFamily(  # Langfuse, by its own names and by OpenAI's
        document="langfuse.observation.usage_details",
        prompt=("input", "prompt_tokens", "input_tokens"),
        completion=("output", "completion_tokens", "output_tokens"),
        cache_read=(
            "input_cached_tokens",
            "input_cache_read",
            "cache_read_input_tokens",
            "prompt_tokens_details.cached_tokens",
            "input_tokens_details.cached_tokens",
        ),
        cache_write=("input_cache_creation", "cache_creation_input_tokens"),
        reasoning=(
            "output_reasoning",
            "output_reasoning_tokens",
            "completion_tokens_details.reasoning_tokens",
            "output_tokens_details.reasoning_tokens",
        ),
        total=("total", "total_tokens"),
        open_keys=True,
    ),
    UsageFamily(  # MLflow
        document="mlflow.chat.tokenUsage",
        prompt=("input_tokens",),
        completion=("output_tokens",),
        cache_read=("cache_read_input_tokens",),
        cache_write=("cache_creation_input_tokens",),
        total=("total_tokens",),
    ),
    UsageFamily(  # LangSmith, mostly for the details that its OTel GenAI lacks
        document="langsmith.metadata.usage_metadata",
        prompt=("input_tokens",),
        completion=("output_tokens",),
        cache_read=("input_token_details.cache_read",),
        cache_write=("input_token_details.cache_creation",),
        reasoning=("output_token_details.reasoning",),
        total=("total_tokens",),
    ),
)


class CostSource(NamedTuple):
    """One attribute that holds a cost in USD, or a JSON document with it under `key`."""

    attribute: str
    key: str = ""


COST: Final = (  # never the parts under llm.cost.*_details: LiteLLM's instrumentation writes token counts there
    CostSource("langfuse.observation.cost_details", key="total"),
    CostSource("llm.cost.total"),
    CostSource("gen_ai.usage.cost"),
    CostSource("gen_ai.cost.total_cost"),  # LiteLLM
    CostSource("operation.cost"),
)


class ScopeHabit(NamedTuple):
    """How instrumentation scopes whose names begin so write figures that their other attributes do not give away.

    `cache_apart`: the prompt is without the cached tokens (and so is the total), for these providers (in lower case;
    producers' are compared without regard to it), or for any where none is named.
    `rest_is_completion`: what the total holds beyond prompt and completion is reasoning that is in neither.
    `zero_is_no_cost`: a cost of zero is written where no price is known.
    """

    scope: str
    cache_apart: bool = False
    providers: tuple[str, ...] = ()
    rest_is_completion: bool = False
    zero_is_no_cost: bool = False


SCOPE_HABITS: Final = (  # docs/adr/0007 has the evidence
    ScopeHabit("opentelemetry.instrumentation.bedrock", cache_apart=True),  # OpenLLMetry
    ScopeHabit("openlit", cache_apart=True, providers=("anthropic", "aws.bedrock"), zero_is_no_cost=True),
    ScopeHabit("opentelemetry.instrumentation.google_generativeai", rest_is_completion=True),  # OpenLLMetry
    ScopeHabit("opentelemetry.instrumentation.vertexai", rest_is_completion=True),  # OpenLLMetry
    ScopeHabit("openinference.instrumentation.vertexai", rest_is_completion=True),
    ScopeHabit("openinference.instrumentation.agno", cache_apart=True, providers=("anthropic", "awsbedrock")),
)
NO_HABIT: Final = ScopeHabit("")

OWN_SPANS: Final = "session_aggregator.own_spans"  # on the resource of what a worker traces of itself; left out
PLACEHOLDER: Final = ("logfire.span_type", "pending_span")  # a span sent at its start; left out
JSON_TEXT_SCOPE: Final = "mlflow"  # scopes that begin so write every attribute as JSON text

# --- the table, compiled --------------------------------------------------------------------------------------------

HAS_CLAIM: Final = 1
HAS_USER: Final = 2
HAS_PROVIDER: Final = 4
HAS_MODEL: Final = 8
HAS_CLASS: Final = 16
HAS_COST: Final = 32
HAS_PLACEHOLDER: Final = 64
HAS_USAGE: Final = 128  # times 2 ** row of the family

TABLE_CLAIM_ROW: Final = 32  # with all rows below 128, a claim's row is one byte of a trace state
MAX_OWN_ATTRIBUTES: Final = TABLE_CLAIM_ROW

NO_KEY: Final = -1
SEVERAL_KEYS: Final = -2
_SLOTS: Final = 8192


class ClassRow:
    """`Evidence` with the attribute's code and the usual spellings of its values beside the lower-case ones."""

    def __init__(self, code: i64, evidence: Evidence) -> None:
        self.code: i64 = code
        self.values: dict[str, int] = {}
        for value, span_class in evidence.values.items():
            self.values[value] = span_class
            self.values[value.upper()] = span_class
        self.endings = evidence.endings
        self.otherwise: int = evidence.otherwise


class Column:
    """Where one token figure of a family is found: codes of attributes, or names inside its JSON document."""

    def __init__(self, codes: list[int], names: tuple[str, ...]) -> None:
        self.codes = codes
        self.names = names


class FamilyRow:
    """`UsageFamily` with codes; `document` is the code of the JSON attribute or -1."""

    def __init__(self, bit: i64, document: i64, columns: list[Column], *, open_keys: bool) -> None:
        self.bit: i64 = bit
        self.document: i64 = document
        self.prompt = columns[0]
        self.completion = columns[1]
        self.cache_read = columns[2]
        self.cache_write = columns[3]
        self.reasoning = columns[4]
        self.total = columns[5]
        self.open_keys: bool = open_keys


class CostRow:
    """`CostSource` with the attribute's code."""

    def __init__(self, code: i64, key: str) -> None:
        self.code: i64 = code
        self.key = key


class Conventions:
    """The table together with the operator's lists, ready for decoding; but for its cache it never changes.

    `session_id_attributes` and `user_attributes` are looked at before the table's, in their order; the
    `ignored_attributes` of the table are read neither for a session (on a span or its resource) nor for a user, unless
    the operator's own lists name them.
    No name may be empty.  A `project_attributes` that is not empty takes the place of the table's list.
    The codes of `claim_codes` have the claim rows of `claim_rows`; the resource's session id has the row after the
    table's last.  Rows are kept in trace states, so the table's own are the same whatever the operator adds before
    them (`MAX_OWN_ATTRIBUTES` at most; more raise ValueError) or ignores.
    """

    def __init__(
        self,
        session_id_attributes: Sequence[str] = (),
        project_attributes: Sequence[str] = (),
        user_attributes: Sequence[str] = (),
        ignored_attributes: Sequence[str] = (),
    ) -> None:
        self.names: dict[str, int] = {}
        self.roles: list[int] = []
        ignored = frozenset(ignored_attributes)
        rows = claim_rows(tuple(dict.fromkeys(session_id_attributes)), ignored)
        self.claim_codes: list[int] = self._codes(tuple(rows), HAS_CLAIM)
        self.claim_rows: list[int] = list(rows.values())
        self.resource_claim_row: i64 = TABLE_CLAIM_ROW + len(SESSION_ID)
        self.resource_claims: bool = RESOURCE_SESSION_ID not in ignored
        users = [*user_attributes, *[name for name in USER_ID if name not in ignored]]
        self.user_codes: list[int] = self._codes(tuple(dict.fromkeys(users)), HAS_USER)
        self.provider_codes: list[int] = self._codes(PROVIDER, HAS_PROVIDER)
        self.model_codes: list[int] = self._codes(MODEL, HAS_MODEL)
        self.openinference_model: i64 = self._code(OPENINFERENCE_MODEL, HAS_MODEL)
        self.json_model: i64 = self._code(JSON_MODEL, HAS_MODEL)
        self.hazard_model: i64 = self._code(HAZARD_MODEL, HAS_MODEL)
        self.class_rows: list[ClassRow] = [
            ClassRow(self._code(row.attribute, HAS_CLASS), row) for row in CLASS_EVIDENCE
        ]
        self.families: list[FamilyRow] = [self._family(i, family) for i, family in enumerate(USAGE)]
        self.cost_rows: list[CostRow] = [CostRow(self._code(row.attribute, HAS_COST), row.key) for row in COST]
        self.placeholder: i64 = self._code(PLACEHOLDER[0], HAS_PLACEHOLDER)
        self.project_attributes: tuple[str, ...] = tuple(project_attributes) or PROJECT
        self.resource_attributes: tuple[str, ...] = (SERVICE, OWN_SPANS, *self.project_attributes)
        if self.resource_claims:
            self.resource_attributes = (RESOURCE_SESSION_ID, *self.resource_attributes)
        self.keys: list[bytes] = [name.encode() for name in self.names]
        self.codes: dict[bytes, int] = {key: code for code, key in enumerate(self.keys)}
        self.key_slots: list[int] = _key_slots(self.keys)
        self.cache: Cache = Cache()

    def _code(self, attribute: str, role: int) -> int:
        """The code of an attribute, with one more role."""
        code = self.names.setdefault(attribute, len(self.names))
        if code == len(self.roles):
            self.roles.append(0)
        self.roles[code] |= role
        return code

    def _codes(self, attributes: tuple[str, ...], role: int) -> list[int]:
        return [self._code(attribute, role) for attribute in attributes]

    def _family(self, index: int, family: UsageFamily) -> FamilyRow:
        bit = HAS_USAGE << index
        document = self._code(family.document, bit) if family.document else -1
        columns = [Column([] if family.document else self._codes(names, bit), names) for names in family[:6]]
        return FamilyRow(bit, document, columns, open_keys=family.open_keys)


def claim_rows(own: tuple[str, ...], ignored: frozenset[str]) -> dict[str, int]:
    """The claim row of every session attribute, in order of preference: the operator's own, then the table's."""
    if len(own) > MAX_OWN_ATTRIBUTES:
        raise ValueError(f"{len(own)} own session attributes are more than {MAX_OWN_ATTRIBUTES}")
    rows = {name: TABLE_CLAIM_ROW - len(own) + i for i, name in enumerate(own)}
    for i, name in enumerate(SESSION_ID):
        if name not in ignored:
            rows.setdefault(name, TABLE_CLAIM_ROW + i)
    return rows


def key_slot(length: i64, first: i64, middle: i64, last: i64) -> i64:
    """The place of a key in `Conventions.key_slots`, from its length and three of its bytes."""
    return (length * 97 + first * 13 + middle * 389 + last * 2221) & (_SLOTS - 1)


def _key_slots(keys: list[bytes]) -> list[int]:
    """Per slot the code of the only wanted key that falls there, `NO_KEY`, or `SEVERAL_KEYS`.

    It tells most unwanted keys, and which key a wanted one could be, without hashing them.
    """
    slots = [NO_KEY] * _SLOTS
    for code, key in enumerate(keys):
        size = len(key)
        slot = key_slot(size, key[0], key[size >> 1], key[size - 1])
        slots[slot] = code if slots[slot] == NO_KEY else SEVERAL_KEYS
    return slots
