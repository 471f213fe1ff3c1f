"""What the counting rule asks of a price list."""

from __future__ import annotations

from typing import Final

from mypy_extensions import mypyc_attr

UNKNOWN_PRICE: Final = -1
"""The price of a call where the model, or one of the figures, has none."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Pricer:
    """Prices a call; this one knows no price, for those who switched pricing off.

    An adapter subclasses it with a maintained price list.  The answer depends on the arguments alone.
    """

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
        """The cost in nano-dollars, rounded half-even once; `UNKNOWN_PRICE` where it is not known.

        `prompt_tokens` includes the cached ones, `completion_tokens` includes reasoning.
        `embedding_tokens` is set instead of both for an embedding.
        """
        return UNKNOWN_PRICE
