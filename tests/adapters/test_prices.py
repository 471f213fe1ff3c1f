"""The price list: the same prices as the library says, exact, whatever is asked, and bounded memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext

import pytest
from genai_prices import Usage
from genai_prices.data import providers
from genai_prices.types import ClauseEquals, ConditionalPrice, ModelInfo, ModelPrice, Tier, TieredPrices
from hypothesis import given
from hypothesis import strategies as st

from aggregator.adapters import prices
from aggregator.adapters.prices import GenaiPricer
from aggregator.core.model import LLM, Span
from aggregator.core.usage import rollup

NOVEMBER_2026_US = 1_795_000_000_000_000

LISTED = [(provider, model) for provider in providers for model in provider.models]
OPENAI = next(provider for provider in providers if provider.id == "openai")

TOKENS = st.one_of(st.integers(0, 5), st.integers(0, 3_000_000), st.integers(0, 10**12))
TIMES = st.datetimes(datetime(2023, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


def price(
    model: str,
    provider: str = "",
    *,
    at: datetime | int = NOVEMBER_2026_US,
    prompt: int = 0,
    completion: int = 0,
    cache_read: int = 0,
    cache_write: int = 0,
    reasoning: int = 0,
    embedding: int = 0,
    pricer: GenaiPricer | None = None,
) -> int:
    start_us = at if isinstance(at, int) else microseconds(at)
    return (pricer or GenaiPricer()).price_nano(
        model, provider, start_us, prompt, completion, cache_read, cache_write, reasoning, embedding
    )


def microseconds(when: datetime) -> int:
    return (when - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def listed(model: ModelInfo, monkeypatch: pytest.MonkeyPatch) -> str:
    """Put a model of our own on the list, before the real ones; gives the provider's name."""
    monkeypatch.setattr(OPENAI, "models", [model, *OPENAI.models])
    return "openai"


def library_nano(price: ModelPrice, usage: Usage) -> int:
    with localcontext(Context(prec=200)):
        usd = price.calc_price(usage)["total_price"]
        return int((usd * 10**9).to_integral_value(ROUND_HALF_EVEN))


@pytest.mark.parametrize(
    ("model", "provider", "figures", "nano"),
    [
        # 2.50 and 10 USD per million, cached input 1.25
        ("gpt-4o", "openai", {"prompt": 1000, "completion": 200}, 4_500_000),
        ("gpt-4o", "openai", {"prompt": 1000, "completion": 200, "cache_read": 400}, 4_000_000),
        ("gpt-4o-2024-08-06", "openai", {"prompt": 1}, 2_500),
        # 3 and 15 USD, cache read 0.30, cache write 3.75
        ("claude-sonnet-4-20250514", "aws.bedrock", {"prompt": 100, "cache_read": 50, "cache_write": 10}, 172_500),
        ("text-embedding-3-small", "openai", {"embedding": 1000}, 20_000),
        # 2 and 8 USD, reasoning 3; reasoning of gpt-4o costs what the rest of the answer does
        ("sonar-deep-research", "perplexity", {"prompt": 100, "completion": 50, "reasoning": 40}, 400_000),
        ("gpt-4o", "openai", {"prompt": 1000, "completion": 200, "reasoning": 150}, 4_500_000),
    ],
)
def test_a_call_costs_what_its_provider_lists(model: str, provider: str, figures: dict[str, int], nano: int) -> None:
    assert price(model, provider, **figures) == nano  # type: ignore[arg-type]


REASONING_MODELS = [entry for entry in LISTED if "output_reasoning_mtok" in repr(entry[1].prices)]
PARTS = st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))


