"""Calls to outside systems, repeated until they succeed, and what the trouble is meanwhile.

Nothing here gives up: a backlog waits in Kafka, and restarting the process would not bring Redis back.
`/readyz` shows what is being waited for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential_jitter

from aggregator.core.errors import StoreUnavailable, TransientError
from aggregator.ports import Clock
from aggregator.telemetry import Event, Metrics, get_logger

log = get_logger()

_FIRST_WAIT_S = 0.05
# Work goes on within two seconds of the server's return, also where two tries then only find out that its connection is
# a new one (`_raise_anew` of adapters/redis), and that another server is the master now, and wait once more each.
_LONGEST_WAIT_S = 0.6

_T = TypeVar("_T")


class Retrying:
    """Repeats a call on `TransientError` with exponential back-off and jitter; all else passes through."""

    def __init__(self, *, clock: Clock, metrics: Metrics) -> None:
        self._clock = clock
        self._metrics = metrics
        self._trouble: dict[str, str] = {}
        self.store_failures = 0
        """How often a store has failed: after each time another server may answer, which has missed some writes."""

    async def __call__(self, operation: str, call: Callable[[], Awaitable[_T]]) -> _T:
        """The call's answer; `call` is made anew for each try and must be safe to repeat."""
        try:
            answer = await call()  # the rule: nothing goes wrong, and nothing more than this is paid for
        except TransientError as error:
            self.failed(operation, error)
            await self._clock.sleep_s(_FIRST_WAIT_S)
            answer = await self._repeat(operation, call)
            self.succeeded(operation)
        return answer

    async def _repeat(self, operation: str, call: Callable[[], Awaitable[_T]]) -> _T:
        def note(state: RetryCallState) -> None:
            if state.outcome is not None and isinstance(error := state.outcome.exception(), TransientError):
                self.failed(operation, error)

        async def attempt() -> _T:  # tenacity awaits only what it can see to be a coroutine function
            return await call()

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(TransientError),
            wait=wait_exponential_jitter(multiplier=_FIRST_WAIT_S, max=_LONGEST_WAIT_S, jitter=_FIRST_WAIT_S),
            sleep=self._clock.sleep_s,
            after=note,
        )
        return await retrying(attempt)

    def failed(self, operation: str, error: TransientError) -> None:
        """A try failed; logged when the trouble begins or changes, not at every try."""
        if isinstance(error, StoreUnavailable):
            self.store_failures += 1
            self._metrics.redis_retries()
        if self._trouble.get(operation) != str(error):
            log.warning(Event.RETRYING, operation=operation, error=str(error))
        self._trouble[operation] = str(error)

    def succeeded(self, operation: str) -> None:
        """The operation works again."""
        if self._trouble.pop(operation, None) is not None:
            log.info(Event.RECOVERED, operation=operation)

    def trouble(self) -> list[str]:
        """What is being waited for now, one sentence each; empty when all is well."""
        return [f"{operation}: {error}" for operation, error in sorted(self._trouble.items())]
