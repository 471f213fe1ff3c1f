"""Waits for what another process does: polled, bounded, and with a word on what was waited for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

PATIENCE_S: Final = 30.0
"""Far more than anything here takes, so that a busy machine is no failing test."""

_POLL_S: Final = 0.02

T = TypeVar("T")


async def until(what: str, look: Callable[[], Awaitable[T]], *, timeout_s: float = PATIENCE_S) -> T:
    """Look again and again until there is something to see, and return that; else fail with `what`."""
    deadline = time.monotonic() + timeout_s
    while not (seen := await look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:g} s in vain until {what}")
        await asyncio.sleep(_POLL_S)
    return seen
