"""The demo: everything on this machine, with traffic, and the sessions live.

Traffic → OTLP/HTTP → receiver → broker → worker → Redis and summaries → screen.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from aggregator.embedded.process import EmbeddedError

_OK: Final = 0
_FAILED: Final = 1


async def demo(*, seconds: float | None, http_port: int = 4318) -> int:
    """Run the demo for `seconds` (counted from the worker being ready; None = until Ctrl-C); returns the exit code.

    0: it ran, and what was sent is what Redis and the summaries show.  1: something did not start, died, or differs.
    Traffic stops early enough for the last sessions to close in time, but lasts three seconds at least.
    `http_port` is where OTLP/HTTP is received; another one is used, and named, if it is taken; 0 takes a free one.
    """
    try:
        from aggregator.embedded.show import show  # its imports need the extra
    except ImportError as error:
        print(f"The demo needs {error.name}: pip install 'session-aggregator[demo]'", file=sys.stderr)
        return _FAILED
    try:
        with _interrupts() as interrupted:
            outcome = await show(seconds=seconds, http_port=http_port, interrupted=interrupted)
    except EmbeddedError as error:
        print(f"The demo can't go on: {error}", file=sys.stderr)
        return _FAILED
    if outcome is None:
        print("Stopped before the worker was ready.")
        return _OK
    print(outcome.line(), flush=True)
    return _OK if outcome.good else _FAILED


@contextmanager
def _interrupts() -> Iterator[asyncio.Event]:
    """An event that Ctrl-C or SIGTERM sets; a second one acts as if nothing had been arranged."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)
    interrupted = asyncio.Event()

    def release() -> None:
        for number in signals:
            loop.remove_signal_handler(number)

    def interrupt() -> None:
        interrupted.set()
        release()

    for number in signals:
        loop.add_signal_handler(number, interrupt)
    try:
        yield interrupted
    finally:
        release()
