"""Prices of the operator's own: exact, before the list, and every mistake in the file told by its place."""

from __future__ import annotations

import json
import re
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.adapters.own_prices import OwnPrice, OwnPricer, read_own_prices
from aggregator.adapters.prices import GenaiPricer
from aggregator.app import pricer as composed_pricer
from aggregator.core.errors import ConfigurationError
from aggregator.core.pricing import Pricer
from aggregator.settings import PricingSettings

TOKENS = st.one_of(st.integers(0, 5), st.integers(0, 10**12))
USD = st.none() | st.decimals(0, 10**6, places=12) | st.sampled_from([Decimal(0), Decimal("2.5")])


class Listed(Pricer):
    """Stands for the list: every call costs 7, and what was asked is kept."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []

    def price_nano(self, *figures: object) -> int:
        self.asked.append(figures)
        return 7


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def pricer(path: Path, text: str) -> OwnPricer:
    return OwnPricer(read_own_prices(write(path / "prices.toml", text)), Listed())


def cost(own: Pricer, model: str, provider: str = "", **figures: int) -> int:
    names = ("prompt", "completion", "cache_read", "cache_write", "reasoning", "embedding")
    return own.price_nano(model, provider, 1, *(figures.get(name, 0) for name in names))


def problems(path: Path) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read_own_prices(path)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    return [line.removeprefix(f"{path}: ") for line in lines]


def test_each_kind_of_token_costs_what_the_file_says(tmp_path: Path) -> None:
    own = pricer(
        tmp_path,
        """
        ["llama-*"]
        prompt = 1
        completion = 10
        cache_read = 0.1
        cache_write = 1.25
        reasoning = 5.5
        embedding = 0.02
        request = 0.001
        """,
    )
    assert cost(own, "llama-3") == 1_000_000
    assert cost(own, "llama-3", prompt=100, cache_read=10, cache_write=20) == 1_000_000 + 70_000 + 1_000 + 25_000
    assert cost(own, "llama-3", completion=100, reasoning=10) == 1_000_000 + 900_000 + 55_000
    assert cost(own, "llama-3", completion=10, reasoning=99) == 1_000_000 + 55_000
    assert cost(own, "llama-3", embedding=1000) == 1_000_000 + 20_000


def test_what_has_no_price_of_its_own_costs_what_it_is_part_of(tmp_path: Path) -> None:
    own = pricer(tmp_path, "[m]\nprompt = 1\ncompletion = 2\n")
    assert cost(own, "m", prompt=10, cache_read=3, cache_write=4, completion=10, reasoning=5) == 30_000
    assert cost(own, "m", embedding=5) == 5_000


def test_a_call_that_uses_what_has_no_price_has_none_and_zero_is_a_price(tmp_path: Path) -> None:
    own = pricer(tmp_path, "[m]\nprompt = 0\n[e]\nembedding = 1\n[r]\nrequest = 0.5\n")
    assert cost(own, "m", prompt=10) == 0
    assert cost(own, "m", prompt=10, completion=1) == -1
    assert cost(own, "m", prompt=10, cache_read=6, cache_write=5) == -1
    assert cost(own, "e", prompt=1) == -1
    assert (cost(own, "r"), cost(own, "r", completion=1)) == (500_000_000, -1)


def test_the_first_pattern_that_matches_decides_whatever_the_case(tmp_path: Path) -> None:
    own = pricer(
        tmp_path, '["GPT-4o-mini"]\nprompt = 1\n["gpt-4o*"]\nprompt = 2\n["*"]\nprovider = "VLLM*"\nprompt = 3\n'
    )
    assert [cost(own, model, prompt=1) for model in ("gpt-4o-mini", " GPT-4O ", "gpt-4o-2024")] == [1000, 2000, 2000]
    assert cost(own, "anything", "vllm-eu", prompt=1) == 3000
    assert cost(own, "anything", "openai", prompt=1) == 7


def test_other_models_are_asked_of_the_list_with_all_that_is_known() -> None:
    listed = Listed()
    own = OwnPricer({"m": OwnPrice(prompt=Decimal(1))}, listed)
    assert own.price_nano("other", "p", 1, 2, 3, 4, 5, 6, 7) == 7
    assert listed.asked == [("other", "p", 1, 2, 3, 4, 5, 6, 7)]


def test_only_so_many_models_are_remembered() -> None:
    own = OwnPricer({"m": OwnPrice(prompt=Decimal(1))}, Listed(), max_models=2)
    assert [cost(own, model, prompt=1) for model in ("m", "x", "y", "m")] == [1000, 7, 7, 1000]
    assert list(own._found) == [("y", ""), ("m", "")]


@given(USD, USD, USD, TOKENS, TOKENS, st.floats(0, 1))
def test_prices_are_exact(
    prompt: Decimal | None, read: Decimal | None, per_call: Decimal | None, tokens: int, more: int, part: float
) -> None:
    own = OwnPricer({"m": OwnPrice(prompt=prompt, completion=Decimal(0), cache_read=read, request=per_call)}, Listed())
    cached = int(tokens * part)
    of_cached = prompt if read is None else read
    if (tokens > cached and prompt is None) or (cached and of_cached is None):
        expected = -1
    else:
        usd = (tokens - cached) * (prompt or 0) + cached * (of_cached or 0) + (per_call or 0) * 10**6
        expected = int((usd * 1000).to_integral_value(ROUND_HALF_EVEN)) if isinstance(usd, Decimal) else usd * 1000
    assert cost(own, "m", prompt=tokens, completion=more, cache_read=cached) == expected


def test_the_readme_s_example_is_one(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", Path("README.md").read_text(encoding="utf-8"), re.DOTALL)
    prices = read_own_prices(write(tmp_path / "p.toml", example))
    assert prices["llama-3*"].model_fields_set == set(OwnPrice.model_fields) - {"cache_write", "embedding"}
    assert prices["my-embedder"] == OwnPrice(embedding=Decimal("0.01"))


def test_json_says_the_same(tmp_path: Path) -> None:
    toml = write(tmp_path / "p.toml", '["a*"]\nprompt = 0.1\nprovider = "x"\n[b]\nrequest = 1e-3\n')
    same = write(tmp_path / "p.JSON", '\ufeff{"a*": {"prompt": 0.1, "provider": "x"}, "b": {"request": 1e-3}}')
    assert read_own_prices(toml) == read_own_prices(same)


def test_every_mistake_is_told_by_its_place(tmp_path: Path) -> None:
    path = write(
        tmp_path / "prices.json",
        json.dumps(
            {
                "a": {"prompt": -1, "completion": "cheap", "reasoning": True},
                "b": {"promt": 1},
                "c": 3,
                "d": {"prompt": 1e7, "cache_read": 1e-13, "provider": " "},
                " ": {"prompt": 1},
            }
        ),
    )
    found = problems(path)
    places = [line.partition(": ")[0] for line in found]
    assert places == [
        '"a"."prompt"', '"a"."completion"', '"a"."reasoning"', '"b"."promt"', '"c"', '"d"."provider"', '"d"."prompt"',
        '"d"."cache_read"', '" "',
    ]  # fmt: skip
    assert found[0].endswith("greater than or equal to 0, not '-1'")
    assert found[2].endswith("must be a number, not 'True'")
    assert "there is no such price; there are prompt, completion" in found[3]
    assert "table (object) of prices, not '3'" in found[4]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("p.json", "{", "can't be read: "),
        ("p.json", '{"m": {"prompt": NaN}}', '"m"."prompt": '),
        ("p.json", "[1]", "the file: must be a table (object) of model patterns, not '[1]'"),
        ("p.json", '{"m": {"prompt": 1}, "m": {"prompt": 2}}', 'can\'t be read: "m" occurs twice'),
        ("p.json", '{"m": {"prompt": 1}, "M": {"prompt": 2}}', "two of its patterns differ only in case"),
        ("p.json", '{"m": {"provider": "x"}}', '"m": must have one of prompt, '),
        ("p.json", "[" * 100_000, "can't be read: "),
        ("p.toml", "[m]\nprompt = inf", '"m"."prompt": '),
        ("p.toml", "[m]\nprompt = 1\n[m]\n", "can't be read: "),
        ("p.toml", "[m]\nprompt = \n", "can't be read: "),
        ("p.yaml", "m: {prompt: 1}", "must be named .json or .toml"),
    ],
)
def test_a_file_that_can_t_be_used_says_why(tmp_path: Path, name: str, text: str, said: str) -> None:
    (found,) = problems(write(tmp_path / name, text))
    assert found.startswith(said)


def test_a_file_that_is_away_or_no_text_says_so(tmp_path: Path) -> None:
    assert problems(tmp_path / "away.json") == ["must be a readable file: No such file or directory"]
    (tmp_path / "p.json").write_bytes(b"\xff\xfe")
    assert problems(tmp_path / "p.json")[0].startswith("can't be read: ")


def test_the_worker_prices_by_the_settings(tmp_path: Path) -> None:
    path = write(tmp_path / "p.toml", '["gpt-4o"]\nprompt = 99\n')
    own = composed_pricer(PricingSettings(file=path))
    assert isinstance(own, OwnPricer)
    assert (cost(own, "gpt-4o", prompt=1), cost(own, "gpt-4o-mini", prompt=1)) == (99_000, 150)
    assert isinstance(composed_pricer(PricingSettings()), GenaiPricer)
    assert type(composed_pricer(PricingSettings(enabled=False))) is Pricer
    with pytest.raises(ConfigurationError, match=r"AGGREGATOR_PRICING__FILE: .*p\.toml: \"m\": must have one"):
        composed_pricer(PricingSettings(file=write(path, "[m]\n")))
