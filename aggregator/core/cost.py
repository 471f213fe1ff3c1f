"""What the calls of a trace cost: what was reported, once, and a price where nothing was."""

from __future__ import annotations

from aggregator.core.calls import Call, Calls
from aggregator.core.model import NO_COST
from aggregator.core.pricing import Pricer


def add_reported_costs(calls: Calls) -> None:
    """Set `adds_reported_cost`, with `cost_nano` as what is added, `paid_below` and `paid_above` of every call."""
    _take_over_costs(calls)
    _let_innermost_costs_count(calls)


def _take_over_costs(calls: Calls) -> None:
    """Give a counting call without a cost that of the earliest single repeat that has one."""
    for call in calls.in_order:
        counting = call.repeats
        if counting is not None:
            if counting.counts and counting.cost_nano == NO_COST:
                counting.cost_nano = call.span.cost_nano
            call.cost_nano = NO_COST


def _let_innermost_costs_count(calls: Calls) -> None:
    """Let a counting call add its cost, any other one only if nothing below it adds one."""
    for call in reversed(calls.downward):
        if call.cost_nano >= 0:
            if call.counts or not call.paid_below:
                call.adds_reported_cost = True
            else:
                call.cost_nano = NO_COST
        if call.above >= 0 and (call.paid_below or call.adds_reported_cost):
            calls.in_order[call.above].paid_below = True
    for call in calls.downward:
        if call.above >= 0:
            above = calls.in_order[call.above]
            call.paid_above = above.paid_above or above.adds_reported_cost


def price(call: Call, pricer: Pricer) -> int:
    """The price in nano-dollars of a counting call; `NO_COST` where its model or price is not known."""
    span = call.span
    if not span.model:
        return NO_COST
    return pricer.price_nano(
        span.model,
        span.provider,
        span.start_us,
        span.prompt_tokens,
        span.completion_tokens,
        call.cache_read,
        call.cache_write,
        call.reasoning,
        span.embedding_tokens,
    )
