"""Prices from the maintained list of the genai-prices package: bundled with it, so without any network.

The list knows tiers (a dearer price for all tokens of a call with a long prompt) and prices that change with the date
or the hour.  Asking it costs some 30 µs, and most traces ask twice, so each price is turned into exact integer rates
once: in between the thresholds of its tiers it is linear in the token figures.
"""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, localcontext
from math import lcm
from typing import Final

from genai_prices import Usage
from genai_prices.data import providers
from genai_prices.data_snapshot import DataSnapshot, find_provider_by_id
from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

from aggregator.core.pricing import UNKNOWN_PRICE, Pricer

_NANO_PER_USD: Final = 10**9
_EXACT: Final = Context(prec=100)  # the list's prices have a dozen digits; nothing is ever rounded in here
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(9999, 1, 1, tzinfo=UTC)
_LATEST_US: Final = (_LATEST - _EPOCH) // timedelta(microseconds=1)

_GATEWAY: Final = "litellm"
"""The list's name for "whoever the model's name or its prefix tells"."""

_SELF_HOSTED: Final = ("ollama", "vllm", "sglang", "llamacpp", "llama.cpp", "llama_cpp", "lmstudio", "lm_studio")
"""Providers that charge nothing by the token, though their models may bear the names of hosted ones."""


class GenaiPricer(Pricer):
    """Prices calls as the providers list them, by the price that was valid when the call started.

    Providers are matched as the list does it ("azure", "aws.bedrock", "openai.chat", ...).  Where the span's provider
    is empty or not one of the list's, it is often a framework ("langchain"), so the model's name decides; self-hosted
    models have no price.  A call whose start is not known gets the newest price.
    Cached tokens are priced as input and reasoning as output where the list has no price for them, long-lived cache
    writes as ordinary ones, and batch or priority discounts are not seen, since spans do not tell them.
    """

    def __init__(self, *, max_models: int = 4096) -> None:
        """`max_models` bounds how many (model, provider) pairs are remembered."""
        self._max_models = max_models
        self._listings: dict[tuple[str, str], _Listing] = {}

    def price_nano(
        self,
        model: str,
        provider: str,
        start_us: int,
        prompt_tokens: int,
        completion_tokens: int,
        cache_read_tokens: int,
        cache_write_tokens: int,
        reasoning_tokens: int,
        embedding_tokens: int,
    ) -> int:
        listing = self._listings.get((model, provider))
        if listing is None:
            listing = self._remember(model, provider)
        price = listing.at(start_us)
        if price is None:
            return UNKNOWN_PRICE
        return price.nano(
            prompt_tokens + embedding_tokens, completion_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens
        )

    def _remember(self, model: str, provider: str) -> _Listing:
        if len(self._listings) >= self._max_models:
            del self._listings[next(iter(self._listings))]
        listing = _Listing(_find_model(model, provider))
        self._listings[model, provider] = listing
        return listing


def _find_model(model: str, provider: str) -> ModelInfo | None:
    named = provider.lower()
    if not model.strip() or any(name in named for name in _SELF_HOSTED):
        return None
    if find_provider_by_id(providers, named) is None:
        named = _GATEWAY
    # A snapshot remembers every name it was ever asked for, hence one for each question: names come from outside.
    snapshot = DataSnapshot(providers=providers, from_auto_update=False)
    try:
        return snapshot.find_provider_model(model.strip(), None, named, None)[1]
    except LookupError:
        return None


class _Listing:
    """What the list has for one model: one price for all times, several, or nothing."""

    __slots__ = ("_by_price", "_constant", "_varying")

    def __init__(self, model: ModelInfo | None) -> None:
        self._constant: _Price | None = None
        self._varying: ModelInfo | None = None
        self._by_price: dict[int, _Price] = {}
        if model is None:
            return
        if isinstance(model.prices, ModelPrice):
            self._constant = _Price(model.prices)
        else:
            self._varying = model
            self._by_price = {id(one.prices): _Price(one.prices) for one in model.prices}

    def at(self, start_us: int) -> _Price | None:
        if self._varying is None:
            return self._constant
        known = 0 < start_us < _LATEST_US
        when = _EPOCH + timedelta(microseconds=start_us) if known else _LATEST
        return self._by_price[id(self._varying.get_prices(when))]


class _Price:
    """One price of one model: a rate for each range of prompt lengths."""

    __slots__ = ("_has_input", "_has_output", "_rates", "_thresholds")

    def __init__(self, price: ModelPrice) -> None:
        tiered = [value for value in vars(price).values() if isinstance(value, TieredPrices)]
        self._thresholds = sorted({tier.start for value in tiered for tier in value.tiers})
        self._rates = [_Rate(_within(price, length)) for length in (0, *(start + 1 for start in self._thresholds))]
        self._has_input = price.input_mtok is not None
        self._has_output = price.output_mtok is not None

    def nano(self, prompt: int, completion: int, cache_read: int, cache_write: int, reasoning: int) -> int:
        uncached = prompt - cache_read - cache_write
        if uncached < 0 or (prompt > 0 and not self._has_input) or (completion > 0 and not self._has_output):
            return UNKNOWN_PRICE
        rate = self._rates[bisect_left(self._thresholds, prompt)] if self._thresholds else self._rates[0]
        exact = (
            rate.request
            + rate.uncached * uncached
            + rate.completion * completion
            + rate.cache_read * cache_read
            + rate.cache_write * cache_write
        )
        if rate.reasoning_more:
            exact += rate.reasoning_more * min(reasoning, completion)
        nano, rest = divmod(exact, rate.per)
        rest += rest
        return nano + 1 if rest > rate.per or (rest == rate.per and nano & 1) else nano


class _Rate:
    """A linear price as integers: so many `per`-ths of a nano-dollar per request and per token.

    `reasoning_more` is by how much reasoning is dearer than other tokens of the completion; on this list it is cheaper
    if anything, for one model.
    """

    __slots__ = ("cache_read", "cache_write", "completion", "per", "reasoning_more", "request", "uncached")

    def __init__(self, price: ModelPrice) -> None:
        request = _usd(price, Usage())
        one_token = (
            Usage(input_tokens=1),
            Usage(output_tokens=1),
            Usage(input_tokens=1, cache_read_tokens=1),
            Usage(input_tokens=1, cache_write_tokens=1),
            Usage(output_tokens=1, output_reasoning_tokens=1),
        )
        with localcontext(_EXACT):
            each = [request, *(_usd(price, usage) - request for usage in one_token)]
            nano = [(one * _NANO_PER_USD).as_integer_ratio() for one in each]
        self.per = lcm(*(denominator for _, denominator in nano))
        scaled = [numerator * (self.per // denominator) for numerator, denominator in nano]
        self.request, self.uncached, self.completion, self.cache_read, self.cache_write, reasoning = scaled
        self.reasoning_more = reasoning - self.completion


def _within(price: ModelPrice, length: int) -> ModelPrice:
    """The price as it is for calls with a prompt of so many tokens, without tiers."""
    flat: dict[str, Decimal | None] = {}
    for key, value in vars(price).items():
        if isinstance(value, TieredPrices):
            flat[key] = value.base
            for tier in value.tiers:  # in ascending order; the highest that applies is the price of all tokens
                if length > tier.start:
                    flat[key] = tier.price
        else:
            flat[key] = value
    return ModelPrice(**flat)


def _usd(price: ModelPrice, usage: Usage) -> Decimal:
    with localcontext(_EXACT):
        return price.calc_price(usage)["total_price"]