@given(st.sampled_from(LISTED) | st.sampled_from(REASONING_MODELS), TIMES, TOKENS, TOKENS, PARTS)
def test_every_price_on_the_list_is_what_the_library_makes_of_it(
    entry: tuple[object, ModelInfo], when: datetime, prompt: int, completion: int, parts: tuple[float, float, float]
) -> None:
    _, model = entry
    read_part, write_part, reasoning_part = parts
    reasoning = int(completion * reasoning_part)
    cache_read = int(prompt * read_part)
    cache_write = int((prompt - cache_read) * write_part)
    valid = model.get_prices(when)
    usage = Usage(
        input_tokens=prompt,
        output_tokens=completion,
        cache_read_tokens=cache_read,
        cache_write_tokens=cache_write,
        output_reasoning_tokens=reasoning,
    )
    expected = library_nano(valid, usage)
    if (prompt and valid.input_mtok is None) or (completion and valid.output_mtok is None):
        expected = -1
    found = prices._Listing(model).at(microseconds(when))
    assert found is not None
    assert found.nano(prompt, completion, cache_read, cache_write, reasoning) == expected


def test_the_price_of_every_model_can_be_turned_into_rates() -> None:
    for _, model in LISTED:
        assert prices._Listing(model).at(NOVEMBER_2026_US) is not None


def test_a_long_prompt_makes_all_its_tokens_dearer() -> None:
    cheap, dear = price("gemini-2.5-pro", "google", prompt=200_000), price("gemini-2.5-pro", "google", prompt=200_001)
    assert (cheap, dear) == (200_000 * 1_250, 200_001 * 2_500)


def test_the_length_of_the_prompt_decides_on_the_price_of_the_answer_too() -> None:
    short = price("gemini-2.5-pro", "google", prompt=200_000, completion=10) - price(
        "gemini-2.5-pro", "google", prompt=200_000
    )
    long = price("gemini-2.5-pro", "google", prompt=200_001, completion=10) - price(
        "gemini-2.5-pro", "google", prompt=200_001
    )
    assert (short, long) == (100_000, 150_000)


def test_of_several_tiers_the_highest_one_reached_applies(monkeypatch: pytest.MonkeyPatch) -> None:
    tiers = TieredPrices(base=Decimal(1), tiers=[Tier(start=10, price=Decimal(2)), Tier(start=20, price=Decimal(3))])
    model = ModelInfo(
        id="tiered", match=ClauseEquals("tiered"), prices=ModelPrice(input_mtok=tiers, output_mtok=Decimal(1))
    )
    provider = listed(model, monkeypatch)
    found = [price("tiered", provider, prompt=prompt) for prompt in (10, 11, 20, 21)]
    assert found == [10_000, 22_000, 40_000, 63_000]


def test_the_price_is_that_of_the_day_of_the_call() -> None:
    before, after = datetime(2025, 6, 9, 23, 59, 59, tzinfo=UTC), datetime(2025, 6, 10, tzinfo=UTC)
    assert price("o3", "openai", at=before, prompt=1) == 10_000
    assert price("o3", "openai", at=after, prompt=1) == 2_000


@pytest.mark.parametrize("start_us", [0, 2**62])
def test_a_call_at_an_unknown_time_has_the_newest_price(start_us: int) -> None:
    assert price("o3", "openai", at=start_us, prompt=1) == 2_000


@pytest.mark.parametrize(("tokens", "nano"), [(1, 0), (3, 2), (5, 2), (7, 4)])
def test_half_a_nano_dollar_is_rounded_to_even(monkeypatch: pytest.MonkeyPatch, tokens: int, nano: int) -> None:
    model = ModelInfo(id="half", match=ClauseEquals("half"), prices=ModelPrice(input_mtok=Decimal("0.0005")))
    assert price("half", listed(model, monkeypatch), prompt=tokens) == nano


def test_a_sum_is_rounded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    half = Decimal("0.0005")
    model = ModelInfo(id="half", match=ClauseEquals("half"), prices=ModelPrice(input_mtok=half, output_mtok=half))
    assert price("half", listed(model, monkeypatch), prompt=1, completion=1) == 1


