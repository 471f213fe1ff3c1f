"""The figures of one trace from all its spans: the counting half of the oracle (see `tests.oracle`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tests.oracle_spans import SpanRead

Price = Callable[[str, str, int, int, int, int, int, int, int], int]

TWIN_OVERHANG_US = 50_000
TWIN_COMPLETION_MARGIN = 16
MOST_USERS = 16
MOST_SERVICES = 16


@dataclass(kw_only=True)
class ModelFigures:
    """What one model adds."""

    calls: int = 0
    prompt: int = 0
    completion: int = 0
    embedding: int = 0
    cost_nano: int = 0
    reported_costs: int = 0
    priced_costs: int = 0


@dataclass(kw_only=True)
class TraceFigures:
    """The figures of one trace; field names are those of `aggregator.core.model.TraceRollup`, and a few more.

    `users` are (user id, start_us, span id) in order of first use; an unknown start is 0 and sorts last.
    `session` is (project, session id) or None, `conflicting_claims` says that its spans claim different ones.
    """

    trace_id: bytes
    session: tuple[str, str] | None = None
    conflicting_claims: bool = False
    name: str = ""
    started_us: int = 0
    ended_us: int = 0
    span_count: int = 0
    llm_span_count: int = 0
    error_count: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    embedding_tokens: int = 0
    llm_span_prompt_tokens: int = 0
    llm_span_completion_tokens: int = 0
    cost_nano: int = 0
    reported_costs: int = 0
    priced_costs: int = 0
    unpriced_calls: int = 0
    models: dict[str, ModelFigures] = field(default_factory=dict)
    users: list[tuple[str, int, bytes]] = field(default_factory=list)
    services: list[str] = field(default_factory=list)
    wrapper_usage: bool = False
    nested_llm: bool = False
    missing_root: bool = False
    scopes: set[str] = field(default_factory=set)


# --- The spans of one trace -----------------------------------------------------------------------------------


def by_start(span: SpanRead) -> tuple[bool, int, bytes]:
    """Orders spans by start, unknown starts last, ties by span id."""
    return (span.start_us == 0, span.start_us, span.span_id)


def version_order(span: SpanRead) -> tuple[int, int, bytes]:
    """Orders the versions of one span; the greatest stays."""
    usage = span.usage
    return (span.end_us, usage.prompt + usage.completion + usage.embedding, span.encoding)


def distinct(spans: Iterable[SpanRead]) -> list[SpanRead]:
    """Keeps one version of each span, in order of start."""
    versions: dict[tuple[bytes, bytes], list[SpanRead]] = defaultdict(list)
    for span in spans:
        versions[span.trace_id, span.span_id].append(span)
    return sorted((max(several, key=version_order) for several in versions.values()), key=by_start)


# --- The tree of one trace --------------------------------------------------------------------------------------


class Tree:
    """The spans of one trace with cycles cut; `parentless` are those that are "a span without a parent"."""

    def __init__(self, spans: Sequence[SpanRead]) -> None:
        self.spans = sorted(spans, key=by_start)
        self.by_id = {span.span_id: span for span in self.spans}
        self.parentless = {span.span_id for span in self.spans if not span.parent_id}
        self.parent = {s.span_id: s.parent_id for s in self.spans if s.parent_id in self.by_id}
        for span in self.spans:  # The earliest span of a cycle is met first.
            if span.span_id in self.path_up(span.span_id):
                del self.parent[span.span_id]
                self.parentless.add(span.span_id)
        self.children: dict[bytes, list[SpanRead]] = defaultdict(list)
        for span in self.spans:
            if span.span_id in self.parent:
                self.children[self.parent[span.span_id]].append(span)

    def path_up(self, span_id: bytes) -> list[bytes]:
        """Gives the spans above one, nearest first; within a cycle it ends where it would repeat."""
        path: list[bytes] = []
        while span_id in self.parent and self.parent[span_id] not in path:
            span_id = self.parent[span_id]
            path.append(span_id)
        return path

    def above(self, span: SpanRead) -> set[bytes]:
        return set(self.path_up(span.span_id))

    def below(self, span: SpanRead) -> set[bytes]:
        return {other.span_id for other in self.spans if span.span_id in self.above(other)}

    def innermost_first(self) -> list[SpanRead]:
        return sorted(self.spans, key=lambda span: -len(self.path_up(span.span_id)))


# --- Which spans count ------------------------------------------------------------------------------------------


def nearest(tree: Tree, top_id: bytes, kind: str) -> list[SpanRead]:
    """The nearest spans of a class with usage below a span, not looking past tool and agent spans."""
    found: list[SpanRead] = []
    for child in tree.children[top_id]:
        if child.span_class == kind and child.has_usage:
            found.append(child)
        elif child.span_class not in ("tool", "agent"):
            found += nearest(tree, child.span_id, kind)
    return found


def same_figure(one: SpanRead, other: SpanRead) -> bool:
    pairs = (
        (one.usage.prompt, other.usage.prompt),
        (one.usage.completion, other.usage.completion),
        (one.usage.embedding, other.usage.embedding),
    )
    return any(a == b > 0 for a, b in pairs)


def all_figures_same(one: SpanRead, other: SpanRead) -> bool:
    a, b = one.usage, other.usage
    return (a.prompt, a.completion, a.embedding) == (b.prompt, b.completion, b.embedding)


def repeats_sum(span: SpanRead, members: Sequence[SpanRead]) -> bool:
    if len(members) < 2:
        return False
    pairs = (
        (span.usage.prompt, sum(m.usage.prompt for m in members)),
        (span.usage.completion, sum(m.usage.completion for m in members)),
        (span.usage.embedding, sum(m.usage.embedding for m in members)),
    )
    return any(a == b > 0 for a, b in pairs)


@dataclass(kw_only=True)
class Counted:
    """Which spans count (by id), which repeat one other span (id → that one's id), which repeat a sum."""

    counting: set[bytes] = field(default_factory=set)
    repeats_one: dict[bytes, bytes] = field(default_factory=dict)
    repeats_several: set[bytes] = field(default_factory=set)
    nested_llm: bool = False
    wrapper_usage: bool = False

    def chain(self, span_id: bytes) -> list[bytes]:
        """Gives what a span repeats, what that one repeats, and so on."""
        chain: list[bytes] = []
        while span_id in self.repeats_one:
            span_id = self.repeats_one[span_id]
            chain.append(span_id)
        return chain


def count(tree: Tree) -> Counted:
    """Applies the counting rule to a whole tree."""
    counted = Counted()
    for kind in ("llm", "embedding"):
        count_nested(tree, kind, counted)
        count_twins(tree, kind, counted)
    for span in tree.innermost_first():
        if span.span_class in ("llm", "embedding") or not span.has_usage:
            continue
        silencing = counted.counting | counted.repeats_one.keys() | counted.repeats_several
        if not tree.below(span) & silencing:
            counted.counting.add(span.span_id)
            counted.wrapper_usage = True
    return counted


def count_nested(tree: Tree, kind: str, counted: Counted) -> None:
    for span in tree.spans:
        if span.span_class != kind or not span.has_usage:
            continue
        members = nearest(tree, span.span_id, kind)
        same = [member for member in members if same_figure(member, span)]
        if same:
            best = min(same, key=lambda member: (not all_figures_same(member, span), by_start(member)))
            counted.repeats_one[span.span_id] = best.span_id
        elif repeats_sum(span, members):
            counted.repeats_several.add(span.span_id)
        else:
            counted.counting.add(span.span_id)
            counted.nested_llm |= kind == "llm" and bool(members)


def count_twins(tree: Tree, kind: str, counted: Counted) -> None:
    """Lets a call be repeated by one of another scope around it: those of the same figures first, then near ones."""
    paired: set[bytes] = set()
    for alike in (all_figures_same, near_twins):
        candidates = [
            span
            for span in tree.spans
            if span.span_class == kind and span.span_id in counted.counting and 0 < span.start_us <= span.end_us
        ]
        candidates.sort(key=lambda span: (span.start_us, -(span.end_us - span.start_us), span.span_id))
        for position, span in enumerate(candidates):
            for earlier in candidates[:position]:
                if (
                    not paired & {earlier.span_id, span.span_id}
                    and earlier.scope != span.scope
                    and alike(earlier, span)
                    and earlier.start_us <= span.start_us
                    and span.end_us <= earlier.end_us + TWIN_OVERHANG_US
                    and span.start_us <= earlier.end_us
                    and earlier.span_id not in tree.above(span)
                    and span.span_id not in tree.above(earlier)
                ):
                    counted.repeats_one[earlier.span_id] = span.span_id
                    counted.counting.remove(earlier.span_id)
                    paired |= {earlier.span_id, span.span_id}
                    break


def near_twins(one: SpanRead, other: SpanRead) -> bool:
    """Whether prompt, cache and model are the same, and the completions but for a few tokens."""
    a, b = one.usage, other.usage
    return (
        (a.prompt, a.cache_read, a.cache_write, one.model) == (b.prompt, b.cache_read, b.cache_write, other.model)
        and a.prompt > 0
        and one.model != ""
        and abs(a.completion - b.completion) <= TWIN_COMPLETION_MARGIN
    )


# --- Figures of one trace ---------------------------------------------------------------------------------------


def repeaters(tree: Tree, counted: Counted, span: SpanRead) -> list[SpanRead]:
    """The spans whose chain of repeats ends at `span`, in order of start."""
    return [other for other in tree.spans if counted.chain(other.span_id)[-1:] == [span.span_id]]


def details(tree: Tree, counted: Counted, span: SpanRead) -> tuple[int, int, int]:
    """Cache read, cache write and reasoning of a counting span, taken from an exact repeat where it has none."""
    exact = [
        other
        for other in repeaters(tree, counted, span)
        if all(all_figures_same(other, tree.by_id[link]) for link in counted.chain(other.span_id))
    ]
    cache = (span.usage.cache_read, span.usage.cache_write)
    reasoning = span.usage.reasoning
    for other in exact:
        if cache == (0, 0):
            cache = (other.usage.cache_read, other.usage.cache_write)
        if reasoning == 0:
            reasoning = other.usage.reasoning
    return (*cache, reasoning)


def reported_costs(tree: Tree, counted: Counted) -> dict[bytes, int]:
    """Which spans add a reported cost, and how much."""
    adding: dict[bytes, int] = {}
    for span in tree.spans:
        if span.span_id in counted.counting:
            own_first = [span, *repeaters(tree, counted, span)]
            costs = [one.cost_nano for one in own_first if one.cost_nano is not None]
            if costs:
                adding[span.span_id] = costs[0]
    for span in tree.innermost_first():
        repeat = span.span_id in counted.repeats_one
        if span.cost_nano is None or repeat or span.span_id in counted.counting:
            continue
        if not tree.below(span) & adding.keys():
            adding[span.span_id] = span.cost_nano
    return adding


def trace_figures(spans: Iterable[SpanRead], *, price: Price) -> TraceFigures:
    """Computes one trace from all its spans, duplicates allowed."""
    tree = Tree(distinct(spans))
    counted = count(tree)
    figures = TraceFigures(trace_id=tree.spans[0].trace_id)
    add_plain_figures(figures, tree)
    add_usage(figures, tree, counted, price)
    figures.nested_llm = counted.nested_llm
    figures.wrapper_usage = counted.wrapper_usage
    figures.missing_root = not tree.parentless
    claims = [(span.claim[0], by_start(span), span.project, span.claim[1]) for span in tree.spans if span.claim]
    if claims:
        figures.session = min(claims)[2:]
    figures.conflicting_claims = len({claim[2:] for claim in claims}) > 1
    return figures


def add_plain_figures(figures: TraceFigures, tree: Tree) -> None:
    """Adds all that needs no counting rule."""
    spans = tree.spans
    named = [span for span in spans if span.span_id in tree.parentless] or spans
    figures.name = named[0].name
    figures.started_us = min((span.start_us for span in spans if span.start_us), default=0)
    figures.ended_us = max(span.end_us or span.start_us for span in spans)
    figures.span_count = len(spans)
    figures.error_count = sum(span.error for span in spans)
    llm = [span for span in spans if span.span_class == "llm"]
    figures.llm_span_count = len(llm)
    figures.llm_span_prompt_tokens = sum(span.usage.written_prompt for span in llm)
    figures.llm_span_completion_tokens = sum(span.usage.written_completion for span in llm)
    figures.users = first_uses((span.user_id, span.start_us, span.span_id) for span in spans if span.user_id)
    figures.services = sorted({span.service for span in spans if span.service})[:MOST_SERVICES]


def first_uses(uses: Iterable[tuple[str, int, bytes]]) -> list[tuple[str, int, bytes]]:
    """Keeps the first use of each user id, in order of first use."""
    seen: dict[str, tuple[str, int, bytes]] = {}
    for user_id, start_us, span_id in sorted(uses, key=lambda use: (use[1] == 0, use[1], use[2], use[0])):
        seen.setdefault(user_id, (user_id, start_us, span_id))
    return list(seen.values())[:MOST_USERS]


def add_usage(figures: TraceFigures, tree: Tree, counted: Counted, price: Price) -> None:
    """Adds tokens, costs and models."""
    costs = reported_costs(tree, counted)
    figures.reported_costs = len(costs)
    for span in tree.spans:
        counts, cost = span.span_id in counted.counting, costs.get(span.span_id)
        if not counts and cost is None:
            continue
        model = figures.models.setdefault(span.model or "unknown", ModelFigures())
        # A cost of 0 without a call adds nothing to its model.
        model.reported_costs += cost is not None and (counts or cost > 0)
        if counts:
            cache_read, cache_write, reasoning = details(tree, counted, span)
            if span.usage.prompt + span.usage.completion > 0:
                figures.scopes.add(span.scope)
            figures.prompt_tokens += span.usage.prompt
            figures.completion_tokens += span.usage.completion
            figures.embedding_tokens += span.usage.embedding
            figures.cache_read_tokens += cache_read
            figures.cache_write_tokens += cache_write
            figures.reasoning_tokens += reasoning
            model.calls += 1
            model.prompt += span.usage.prompt
            model.completion += span.usage.completion
            model.embedding += span.usage.embedding
            if cost is None and not tree.above(span) & costs.keys():
                cost = priced(span, cache_read, cache_write, reasoning, price)
                figures.priced_costs += cost is not None
                figures.unpriced_calls += cost is None
                model.priced_costs += cost is not None
        figures.cost_nano += cost or 0
        model.cost_nano += cost or 0


def priced(span: SpanRead, cache_read: int, cache_write: int, reasoning: int, price: Price) -> int | None:
    if not span.model:
        return None
    usage = span.usage
    figures = (usage.prompt, usage.completion, cache_read, cache_write, reasoning, usage.embedding)
    nano = price(span.model, "", span.start_us, *figures)
    return nano if nano >= 0 else None


def flat_price(
    model: str,
    provider: str,
    start_us: int,
    prompt: int,
    completion: int,
    cache_read: int,
    cache_write: int,
    reasoning: int,
    embedding: int,
) -> int:
    """A price for tests that depends on every figure and knows only models whose name begins with "priced"."""
    if not model.startswith("priced"):
        return -1
    return 1000 * prompt + 7000 * completion - 900 * cache_read + 250 * cache_write + 30 * reasoning + 13 * embedding
