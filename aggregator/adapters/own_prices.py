"""Prices of the operator's own: a file of model patterns that goes in front of the list.

JSON or TOML, told by the file's name.  Each entry is a pattern over model names with prices in USD, per million tokens
but for `request`; the first pattern that matches decides, also where it has no price for what a call used:

    ["gpt-4o*"]
    provider = "azure*"   # only there; without it anywhere
    prompt = 2.0
    completion = 8.0
    cache_read = 1.0      # without it as prompt, likewise cache_write and embedding
    reasoning = 8.0       # without it as completion
    request = 0.0         # per call
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from aggregator.core.errors import ConfigurationError
from aggregator.core.pricing import UNKNOWN_PRICE, Pricer

_PARTS: Final = 10**15
"""Rates are whole numbers of so many parts of a nano-dollar: a price has at most 12 decimals and is per million."""
_PARTS_PER_USD: Final = 10**9 * _PARTS
_MTOK: Final = 10**6


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic turns only this one into a problem
    return value


_Usd = Annotated[Decimal, BeforeValidator(_number), Field(ge=0, le=_MTOK, decimal_places=12, allow_inf_nan=False)]
_Pattern = Annotated[str, StringConstraints(strip_whitespace=True, to_lower=True, min_length=1)]


class OwnPrice(BaseModel):
    """The prices of the models that `pattern` matches, in USD per million tokens, `request` per call."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: _Pattern = "*"
    prompt: _Usd | None = None
    completion: _Usd | None = None
    cache_read: _Usd | None = None
    cache_write: _Usd | None = None
    reasoning: _Usd | None = None
    embedding: _Usd | None = None
    request: _Usd | None = None


OwnPrices = Mapping[str, OwnPrice]
"""By pattern, in the order of the file."""

_FILE: Final = TypeAdapter(dict[_Pattern, OwnPrice])
_PRICES: Final = tuple(name for name in OwnPrice.model_fields if name != "provider")


def read_own_prices(path: Path) -> OwnPrices:
    """Read a file of prices; raises `ConfigurationError` with a line for each problem that says where it is."""
    document: Any = _parsed(path)
    try:
        prices = _FILE.validate_python(document)
    except ValidationError as error:
        _refuse(path, [_problem(detail["loc"], detail) for detail in error.errors(include_url=False)])
    if len(prices) < len(document):
        _refuse(path, ["two of its patterns differ only in case or blanks, which make no difference"])
    empty = [name for name, price in prices.items() if all(getattr(price, one) is None for one in _PRICES)]
    if empty:
        _refuse(path, [f'"{name}": must have one of {", ".join(_PRICES)} at least' for name in empty])
    return prices


def _refuse(path: Path, problems: Sequence[str]) -> NoReturn:
    raise ConfigurationError("\n".join(f"{path}: {problem}" for problem in problems))


def _parsed(path: Path) -> object:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".toml":
            return tomllib.loads(text, parse_float=Decimal)
        if path.suffix.lower() == ".json":
            return json.loads(text, parse_float=Decimal, object_pairs_hook=_once)
    except OSError as error:
        _refuse(path, [f"must be a readable file: {error.strerror}"])
    except (ValueError, RecursionError) as error:
        _refuse(path, [f"can't be read: {error}"])
    _refuse(path, ["must be named .json or .toml, by what it is written in"])


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """TOML refuses a key that occurs twice by itself; of JSON's the first would be lost in silence."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f'"{name}" occurs twice')
        found[name] = value
    return found


def _problem(place: tuple[int | str, ...], detail: Any) -> str:
    where = ".".join(f'"{part}"' for part in place if part != "[key]") or "the file"
    if detail["type"] == "extra_forbidden":
        return f"{where}: there is no such price; there are {', '.join(_PRICES)}, and provider"
    text = detail["msg"].removeprefix("Value error, ")
    if detail["type"] in ("dict_type", "model_type"):
        text = "must be a table (object) of prices" if place else "must be a table (object) of model patterns"
    return f"{where}: {text[0].lower()}{text[1:]}, not {str(detail['input'])[:40]!r}"


class OwnPricer(Pricer):
    """Prices by the operator's own prices where a pattern matches, else by those of another pricer."""

    def __init__(self, prices: OwnPrices, otherwise: Pricer, *, max_models: int = 4096) -> None:
        """`max_models` bounds how many (model, provider) pairs are remembered."""
        self._rates = [(pattern, price.provider, _Rate(price)) for pattern, price in prices.items()]
        self._otherwise = otherwise
        self._max_models = max_models
        self._found: dict[tuple[str, str], _Rate | None] = {}

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
        key = (model, provider)
        if key not in self._found:
            self._remember(model, provider)
        rate = self._found[key]
        figures = (prompt_tokens, completion_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens)
        if rate is None:
            return self._otherwise.price_nano(model, provider, start_us, *figures, embedding_tokens)
        return rate.nano(*figures, embedding_tokens)

    def _remember(self, model: str, provider: str) -> None:
        if len(self._found) >= self._max_models:
            del self._found[next(iter(self._found))]
        name, by = model.strip().lower(), provider.strip().lower()
        matching = (rate for model, who, rate in self._rates if fnmatchcase(name, model) and fnmatchcase(by, who))
        self._found[model, provider] = next(matching, None)


class _Rate:
    """The price of one entry, in parts of a nano-dollar per token; None where there is none."""

    __slots__ = ("cache_read", "cache_write", "completion", "embedding", "prompt", "reasoning", "request")

    def __init__(self, price: OwnPrice) -> None:
        self.prompt = _per_token(price.prompt)
        self.completion = _per_token(price.completion)
        self.cache_read = _per_token(price.cache_read, self.prompt)
        self.cache_write = _per_token(price.cache_write, self.prompt)
        self.reasoning = _per_token(price.reasoning, self.completion)
        self.embedding = _per_token(price.embedding, self.prompt)
        self.request = int((price.request or Decimal(0)) * _PARTS_PER_USD)

    def nano(
        self, prompt: int, completion: int, cache_read: int, cache_write: int, reasoning: int, embedding: int
    ) -> int:
        uncached = prompt - cache_read - cache_write
        if uncached < 0:
            return UNKNOWN_PRICE
        reasoning = min(reasoning, completion)
        parts = self.request
        for tokens, rate in (
            (uncached, self.prompt),
            (cache_read, self.cache_read),
            (cache_write, self.cache_write),
            (completion - reasoning, self.completion),
            (reasoning, self.reasoning),
            (embedding, self.embedding),
        ):
            if tokens > 0:
                if rate is None:
                    return UNKNOWN_PRICE
                parts += tokens * rate
        nano, rest = divmod(parts, _PARTS)
        rest += rest
        return nano + 1 if rest > _PARTS or (rest == _PARTS and nano & 1) else nano


def _per_token(usd_per_mtok: Decimal | None, otherwise: int | None = None) -> int | None:
    return otherwise if usd_per_mtok is None else int(usd_per_mtok * (_PARTS_PER_USD // _MTOK))
