"""Holds what is seen of sessions against the bill and what the producer says it did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, NamedTuple

from tests.interop.catalogue import Producer
from tests.interop.differences import DETAILS, REPORTED, Difference, Models
from tests.interop.running import Told, Truth
from tests.interop.stubs.bill import SessionBill
from tests.interop.stubs.prices import cost_nano, price_of

MODEL_SUMS = ("calls", "prompt", "completion", "embedding")


class Cost(NamedTuple):
    """What something costs, and from where that is known."""

    nano_usd: int
    source: str


NO_COST = Cost(0, "none")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One session, as the bill says it or as it is shown; `models` without zeros, `model_costs` without `NO_COST`."""

    user: str | None
    traces: int
    error_traces: int
    prompt: int
    completion: int
    total: int
    embedding: int
    details: Mapping[str, int]
    models: Mapping[str, Mapping[str, int]]
    cost: Cost
    model_costs: Mapping[str, Cost]
    unpriced_calls: int


def assert_same(shown: Mapping[tuple[str, str], Seen], truth: Mapping[tuple[str, str], Seen]) -> None:
    """Fail with every field that differs, as `shop/s-ada prompt: shown 7, billed 5`."""
    differing = [
        f"{project}/{session} {name}: shown {vars(shown[project, session])[name]}, billed {value}"
        for (project, session), one in truth.items()
        if (project, session) in shown
        for name, value in vars(one).items()
        if vars(shown[project, session])[name] != value
    ]
    assert set(shown) == set(truth), f"other sessions than those there were; also: {differing}"
    assert not differing, "\n".join(differing)


def expected(producer: Producer, truth: Truth) -> dict[tuple[str, str], Seen]:
    """What must be seen, by project and session: the bill, but for the differences that are stated.

    A difference that makes none is an error: it would hide that the producer has mended its ways.
    """
    assert set(truth.bill.sessions) <= set(truth.told), "the APIs were asked for sessions that the producer denies"
    found = {}
    stated = {difference.session for difference in producer.differences}
    assert stated <= set(truth.told), f"differences are stated for sessions that there are not: {stated}"
    for session, told in truth.told.items():
        bill = truth.bill.sessions.get(session, SessionBill())
        assert bill.errors == told.error_traces, f"{session}: refused {bill.errors} times, but says otherwise"
        seen = _seen(producer, told, bill.models)
        models = bill.models
        for difference in producer.differences:
            if difference.session == session:
                models = difference.applied(models, bill)
                told = _told(told, difference)
                plain, seen = seen, _seen(producer, told, models)
                assert seen != plain, f"{session}: stated to differ ({difference.reason}), but does not"
        found[told.project, session] = seen
    return found


def _told(told: Told, difference: Difference) -> Told:
    """What the producer would say if it knew only what its spans say."""
    if difference.kind == "no_errors":
        told = replace(told, traces=told.traces - told.error_traces, error_traces=0)
    return replace(told, traces=told.traces + difference.extra_traces)


def _seen(producer: Producer, told: Told, models: Models) -> Seen:
    sums: Counter[str] = Counter()
    shown: dict[str, Counter[str]] = {}
    costs: dict[str, list[Cost]] = {}
    for model, charged in models.items():
        sums.update(charged)
        name = producer.models.get(model, model)
        shown.setdefault(name, Counter()).update(charged)
        costs.setdefault(name, []).append(_cost(producer, model, charged))
    return Seen(
        user=told.user,
        traces=told.traces,
        error_traces=told.error_traces,
        prompt=sums["prompt"],
        completion=sums["completion"],
        total=sums["prompt"] + sums["completion"],
        embedding=sums["embedding"],
        details={name: 0 if name in producer.lacks else sums[name] for name in DETAILS},
        models=_nonzero({model: {name: one[name] for name in MODEL_SUMS} for model, one in shown.items()}),
        cost=_together(one for of_model in costs.values() for one in of_model),
        model_costs=_known({model: _together(of_model) for model, of_model in costs.items()}),
        unpriced_calls=0,  # every model that a stub answers as has a price
    )