def test_cached_tokens_without_a_price_of_their_own_cost_what_input_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ModelInfo(id="plain", match=ClauseEquals("plain"), prices=ModelPrice(input_mtok=Decimal(1)))
    assert price("plain", listed(model, monkeypatch), prompt=10, cache_read=4, cache_write=3) == 10_000


def test_a_model_that_charges_by_the_request_charges_once() -> None:
    assert price("sonar", "perplexity", prompt=1) - price("sonar", "perplexity") == 1_000
    assert price("sonar", "perplexity") > 0


@pytest.mark.parametrize("provider", ["", "langchain", "Strands Agents", "litellm"])
def test_without_a_provider_that_the_list_knows_the_models_name_decides(provider: str) -> None:
    assert price("gpt-4o", provider, prompt=1) == 2_500


def test_a_gateways_prefix_names_the_provider() -> None:
    assert price("openai/gpt-4o", "", prompt=1) == 2_500
    assert price("openai/text-embedding-3-small", "litellm", embedding=1) == 20


@pytest.mark.parametrize("provider", ["ollama", "hosted_vllm", "llama.cpp"])
def test_a_self_hosted_model_has_no_price(provider: str) -> None:
    assert price("deepseek-chat", "", prompt=1) > 0
    assert price("deepseek-chat", provider, prompt=1) == -1


@pytest.mark.parametrize(
    "model", ["", " ", "no-such-model", "openai/", "/", "gpt-4o\x00(", "(?", "ы" * 256, "-20250231"]
)
@pytest.mark.parametrize("provider", ["", "openai", " ", "no such provider", "("])
def test_what_is_not_on_the_list_has_no_price(model: str, provider: str) -> None:
    assert price(model, provider, prompt=1, completion=1) == -1


@given(st.text(max_size=30), st.text(max_size=10))
def test_no_name_is_too_odd(model: str, provider: str) -> None:
    assert price(model, provider, prompt=1, completion=1) >= -1


def test_a_figure_that_the_model_has_no_price_for_makes_the_price_unknown() -> None:
    assert price("text-embedding-3-small", "openai", prompt=1) == 20
    assert price("text-embedding-3-small", "openai", prompt=1, completion=1) == -1
    assert price("whisper-1", "openai", prompt=1) == -1


def test_more_reasoning_than_completion_is_priced_as_all_of_it() -> None:
    assert price("sonar-deep-research", "perplexity", completion=10, reasoning=99) == 30_000


def test_more_cached_tokens_than_tokens_have_no_price() -> None:
    assert price("gpt-4o", "openai", prompt=10, cache_read=6, cache_write=5) == -1


def test_only_so_many_models_are_remembered() -> None:
    pricer = GenaiPricer(max_models=2)
    asked = [price(model, "openai", prompt=1, pricer=pricer) for model in ("gpt-4o", "nothing", "o3", "gpt-4o")]
    assert asked == [2_500, -1, 2_000, 2_500]
    assert list(pricer._listings) == [("o3", "openai"), ("gpt-4o", "openai")]
    assert price("o3", "openai", prompt=1, pricer=pricer) == 2_000


def test_the_counting_rule_takes_its_prices() -> None:
    call = Span(
        trace_id=bytes(16),
        span_id=b"spanspan",
        span_class=LLM,
        model="gpt-4o",
        provider="openai",
        start_us=NOVEMBER_2026_US,
        prompt_tokens=1000,
        completion_tokens=200,
        cache_read_tokens=400,
    )
    trace = rollup([call], GenaiPricer())
    assert (trace.cost_nano, trace.priced_costs, trace.unpriced_calls) == (4_000_000, 1, 0)


def test_the_price_of_a_condition_without_a_constraint_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    only = [ConditionalPrice(prices=ModelPrice(input_mtok=Decimal(1)))]
    model = ModelInfo(id="one", match=ClauseEquals("one"), prices=only)
    assert price("one", listed(model, monkeypatch), prompt=1) == 1_000
