"""The time that all workers agree on: that of the store, whatever a worker's own clock says.

Log times and watermarks of one worker are compared with those of others, and are kept.  A worker whose clock is an
hour ahead would close sessions early, and hold those of its records for an hour; so every worker goes by the clock of
the one server that all of them write to.
"""

from __future__ import annotations

from typing import Final

from aggregator.ports import Clock, SharedClock
from aggregator.telemetry import Event, Metrics, get_logger

log = get_logger()

_AGREE_EVERY_S: Final = 1.0
_WORTH_A_LINE_MS: Final = 1000


class AgreedClock:
    """`ports.Clock`, set right by a `SharedClock`.

    What that says holds for some moment between question and answer, so it only bounds how far off the own clock is,
    and the correction is moved no further than those bounds ask: a slow answer says little and does no harm.
    """

    def __init__(self, own: Clock, shared: SharedClock, metrics: Metrics) -> None:
        self._own = own
        self._shared = shared
        self._metrics = metrics
        self._correction_ms = 0
        self._told_ms = 0
        self._agree_at_s: float | None = None
        self.monotonic_s = own.monotonic_s
        self.sleep_s = own.sleep_s

    def now_ms(self) -> int:
        """Agreed wall clock, milliseconds since the epoch."""
        return self._own.now_ms() + self._correction_ms

    def agreed_ms(self, own_ms: int) -> int:
        """The agreed time of a past moment that the own clock has told; 0, which is none, stays.

        Never after now: a clock that was set back since then would make it a moment that is yet to come.
        """
        return min(own_ms, self._own.now_ms()) + self._correction_ms if own_ms else 0

    async def agree(self) -> None:
        """Ask, unless that was done within the last second; raises what the shared clock raises."""
        if self._agree_at_s is not None and self.monotonic_s() < self._agree_at_s:
            return
        asked_ms = self._own.now_ms()
        shared_ms = await self._shared.now_ms()
        answered_ms = self._own.now_ms()
        self._agree_at_s = self.monotonic_s() + _AGREE_EVERY_S
        # Bounds of the whole correction, not steps to take: both paths may ask at the same time.
        self._correction_ms = max(shared_ms - answered_ms, min(self._correction_ms, shared_ms - asked_ms))
        self._metrics.clock_correction(self._correction_ms / 1000)
        if abs(self._correction_ms - self._told_ms) >= _WORTH_A_LINE_MS:
            self._told_ms = self._correction_ms
            log.warning(Event.CLOCK_CORRECTED, seconds=self._correction_ms / 1000)
