"""What one span says about a call: its class, model, token usage and cost."""

from __future__ import annotations

from mypy_extensions import i64

from . import conventions as table
from .conventions import ClassRow, Column, Conventions, FamilyRow
from .figures import ABSENT, Ignored, cost_nano, json_member, json_object, tokens
from .model import AGENT, EMBEDDING, LLM, NO_COST, OTHER, Span
from .raw import RawSpan, Scope
from .texts import name_of, unquoted


class Usage:
    """The token figures that one family tells of a span; `ABSENT` where there is none.

    `inclusive` says that prompt and completion are known to hold their parts.
    """

    def __init__(self, family_bit: i64) -> None:
        self.family_bit: i64 = family_bit
        self.inclusive: bool = False
        self.prompt: i64 = ABSENT
        self.completion: i64 = ABSENT
        self.cache_read: i64 = ABSENT
        self.cache_write: i64 = ABSENT
        self.reasoning: i64 = ABSENT
        self.total: i64 = ABSENT

    def present(self) -> bool:
        return (
            self.prompt >= 0
            or self.completion >= 0
            or self.total >= 0
            or self.cache_read >= 0
            or self.cache_write >= 0
            or self.reasoning >= 0
        )

    def same_call(self, other: Usage) -> bool:
        """Whether prompt and completion are the same, one of them above zero."""
        prompt: i64 = max(self.prompt, 0)
        completion: i64 = max(self.completion, 0)
        return (
            (prompt > 0 or completion > 0) and prompt == max(other.prompt, 0) and completion == max(other.completion, 0)
        )

    def borrow(self, other: Usage) -> None:
        """Take what is missing here of details and total, which tells whether prompt and completion hold them."""
        if self.cache_read <= 0:
            self.cache_read = other.cache_read
        if self.cache_write <= 0:
            self.cache_write = other.cache_write
        if self.reasoning <= 0:
            self.reasoning = other.reasoning
        if self.total < 0:
            self.total = other.total
        self.inclusive = self.inclusive or other.inclusive


def read_call(span: Span, raw: RawSpan, conventions: Conventions, ignored: Ignored) -> None:
    """Set class, model, usage and cost of `span`."""
    values = raw.values
    roles = raw.roles
    usage: Usage | None = None
    if roles >= table.HAS_USAGE:
        for family in conventions.families:
            if roles & family.bit:
                usage = _take_usage(family, values, ignored)
                if usage is not None:
                    break
        if usage is not None and roles >= usage.family_bit << 1:
            _borrow_details(usage, raw, conventions, ignored)
    if roles & table.HAS_MODEL:
        own = usage is not None and usage.family_bit == table.HAS_USAGE << table.OPENINFERENCE_FAMILY
        span.model = _model(values, conventions, openinference=own)
    span.span_class = _span_class(raw, conventions, bool(usage is not None and span.model))
    if usage is not None:
        _set_usage(span, usage, raw.scope)
    if roles & table.HAS_COST:
        span.cost_nano = _cost(values, conventions, ignored)
        if span.cost_nano == 0 and (raw.scope.zero_is_no_cost or not span.has_tokens()):
            span.cost_nano = NO_COST  # nobody knew it


def _borrow_details(usage: Usage, raw: RawSpan, conventions: Conventions, ignored: Ignored) -> None:
    """Take details that the first family lacks, and a total, from later ones that tell the same call.

    A family tells the same call where it has the same prompt and completion.  Of each figure the first one counts.
    """
    if usage.cache_read > 0 and usage.cache_write > 0 and usage.reasoning > 0:
        return
    for family in conventions.families:
        if family.bit > usage.family_bit and raw.roles & family.bit:
            other = _take_usage(family, raw.values, ignored)
            if other is not None and other.same_call(usage):
                usage.borrow(other)


def _take_usage(family: FamilyRow, values: list[object], ignored: Ignored) -> Usage | None:
    """The figures of one family, or None where it has no usable one."""
    document: dict[str, object] | None = None
    if family.document >= 0:
        document = json_object(values[family.document], "usage", ignored)
        if document is None:
            return None
    usage = Usage(family.bit)
    usage.prompt = _figure(family.prompt, values, document, ignored)
    usage.completion = _figure(family.completion, values, document, ignored)
    usage.cache_read = _figure(family.cache_read, values, document, ignored)
    usage.cache_write = _figure(family.cache_write, values, document, ignored)
    usage.reasoning = _figure(family.reasoning, values, document, ignored)
    usage.total = _figure(family.total, values, document, ignored)
    if not usage.present():
        return None
    if family.open_keys and document is not None and usage.total >= 0:
        _add_up(usage, document)
    return usage


