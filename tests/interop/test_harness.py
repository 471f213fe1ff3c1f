"""The suite itself: what it lets pass and what it does not."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.interop.catalogue import FOLDER, Producer, producers
from tests.interop.comparing import Cost, Seen, assert_same, billed_nano, expected
from tests.interop.differences import KINDS, Difference
from tests.interop.results import cost_cell
from tests.interop.running import Told, Truth
from tests.interop.stubs import APIS
from tests.interop.stubs.bill import Bill, Charge
from tests.interop.stubs.openai import OpenAIStub
from tests.interop.stubs.prices import PRICES, cost_nano, price_of

MODEL = "gpt-4o"
EMBEDDER = "text-embedding-3-small"
KEY = ("shop", "s-ada")


def producer(*differences: Difference, **more: Any) -> Producer:
    cells: dict[str, Any] = dict.fromkeys(("name", "title", "package", "environment", "session", "user"), "")
    return Producer(**cells, apis=(), differences=differences, **more)


def difference(kind: str, session: str = "s-ada", **more: Any) -> Difference:
    if kind == "reported_cost":
        more.setdefault("prices", {MODEL: {"prompt": Decimal("0.001"), "request": Decimal("0.5")}})
    return Difference(session=session, kind=kind, reason="for a reason", **more)


def truth(*, errors: int = 0, told_errors: int = 0, streamed: bool = False) -> Truth:
    """One session with a call, perhaps one more that was streamed without usage, and an embedding."""
    bill = Bill()
    bill.charge("s-ada", MODEL)
    if streamed:
        bill.charge("s-ada", MODEL, told=False)
    bill.charge_embedding("s-ada", EMBEDDER)
    for _ in range(errors):
        bill.refuse("s-ada")
    return Truth({"s-ada": Told(project="shop", user="ada", traces=2, error_traces=told_errors)}, bill)


def test_without_differences_the_bill_is_expected() -> None:
    one = truth()
    seen = expected(producer(), one)[KEY]
    charged = one.bill.sessions["s-ada"].models[MODEL]
    assert (seen.user, seen.traces, seen.total) == ("ada", 2, charged["prompt"] + charged["completion"])
    assert seen.models[MODEL] == {"calls": 1, "prompt": charged["prompt"], "completion": charged["completion"]}
    assert seen.embedding == one.bill.sessions["s-ada"].models[EMBEDDER]["embedding"] > 0


def test_what_was_not_told_is_missing_with_its_call() -> None:
    one = truth(streamed=True)
    sums, untold = one.bill.sessions["s-ada"].models[MODEL], one.bill.sessions["s-ada"].untold[MODEL]
    seen = expected(producer(difference("untold")), one)[KEY]
    assert seen.models[MODEL]["calls"] == 1
    assert seen.prompt == sums["prompt"] - untold["prompt"] > 0


def test_a_doubled_call_is_there_twice_and_an_embedding_once() -> None:
    once = expected(producer(), truth())[KEY]
    twice = expected(producer(difference("doubled", extra_traces=1)), truth())[KEY]
    assert (twice.prompt, twice.completion) == (2 * once.prompt, 2 * once.completion)
    assert (twice.embedding, twice.traces) == (once.embedding, 3)


def test_copies_may_bear_another_name() -> None:
    seen = expected(producer(difference("doubled", models={MODEL: "gpt-4o-mini"})), truth())[KEY]
    assert seen.models[MODEL] == seen.models["gpt-4o-mini"]
    assert seen.model_costs[MODEL] != seen.model_costs["gpt-4o-mini"]


def test_a_difference_that_makes_none_is_an_error() -> None:
    with pytest.raises(AssertionError, match="stated to differ"):
        expected(producer(difference("untold")), truth())


def test_a_difference_of_a_session_that_there_is_not_is_an_error() -> None:
    with pytest.raises(AssertionError, match="sessions that there are not"):
        expected(producer(difference("no_usage", "s-nobody")), truth())


def test_a_kind_of_difference_must_be_known() -> None:
    with pytest.raises(ValueError, match="not one of untold, doubled"):
        difference("somewhat")


@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_of_difference_changes_the_bill(kind: str) -> None:
    one = truth(errors=1, told_errors=1, streamed=True)
    before = one.to_json()
    expected(producer(difference(kind)), one)
    assert one.to_json() == before


def test_a_session_costs_what_each_of_its_calls_was_charged() -> None:
    bill = Bill()
    charges = [bill.charge("s-ada", MODEL, cache_write=True) for _ in range(200)]
    charges.append(bill.charge_embedding("s-ada", EMBEDDER))
    each = [cost_nano(price_of(EMBEDDER if one.embedding else MODEL), {"calls": 1, **one._asdict()}) for one in charges]
    one = Truth({"s-ada": Told(project="shop", user="ada", traces=2, error_traces=0)}, bill)
    assert billed_nano(one) == {"s-ada": sum(each)}
    assert expected(producer(), one)[KEY].cost == Cost(sum(each), "priced")


def test_each_kind_of_token_has_its_price() -> None:
    """By hand: 3 + 2 + 1 tokens of the prompt, 4 + 5 of the completion, 6 embedded, 2 calls."""
    names = ("prompt", "cache_read", "cache_write", "completion", "reasoning", "embedding")
    price = {name: Decimal(10**place) / 1000 for place, name in enumerate(names)} | {"request": Decimal("0.001")}
    sums = {"calls": 2, "prompt": 6, "cache_read": 2, "cache_write": 1, "completion": 9, "reasoning": 5, "embedding": 6}
    assert cost_nano(price, sums) == 654_123 + 2_000_000
    assert cost_nano({"prompt": Decimal("0.001"), "completion": Decimal("0.002")}, sums) == 6 + 2 * 9
    with pytest.raises(AssertionError, match="whole number"):
        cost_nano({"prompt": Decimal("0.0015")}, {"prompt": 1})
    with pytest.raises(AssertionError, match="more than the whole"):
        cost_nano(price, {"prompt": 1, "cache_read": 2})


def test_no_two_prices_are_the_same_and_every_model_has_all() -> None:
    names = {"prompt", "completion", "cache_read", "cache_write", "reasoning", "embedding", "request"}
    assert {model for model, price in PRICES.items() if set(price) != names} == set()
    found = [value for price in PRICES.values() for value in price.values()]
    assert len(set(found)) == len(found)


def test_what_a_producer_lacks_is_priced_as_what_it_is_a_detail_of() -> None:
    one, price = truth(), price_of(MODEL)
    sums = one.bill.sessions["s-ada"].models[MODEL]
    cheaper = (price["prompt"] - price["cache_read"]) * sums["cache_read"] * 1000
    dearer = (price["reasoning"] - price["completion"]) * sums["reasoning"] * 1000
    billed = billed_nano(one)["s-ada"]
    assert expected(producer(lacks=("cache_read",)), one)[KEY].cost.nano_usd == billed + cheaper
    assert expected(producer(lacks=("reasoning",)), one)[KEY].cost.nano_usd == billed - dearer
    assert expected(producer(difference("no_details")), one)[KEY].cost.nano_usd == billed + cheaper - dearer


def test_a_reported_cost_is_shown_instead_of_the_bills() -> None:
    one = truth()
    plain, seen = expected(producer(), one)[KEY], expected(producer(difference("reported_cost")), one)[KEY]
    sums = one.bill.sessions["s-ada"].models[MODEL]
    assert seen.model_costs[MODEL] == Cost(sums["prompt"] + 500_000_000, "reported")
    assert seen.model_costs[EMBEDDER] == plain.model_costs[EMBEDDER]
    assert seen.cost == Cost(seen.model_costs[MODEL].nano_usd + seen.model_costs[EMBEDDER].nano_usd, "mixed")


def test_a_cost_is_reported_by_the_prices_that_are_stated_and_by_no_others() -> None:
    with pytest.raises(AssertionError, match="no calls of gpt-5"):
        expected(producer(difference("reported_cost", prices={"gpt-5": {"request": Decimal(1)}})), truth())
    with pytest.raises(ValueError, match="if, and only if"):
        difference("no_details", prices={MODEL: {"request": Decimal(1)}})
    with pytest.raises(ValueError, match="if, and only if"):
        difference("reported_cost", prices={})


@pytest.mark.parametrize(
    ("sources", "stated", "lacks", "said"),
    [
        ({}, (), (), "as billed"),
        ({"s-ada": "none", "s-grace": "none"}, ("no_usage",), (), "none"),
        ({"s-ada": "reported", "s-grace": "reported"}, ("reported_cost",), (), "reported"),
        ({"s-grace": "reported"}, ("reported_cost",), (), "as billed; where it is told, reported"),
        ({"s-ada": "mixed"}, ("reported_cost",), (), "as billed; where it is told, reported"),
    ],
)
def test_a_row_says_what_came_of_comparing_costs(
    sources: dict[str, str], stated: tuple[str, ...], lacks: tuple[str, ...], said: str
) -> None:
    made = producer(*(difference(kind) for kind in stated), lacks=lacks)
    billed = {"s-ada": 7, "s-grace": 9}
    shown = {one: Cost(nano + (one in sources), sources.get(one, "priced")) for one, nano in billed.items()}
    assert cost_cell(made, billed, shown) == said


@pytest.mark.parametrize(
    ("stated", "lacks", "why"),
    [
        ((), ("cache_read", "reasoning"), "cached and reasoning tokens at the plain price"),
        (("no_details",), (), "cached and reasoning tokens at the plain price"),
        (("no_reasoning",), (), "reasoning tokens at the plain price"),
        (("untold",), (), "see remarks"),
        (("doubled",), ("reasoning",), "reasoning tokens at the plain price; see remarks"),
    ],
)
def test_a_row_says_why_costs_differ(stated: tuple[str, ...], lacks: tuple[str, ...], why: str) -> None:
    made = producer(*(difference(kind) for kind in stated), lacks=lacks)
    assert cost_cell(made, {"s-ada": 7}, {"s-ada": Cost(8, "priced")}) == f"as billed, but {why}"


def test_the_stubs_errors_must_be_what_the_producer_says() -> None:
    with pytest.raises(AssertionError, match="refused 1 times"):
        expected(producer(), truth(errors=1))


def test_a_charged_session_that_the_producer_does_not_know_is_an_error() -> None:
    one = truth()
    one.bill.charge("s-grace", MODEL)
    with pytest.raises(AssertionError, match="denies"):
        expected(producer(), one)


def test_each_field_that_differs_is_named() -> None:
    right = expected(producer(), truth())
    wrong = {KEY: Seen(**{**vars(right[KEY]), "prompt": 7})}
    with pytest.raises(AssertionError, match=rf"shop/s-ada prompt: shown 7, billed {right[KEY].prompt}$"):
        assert_same(wrong, right)
    dear = {KEY: replace(right[KEY], cost=Cost(right[KEY].cost.nano_usd + 1, "priced"))}
    with pytest.raises(AssertionError, match="shop/s-ada cost: shown Cost"):
        assert_same(dear, right)
    with pytest.raises(AssertionError, match="other sessions"):
        assert_same({}, right)


def test_no_two_answers_cost_the_same() -> None:
    bill = Bill()
    charges = [bill.charge("s-ada", MODEL, cache_write=True) for _ in range(200)]
    for name in Charge._fields:
        figures = [getattr(charge, name) for charge in charges]
        assert name == "embedding" or len(set(figures)) == len(figures)
    assert all(one.cache_read + one.cache_write < one.prompt and one.reasoning < one.completion for one in charges)


def test_a_session_is_known_by_its_last_mark_and_else_by_its_key() -> None:
    bill = Bill()
    assert bill.session_of("[[s-ada]] and then [[s-grace]]", "sk-s-linus") == "s-grace"
    assert bill.session_of("", "Bearer sk-s-linus") == "s-linus"
    assert not bill.strays
    assert bill.session_of("who?") == "s-nobody"
    assert bill.strays == ["who?"]


def test_the_bill_survives_being_kept() -> None:
    one = truth(errors=1, told_errors=1, streamed=True)
    assert Truth.from_json(one.to_json()).to_json() == one.to_json()
    assert expected(producer(), Truth.from_json(one.to_json())) == expected(producer(), one)


@pytest.mark.parametrize(
    ("stream", "options", "told"),
    [(False, None, True), (True, None, False), (True, {"include_usage": True}, True)],
)
async def test_a_streamed_answer_tells_its_usage_only_if_asked(stream: bool, options: Any, told: bool) -> None:
    bill = Bill()
    asked = {"model": MODEL, "messages": [{"role": "user", "content": "[[s-ada]]"}], "stream": stream}
    if options:
        asked["stream_options"] = options
    async with (
        OpenAIStub(bill) as api,
        aiohttp.ClientSession() as http,
        http.post(f"{api.url}/v1/chat/completions", json=asked) as answer,
    ):
        text = await answer.text()
    assert ("prompt_tokens" in text) is told
    assert bool(bill.sessions["s-ada"].untold) is not told
    assert len(bill.sessions["s-ada"].models) == 1


def test_every_script_is_a_producer_or_part_of_one() -> None:
    shared = {"backend.py", "front.py", "shop.mjs", "shop.py", "vercel_ai.mjs"}
    scripts = {path.name for path in FOLDER.iterdir() if path.suffix in (".py", ".mjs")}
    assert scripts - shared == {one.script.name for one in producers()}


def test_every_producer_uses_apis_that_there_are() -> None:
    assert {api for one in producers() for api in one.apis} <= set(APIS)


def test_whoever_differs_from_the_bill_has_a_remark_on_it() -> None:
    assert [one.name for one in producers() if one.differences and not one.remarks] == []


def test_a_misspelt_key_of_a_producer_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "misspelt.toml"
    path.write_text((FOLDER / "baggage.toml").read_text() + 'remark = "?"\n')
    with pytest.raises(TypeError, match="remark"):
        Producer.load(path)
