"""What calls cost, by arithmetic of its own: the bill's half of the comparison of costs.

`prices.toml` is what the APIs of a run charge and what the worker is given as its own prices; where a producer reports
a cost by a list of its own, the producer's TOML file has that list's prices in the same words.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Final

FILE: Final = Path(__file__).with_name("prices.toml")

Price = Mapping[str, Decimal]
"""USD per million tokens, `request` per call.

A detail without a price costs what it is a detail of; anything else without one costs nothing.
"""

_NANO: Final = Decimal(10**9)
_MTOK: Final = Decimal(10**6)
_DETAIL_OF: Final = {"cache_read": "prompt", "cache_write": "prompt", "reasoning": "completion"}


def _table() -> dict[str, Price]:
    kept: dict[str, Price] = tomllib.loads(FILE.read_text(encoding="utf-8"), parse_float=Decimal)
    return {pattern.strip("*"): price for pattern, price in kept.items()}


PRICES: Final = _table()
"""By a part of the model's name; the first that is in a name decides."""


def price_of(model: str) -> Price:
    """What the model's API charges."""
    found = next((price for part, price in PRICES.items() if part in model), None)
    assert found is not None, f"{FILE.name} has no price for {model}: add one, unlike all others"
    return found


def cost_nano(price: Price, sums: Mapping[str, int]) -> int:
    """What calls of one model cost together in nano-dollars, exactly; `sums` are `calls` and the fields of `Charge`.

    Each call costs a whole number of nano-dollars, or the rounding of each would have to be known.
    """
    tokens = {
        "prompt": sums.get("prompt", 0) - sums.get("cache_read", 0) - sums.get("cache_write", 0),
        "cache_read": sums.get("cache_read", 0),
        "cache_write": sums.get("cache_write", 0),
        "completion": sums.get("completion", 0) - sums.get("reasoning", 0),
        "reasoning": sums.get("reasoning", 0),
        "embedding": sums.get("embedding", 0),
    }
    assert all(count >= 0 for count in tokens.values()), f"parts are more than the whole: {dict(sums)}"
    usd = _usd(price, "request") * sums.get("calls", 0)
    usd += sum((_usd(price, name) * count / _MTOK for name, count in tokens.items()), Decimal(0))
    nano = usd * _NANO
    assert nano == int(nano), f"{nano} is not a whole number of nano-dollars: {dict(price)}"
    return int(nano)


def _usd(price: Price, name: str) -> Decimal:
    return Decimal(price.get(name, price.get(_DETAIL_OF.get(name, ""), 0)))