def _figure(column: Column, values: list[object], document: dict[str, object] | None, ignored: Ignored) -> i64:
    """The first usable figure of a column."""
    figure: i64
    if document is None:
        for code in column.codes:
            value = values[code]
            if value is not None:
                figure = tokens(value, ignored)
                if figure >= 0:
                    return figure
        return ABSENT
    for name in column.names:
        figure = tokens(json_member(document, name), ignored)
        if figure >= 0:
            return figure
    return ABSENT


def _add_up(usage: Usage, document: dict[str, object]) -> None:
    """Set prompt and completion to the sums of their parts where open keys exclude one another, the total being all."""
    prompt: i64 = 0
    completion: i64 = 0
    everything: i64 = 0
    total: i64 = ABSENT
    for key, value in document.items():
        figure = tokens(value, [])
        if key == "total":
            total = figure
        elif figure > 0:
            everything += figure
            if key.startswith(("input", "cache")):
                prompt += figure
            elif key.startswith("output"):
                completion += figure
    if everything == total:
        usage.prompt = prompt
        usage.completion = completion
        usage.inclusive = True


def _set_usage(span: Span, usage: Usage, scope: Scope) -> None:
    """Normalise to inclusive totals: prompt with cached tokens, completion with reasoning."""
    prompt: i64 = max(usage.prompt, 0)
    completion: i64 = max(usage.completion, 0)
    cache_read: i64 = max(usage.cache_read, 0)
    cache_write: i64 = max(usage.cache_write, 0)
    reasoning: i64 = max(usage.reasoning, 0)
    total: i64 = usage.total
    span.written_prompt_tokens = prompt
    span.written_completion_tokens = completion
    if not usage.inclusive:
        if usage.prompt < 0 and usage.completion < 0:
            prompt = max(total, 0)
        cache: i64 = cache_read + cache_write
        more: i64 = total - prompt - completion  # what the total holds beyond the two
        apart = total >= 0 and more > 0
        cache_apart = cache > prompt or (apart and cache > 0 and (more == cache or more == cache + reasoning))
        if scope.cache_apart and cache > 0 and not cache_apart:
            cache_apart = not scope.providers or span.provider.lower() in scope.providers
        if scope.rest_is_completion and apart and reasoning == 0:
            reasoning = more
            cache_apart = False
        if reasoning > completion or (apart and reasoning > 0 and (more == reasoning or more == cache + reasoning)):
            completion += reasoning
        if cache_apart:
            prompt += cache
    if span.span_class == EMBEDDING:
        span.embedding_tokens = prompt + completion
        return
    span.prompt_tokens = prompt
    span.completion_tokens = completion
    span.cache_read_tokens = cache_read
    span.cache_write_tokens = cache_write
    span.reasoning_tokens = reasoning


def _span_class(raw: RawSpan, conventions: Conventions, has_call: bool) -> i64:
    """The class by the first evidence that tells one; a model's usage is a call of the model."""
    span_class: i64 = table.NO_CLASS
    if raw.roles & table.HAS_CLASS:
        for row in conventions.class_rows:
            value = raw.values[row.code]
            if isinstance(value, str):
                span_class = _class_by(row, value)
                if span_class >= 0:
                    break
    if span_class < 0:
        return LLM if has_call else OTHER
    if span_class == AGENT and raw.messages and name_of(raw.values[conventions.hazard_model]):
        return LLM
    return span_class


def _class_by(row: ClassRow, text: str) -> i64:
    found = row.values.get(text)
    if found is not None:
        return found
    text = text.strip().lower()
    if not text:
        return table.NO_CLASS
    found = row.values.get(text)
    if found is not None:
        return found
    for ending, span_class in row.endings:
        if text.endswith(ending):
            return span_class
    return row.otherwise


def _model(values: list[object], conventions: Conventions, *, openinference: bool) -> str:
    if openinference:
        model = name_of(values[conventions.openinference_model])
        if model:
            return model
    for code in conventions.model_codes:
        value = values[code]
        if value is not None:
            model = name_of(unquoted(value) if code == conventions.json_model and isinstance(value, str) else value)
            if model:
                return model
    return ""


def _cost(values: list[object], conventions: Conventions, ignored: Ignored) -> i64:
    """The first usable cost in nano-dollars."""
    for row in conventions.cost_rows:
        value = values[row.code]
        if value is not None and row.key:
            document = json_object(value, "cost", ignored)
            value = json_member(document, row.key) if document is not None else None
        if value is not None:
            nano = cost_nano(value, ignored)
            if nano >= 0:
                return nano
    return NO_COST
