"""The only place where a clock is read."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """The clock of this machine (`ports.Clock`)."""

    def now_ms(self) -> int:
        """Wall clock, milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Seconds that never go back, for durations."""
        return time.monotonic()

    async def sleep_s(self, seconds: float) -> None:
        """Wait; other tasks run meanwhile."""
        await asyncio.sleep(seconds)