def _cost(producer: Producer, model: str, charged: Mapping[str, int]) -> Cost:
    """What the calls of a model cost as far as the producer tells of them.

    A detail that it lacks is priced as what it is a detail of; what a call reports is beyond that.
    """
    if REPORTED in charged:
        return Cost(charged[REPORTED], "reported")
    told = {name: count for name, count in charged.items() if name not in producer.lacks}
    return Cost(cost_nano(price_of(model), told), "priced") if charged["calls"] else NO_COST


def _together(costs: Iterable[Cost]) -> Cost:
    known = [one for one in costs if one != NO_COST]
    sources = {one.source for one in known} or {NO_COST.source}
    return Cost(sum(one.nano_usd for one in known), sources.pop() if len(sources) == 1 else "mixed")


def _known(costs: Mapping[str, Cost]) -> dict[str, Cost]:
    return {model: cost for model, cost in costs.items() if cost != NO_COST}


def billed_nano(truth: Truth) -> dict[str, int]:
    """What the APIs charged for each session."""
    return {
        session: sum(cost_nano(price_of(model), sums) for model, sums in bill.models.items())
        for session, bill in truth.bill.sessions.items()
    }


def suspected_traces(producer: Producer) -> dict[str, int]:
    """How many traces of its sessions must be flagged as telling another one's calls again, without zeros."""
    return {one.session: one.suspected_traces for one in producer.differences if one.suspected_traces}


def flagged_traces(summaries: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many are, by session, without zeros."""
    flagged = {one["session_id"]: one["flags"]["repeated_call_traces"] for one in summaries}
    return {session: count for session, count in flagged.items() if count}


def in_summary(summary: Mapping[str, Any]) -> Seen:
    """What a summary says."""
    tokens = summary["tokens"]
    return Seen(
        user=summary["user_id"],
        traces=summary["trace_count"],
        error_traces=summary["error_trace_count"],
        prompt=tokens["prompt"],
        completion=tokens["completion"],
        total=tokens["total"],
        embedding=tokens["embedding"],
        details={name: tokens[name] for name in DETAILS},
        models=_nonzero({model: {name: one[name] for name in MODEL_SUMS} for model, one in summary["models"].items()}),
        cost=_shown_cost(summary),
        model_costs=_known({model: _shown_cost(one) for model, one in summary["models"].items()}),
        unpriced_calls=summary["unpriced_calls"],
    )


def in_redis(session: Mapping[str, str], models: Mapping[str, str]) -> Seen:
    """What a session's hash and its `:models` say."""
    by_model: dict[str, Counter[str]] = {}
    for key, value in models.items():
        model, _, column = key.rpartition(":")
        by_model.setdefault(model, Counter())[column.removesuffix("_tokens")] = int(value)
    cost = _shown_cost(session)
    assert session["cost_nano_usd"] == str(cost.nano_usd), f"beside {session['cost_usd']} USD"
    return Seen(
        user=session.get("user_id"),
        traces=int(session["trace_count"]),
        error_traces=int(session["error_trace_count"]),
        prompt=int(session["prompt_tokens"]),
        completion=int(session["completion_tokens"]),
        total=int(session["total_tokens"]),
        embedding=int(session["embedding_tokens"]),
        details={name: int(session[f"{name}_tokens"]) for name in DETAILS},
        models=_nonzero({model: {name: one[name] for name in MODEL_SUMS} for model, one in by_model.items()}),
        cost=cost,
        model_costs=_known({model: _model_cost_in_redis(one) for model, one in by_model.items()}),
        unpriced_calls=int(session["unpriced_calls"]),
    )


def _shown_cost(shown: Mapping[str, str]) -> Cost:
    """From decimal dollars as they are shown, which have nine decimals."""
    nano = Decimal(shown["cost_usd"]).scaleb(9)
    assert nano == int(nano), f"parts of a nano-dollar: {shown['cost_usd']} USD"
    return Cost(int(nano), shown["cost_source"])


def _model_cost_in_redis(figures: Mapping[str, int]) -> Cost:
    sources = [source for source in ("reported", "priced") if figures[f"{source}_costs"]] or [NO_COST.source]
    return Cost(figures["cost_nano_usd"], sources[0] if len(sources) == 1 else "mixed")


def _nonzero(models: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    return {
        model: {name: value for name, value in sums.items() if value}
        for model, sums in models.items()
        if any(sums.values())
    }
