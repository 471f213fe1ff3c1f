"""The suite itself: what it lets pass and what it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.interop.catalogue import FOLDER, Producer, producers
from tests.interop.comparing import Seen, assert_same, expected
from tests.interop.differences import KINDS, Difference
from tests.interop.running import Told, Truth
from tests.interop.stubs import APIS
from tests.interop.stubs.bill import Bill, Charge
from tests.interop.stubs.openai import OpenAIStub

MODEL = "gpt-4o"
KEY = ("shop", "s-ada")


def producer(*differences: Difference, **more: Any) -> Producer:
    cells: dict[str, Any] = dict.fromkeys(("name", "title", "package", "environment", "session", "user"), "")
    return Producer(**cells, apis=(), differences=differences, **more)


def difference(kind: str, session: str = "s-ada", **more: Any) -> Difference:
    return Difference(session=session, kind=kind, reason="for a reason", **more)


def truth(*, errors: int = 0, told_errors: int = 0, streamed: bool = False) -> Truth:
    """One session with a call, perhaps one more that was streamed without usage, and an embedding."""
    bill = Bill()
    bill.charge("s-ada", MODEL)
    if streamed:
        bill.charge("s-ada", MODEL, told=False)
    bill.charge_embedding("s-ada", "embedder")
    for _ in range(errors):
        bill.refuse("s-ada")
    return Truth({"s-ada": Told(project="shop", user="ada", traces=2, error_traces=told_errors)}, bill)


def test_without_differences_the_bill_is_expected() -> None:
    one = truth()
    seen = expected(producer(), one)[KEY]
    charged = one.bill.sessions["s-ada"].models[MODEL]
    assert (seen.user, seen.traces, seen.total) == ("ada", 2, charged["prompt"] + charged["completion"])
    assert seen.models[MODEL] == {"calls": 1, "prompt": charged["prompt"], "completion": charged["completion"]}
    assert seen.embedding == one.bill.sessions["s-ada"].models["embedder"]["embedding"] > 0


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
    seen = expected(producer(difference("doubled", models={MODEL: "other"})), truth())[KEY]
    assert seen.models[MODEL] == seen.models["other"]


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
