"""In which ways a session's figures may differ from the bill; a producer states for which session, and why.

A way is a function from the sums by model as the bill (or a difference stated before) has them to what is shown; what
it says of itself is what it does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from tests.interop.stubs.bill import SessionBill
from tests.interop.stubs.prices import Price, cost_nano

Models = dict[str, Counter[str]]

DETAILS: Final = ("cache_read", "cache_write", "reasoning")

REPORTED_COST: Final = "reported_cost"
"""The kind by which nothing but the cost differs."""

REPORTED: Final = "reported_cost_nano"
"""Among the sums of a model whose calls report their cost: what they report; without it they are priced."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Why a session's figures are not those of the bill, and how they differ, exactly; `kind` is a key of `KINDS`.

    `extra_traces` is how many traces there are beyond those that the producer knows of, `suspected_traces` how many of
    them are seen to tell another trace's calls again; `models` are the names of second copies; `prices` are those by
    which the producer reports costs, by model as billed, in the words of `stubs/prices.toml`.
    """

    session: str
    kind: str
    reason: str
    extra_traces: int = 0
    suspected_traces: int = 0
    models: Mapping[str, str] = field(default_factory=dict)
    prices: Mapping[str, Price] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"the kind of a difference is {self.kind!r}, not one of {', '.join(KINDS)}")
        if (self.kind == REPORTED_COST) is not bool(self.prices):
            raise ValueError(f"a difference has prices if, and only if, it is a {REPORTED_COST}: {self.reason}")

    @property
    def told(self) -> str:
        """As a row tells it."""
        return f"{self.session}: {self.reason}"

    def applied(self, models: Models, bill: SessionBill) -> Models:
        """The sums by model as they are shown; `models` is left alone."""
        found = {model: Counter(sums) for model, sums in models.items()}
        KINDS[self.kind](found, bill, self)
        return found


def _untold(models: Models, bill: SessionBill, _: Difference) -> None:
    """What the API charged without telling the usage is missing."""
    for model, sums in bill.untold.items():
        models[model].subtract(sums)


def _doubled(models: Models, _bill: SessionBill, difference: Difference) -> None:
    """Every generation is there twice, the second time under the names that `models` gives."""
    for model, sums in list(models.items()):
        if not sums["embedding"]:
            models.setdefault(difference.models.get(model, model), Counter()).update(Counter(sums))


def _no_embeddings(models: Models, _bill: SessionBill, _: Difference) -> None:
    """The producer writes no usage of embeddings."""
    for model, sums in list(models.items()):
        if sums["embedding"]:
            del models[model]


def _no_usage(models: Models, _bill: SessionBill, _: Difference) -> None:
    """The producer writes no usage at all."""
    models.clear()


def _no_details(models: Models, _bill: SessionBill, _: Difference) -> None:
    """It writes neither cached nor reasoning tokens."""
    _without_details(models, "no_details")


def _no_reasoning(models: Models, _bill: SessionBill, _: Difference) -> None:
    """It is not told how much of the completion was reasoning."""
    _without_details(models, "no_reasoning")


def _without_details(models: Models, kind: str) -> None:
    for sums in models.values():
        for name in WITHOUT_DETAILS[kind]:
            del sums[name]


def _without_reasoning(models: Models, _bill: SessionBill, _: Difference) -> None:
    """The completion is told without reasoning."""
    for sums in models.values():
        sums["completion"] -= sums["reasoning"]


def _streams_start(models: Models, _bill: SessionBill, _: Difference) -> None:
    """The completion is told as it stands at a stream's start, where it is one token a call, none of reasoning."""
    for sums in models.values():
        sums["completion"] = sums["calls"]
        del sums["reasoning"]


def _streams_start_added(models: Models, _bill: SessionBill, _: Difference) -> None:
    """The completion is told with that of a stream's start, one token a call, added."""
    for sums in models.values():
        sums["completion"] += sums["calls"]


def _no_errors(_models: Models, _bill: SessionBill, _: Difference) -> None:
    """It writes no spans of what was refused, so there are no traces of it; its usage is all there."""


def _reported_cost(models: Models, _bill: SessionBill, difference: Difference) -> None:
    """Calls of the models that have `prices` report their cost, by those instead of what the API charged."""
    for model, price in difference.prices.items():
        assert model in models, f"{difference.session}: there are no calls of {model} to report a cost of"
        models[model][REPORTED] = cost_nano(price, models[model])


KINDS: Final[Mapping[str, Callable[[Models, SessionBill, Difference], None]]] = {
    "untold": _untold,
    "doubled": _doubled,
    "no_embeddings": _no_embeddings,
    "no_usage": _no_usage,
    "no_details": _no_details,
    "no_reasoning": _no_reasoning,
    "without_reasoning": _without_reasoning,
    "streams_start": _streams_start,
    "streams_start_added": _streams_start_added,
    "no_errors": _no_errors,
    REPORTED_COST: _reported_cost,
}
"""By the name that producers use."""

WITHOUT_DETAILS: Final[Mapping[str, tuple[str, ...]]] = {"no_details": DETAILS, "no_reasoning": ("reasoning",)}
"""The kinds by which nothing but details differ, and which."""
