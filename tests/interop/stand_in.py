"""Stands in for the OpenTelemetry Collector behind the same interface: OTLP over HTTP in, records on Kafka out."""

from __future__ import annotations

from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from aggregator.embedded.otlp_http import OtlpHttpReceiver
from tests.kafka_servers import Broker


class Collector:
    """Takes OTLP/HTTP from `async with` until its end."""

    def __init__(self, broker: Broker, topic: str) -> None:
        self._broker = broker
        self._topic = topic
        self._stack = AsyncExitStack()
        self.http_endpoint = ""
        self.grpc_endpoint = ""

    async def __aenter__(self) -> Self:
        producer = await self._stack.enter_async_context(self._broker.producer())

        async def publish(body: bytes) -> None:
            await producer.send_and_wait(self._topic, body)

        receiver = await self._stack.enter_async_context(OtlpHttpReceiver(publish, port=0))
        self.http_endpoint = receiver.endpoint
        return self

    async def __aexit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(error_type, error, trace)
