"""aiokafka's producer, mended: bounded waiting, and a new one in place of one that is broken for good.

The producer is idempotent where the broker has that, so a retry inside aiokafka makes no duplicate.  Three things of
aiokafka's need care:

* A batch that the broker refuses has used up its sequence numbers, so all later ones of its partition are refused as
  out of order, for ever.  Then a new producer, with a new id, takes over; what it sends again may come twice, which
  consumers of summaries and dead letters can tell.
* An idempotent producer never gives a batch up, so waiting is bounded here.  What was given up here may still arrive.
* A batch of several records is refused as a whole; then each is sent alone, to find the one to blame.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    IncompatibleBrokerVersion,
    KafkaError,
    MessageSizeTooLargeError,
    UnknownError,
)

from aggregator.adapters.kafka.access import Access
from aggregator.adapters.kafka.security import Security
from aggregator.core.errors import BrokerUnavailable
from aggregator.telemetry import Event, get_logger

log = get_logger()

# What a broker takes at most (socket.request.max.bytes), less what stands around a message: it hangs up on more, and
# judges the rest.
_REQUEST_BYTES: Final = 100 * 1024 * 1024 - 64 * 1024
_BATCH_BYTES: Final = 256 * 1024  # well below the 1 MB that topics take by default, and some 100 summaries
_STOP_WITHIN_S: Final = 5.0  # whoever wanted an acknowledgement has waited for it before
_NO_IDEMPOTENCE: Final = (UnknownError, IncompatibleBrokerVersion, ClusterAuthorizationFailedError)
"""How a broker says that it gives no producer ids: the embedded one, one before 0.11, and ACLs before Kafka 3.0."""


class Message(NamedTuple):
    """What is sent; with neither key nor value aiokafka refuses it."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class Producer:
    """Sends messages and waits for their acknowledgement by all in-sync replicas.

    `compression` is None, `gzip`, `snappy`, `lz4` or `zstd`.  None by default: aiokafka's gzip is at its slowest level,
    the other three are more than some consumers can read, and a topic's `compression.type` does the same in the broker.
    `delivery_timeout_s` bounds each `send`; it has its value because a leader that dies is replaced within some 10 s.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        client_id: str = "session-aggregator",
        compression: str | None = None,
        delivery_timeout_s: float = 30.0,
        security: Security | None = None,
    ) -> None:
        self._access = access = Access(bootstrap_servers, security)
        self._arguments = {
            "bootstrap_servers": bootstrap_servers,
            "client_id": client_id,
            "compression_type": compression,
            "acks": "all",
            "max_request_size": _REQUEST_BYTES,
            "max_batch_size": _BATCH_BYTES,
            "request_timeout_ms": int(delivery_timeout_s * 1000),
            "metadata_max_age_ms": 30_000,
            **access.security.client_arguments(),
        }
        self._timeout_s = delivery_timeout_s
        self._idempotent = True
        self._current: AIOKafkaProducer | None = None
        self._replacing = asyncio.Lock()

    @property
    def idempotent(self) -> bool:
        """Whether the broker gave a producer id; known after `start`."""
        return self._idempotent

    async def start(self) -> None:
        """Connect; raises `BrokerUnavailable` and `ConfigurationError`."""
        doing = f"connecting to Kafka at {self._access.bootstrap_servers} as a producer"
        async with self._access.connecting(doing, "Write"):
            async with asyncio.timeout(self._timeout_s):
                self._current = await self._connect()

    async def close(self) -> None:
        """Send what is still to be sent, for a bounded time, and disconnect; may be repeated."""
        current, self._current = self._current, None
        if current is not None:
            await self._stop(current)

    async def send(self, messages: Sequence[Message]) -> list[int]:
        """Send all at once and wait for each; returns the indices of those that the broker refuses as too large.

        All others are acknowledged then.  Raises `BrokerUnavailable` where that can't be said of all (sending all of
        them again is safe), also where a topic is missing or may not be written, and `ConfigurationError`.
        """
        if self._current is None:
            raise BrokerUnavailable("sending to Kafka: the producer is not started")
        topics = ", ".join(sorted({message.topic for message in messages}))
        async with self._access.connecting(f"sending to topic {topics}", "Write"):
            try:
                async with asyncio.timeout(self._timeout_s):
                    producer = self._current
                    refused = await self._send(producer, messages)
                    return await self._replace(producer, messages, refused) if refused else []
            except TimeoutError as error:
                raise BrokerUnavailable(
                    f"Kafka has not acknowledged what was sent to topic {topics} for {self._timeout_s:g} s; is the "
                    "topic there?"
                ) from error

    async def _send(self, producer: AIOKafkaProducer, messages: Sequence[Message]) -> list[int]:
        """Send all and wait for each; returns the indices of those that were refused for good."""
        waiting: dict[int, asyncio.Future[object]] = {}
        errors: dict[int, BaseException | None] = {}
        try:
            for index, (topic, key, value, headers) in enumerate(messages):
                try:
                    waiting[index] = await producer.send(topic, value, key=key, headers=list(headers))
                except MessageSizeTooLargeError as refusal:  # aiokafka itself, on what no broker takes
                    errors[index] = refusal
            if waiting:
                await asyncio.wait(waiting.values())
        finally:
            for future in waiting.values():  # where we gave up, nobody else looks at how it ends
                future.add_done_callback(_look_at)
        errors |= {index: future.exception() for index, future in waiting.items()}
        for failure in errors.values():
            if failure is not None and not (isinstance(failure, KafkaError) and not failure.retriable):
                raise failure
        return sorted(index for index, failure in errors.items() if failure is not None)

    async def _replace(self, broken: AIOKafkaProducer, messages: Sequence[Message], refused: list[int]) -> list[int]:
        """Put a new producer in the place of one that has refused some; returns those that are really too large.

        The new one is nobody else's yet, so each message is alone in its batch.
        """
        too_large: list[int] = []
        async with self._replacing:
            spare = await self._connect()
            try:
                for index in refused:
                    topic, key, value, headers = messages[index]
                    try:
                        await spare.send_and_wait(topic, value, key=key, headers=list(headers))
                    except MessageSizeTooLargeError:
                        too_large.append(index)
                        await self._stop(spare)
                        spare = await self._connect()
                if self._current is broken:
                    self._current, spare = spare, broken
            finally:
                await self._stop(spare)
        return too_large

    async def _connect(self) -> AIOKafkaProducer:
        if self._idempotent:
            try:
                return await self._started(enable_idempotence=True)
            except _NO_IDEMPOTENCE as error:
                log.warning(Event.PLAIN_PRODUCER, error=str(error))
                self._idempotent = False
        return await self._started(enable_idempotence=False)

    async def _started(self, *, enable_idempotence: bool) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(**self._arguments, enable_idempotence=enable_idempotence)
        self._access.security.renew_password(producer.client)
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        return producer

    async def _stop(self, producer: AIOKafkaProducer) -> None:
        with suppress(TimeoutError):  # what it could not deliver was never acknowledged to anyone
            async with asyncio.timeout(_STOP_WITHIN_S):
                await producer.stop()


def _look_at(future: asyncio.Future[object]) -> None:
    if not future.cancelled():
        future.exception()
