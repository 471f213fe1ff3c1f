"""Everything that the demo needs around its traffic: broker, Valkey, receiver and the worker itself."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import aiohttp
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from aggregator.core.errors import BrokerUnavailable
from aggregator.embedded.broker import EmbeddedBroker
from aggregator.embedded.otlp_http import MAX_BODY_BYTES, OtlpHttpReceiver
from aggregator.embedded.process import (
    LOCALHOST,
    ChildProcess,
    NotAnsweringError,
    free_port,
    stop_within,
    wait_until_answering,
)
from aggregator.embedded.valkey import EmbeddedValkey

IDLE_TIMEOUT_S: Final = 5.0
ALLOWED_SKEW_S: Final = 1.0
RETENTION_S: Final = 120.0  # so that a demo that is left running does not grow
SPANS_TOPIC: Final = "otlp_spans"
SUMMARY_TOPIC: Final = "session_summaries"
_TOPICS: Final = {SPANS_TOPIC: 4, SUMMARY_TOPIC: 1, "otlp_spans_dead_letter": 1}
_SESSION_TIMEOUT_MS: Final = 6_000  # the embedded broker makes a group's first member wait for half of it
_READY_TIMEOUT_S: Final = 30.0
_ASK_TIMEOUT: Final = aiohttp.ClientTimeout(total=2)
_PRODUCER_TIMEOUT_MS: Final = 20_000
_CLIENT_STOP_S: Final = 2.0
_WORKER_GRACE_S: Final = 10.0
_ROOM_FOR_RECORD_FRAME_BYTES: Final = 65_536


class Stage:
    """Broker, Valkey, receiver, worker and web view, from `async with` until its end.

    The worker is a process of its own, configured by `AGGREGATOR_` variables alone, exactly as in production.
    `log_dir` has the logs of all of them; it is removed at the end unless `keep_logs` was called.
    Entering starts everything, `ready` waits for the worker; both raise `EmbeddedError` with the remedy where
    something does not start.
    """

    def __init__(self, *, http_port: int) -> None:
        self.log_dir = Path(tempfile.mkdtemp(prefix="session-aggregator-demo-"))
        self.broker = EmbeddedBroker(topics=_TOPICS, log_dir=self.log_dir)
        self.valkey = EmbeddedValkey(log_dir=self.log_dir)
        self.receiver = OtlpHttpReceiver(self._publish, port=http_port)
        self.metrics_port = 0
        self._producer: AIOKafkaProducer | None = None
        self._worker: ChildProcess | None = None
        self._web: ChildProcess | None = None
        self.web_port = 0
        self._parts = AsyncExitStack()
        self._keep_logs = False

    @property
    def worker(self) -> ChildProcess:
        """The worker's process, once the stage is entered."""
        assert self._worker is not None  # noqa: S101 - narrows the type
        return self._worker

    async def __aenter__(self) -> Self:
        self._parts.callback(self._remove_logs)
        try:
            await self._parts.enter_async_context(self.broker)
            await self._parts.enter_async_context(self.valkey)
            await self._start_producer()
            await self._parts.enter_async_context(self.receiver)
            self._start_worker()
            self._start_web()
        except BaseException as error:
            self._keep_logs = isinstance(error, NotAnsweringError)
            await self._parts.aclose()
            raise
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._keep_logs = self._keep_logs or isinstance(error, Exception)
        await self._parts.aclose()

    def keep_logs(self) -> None:
        """Leave the logs behind for somebody to read."""
        self._keep_logs = True

    async def ready(self) -> None:
        """Wait until the worker takes records and the web view is there."""
        assert self._web is not None  # noqa: S101 - narrows the type
        await wait_until_answering(self._web, self._web_answers, timeout_s=_READY_TIMEOUT_S)
        await wait_until_answering(self.worker, self._worker_is_ready, timeout_s=_READY_TIMEOUT_S)

    def check(self) -> None:
        """Raise `NotAnsweringError` with the last log lines if one of the processes has ended."""
        assert self._web is not None  # noqa: S101 - narrows the type
        for child in (self.broker.child, self.valkey.child, self.worker, self._web):
            if (code := child.exit_code()) is not None:
                raise NotAnsweringError(f"{child.name} ended with exit code {code}{child.log_end()}")

    async def stop_worker(self) -> int:
        """End the worker as an orchestrator would, with SIGTERM; returns its exit code.  May be repeated."""
        return await self.worker.stop(grace_s=_WORKER_GRACE_S)

    async def _publish(self, body: bytes) -> None:
        assert self._producer is not None  # noqa: S101 - narrows the type
        try:
            await self._producer.send_and_wait(SPANS_TOPIC, body)
        except KafkaError as error:
            raise BrokerUnavailable(str(error)) from error

    async def _start_producer(self) -> None:
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self.broker.bootstrap_servers,
            acks="all",
            max_request_size=MAX_BODY_BYTES + _ROOM_FOR_RECORD_FRAME_BYTES,
            request_timeout_ms=_PRODUCER_TIMEOUT_MS,
        )
        await self._producer.start()
        self._parts.push_async_callback(self._stop_producer)

    async def _stop_producer(self) -> None:
        assert self._producer is not None  # noqa: S101 - narrows the type
        await stop_within(_CLIENT_STOP_S, self._producer.stop())

    def _start_worker(self) -> None:
        self.metrics_port = free_port()
        self._worker = ChildProcess(
            "the worker",
            [sys.executable, "-m", "aggregator", "run"],
            log_path=self.log_dir / "worker.log",
            environment=self._worker_environment(os.environ),
        )
        self._parts.push_async_callback(self.stop_worker)

    def _start_web(self) -> None:
        self.web_port = free_port()
        own = {"AGGREGATOR_WEB__HOST": LOCALHOST, "AGGREGATOR_WEB__PORT": str(self.web_port)}
        self._web = web = ChildProcess(
            "the web view",
            [sys.executable, "-m", "aggregator", "web"],
            log_path=self.log_dir / "web.log",
            environment=self._worker_environment(os.environ) | own,
        )
        self._parts.push_async_callback(web.stop, grace_s=_WORKER_GRACE_S)

    async def _web_answers(self) -> bool:
        return await _is_200(f"http://{LOCALHOST}:{self.web_port}/healthz")

    def _worker_environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        own = {name: value for name, value in inherited.items() if not name.startswith("AGGREGATOR_")}
        return own | {
            "AGGREGATOR_KAFKA__BOOTSTRAP_SERVERS": self.broker.bootstrap_servers,
            "AGGREGATOR_KAFKA__TOPICS": SPANS_TOPIC,
            "AGGREGATOR_KAFKA__SUMMARY_TOPIC": SUMMARY_TOPIC,
            "AGGREGATOR_KAFKA__SESSION_TIMEOUT_MS": str(_SESSION_TIMEOUT_MS),
            "AGGREGATOR_REDIS__URL": self.valkey.url,
            "AGGREGATOR_SESSION__IDLE_TIMEOUT_S": f"{IDLE_TIMEOUT_S:g}",
            "AGGREGATOR_SESSION__ALLOWED_SKEW_S": f"{ALLOWED_SKEW_S:g}",
            "AGGREGATOR_SESSION__RETENTION_S": f"{RETENTION_S:g}",
            "AGGREGATOR_SHUTDOWN__GRACE_S": f"{_WORKER_GRACE_S - 2:g}",
            "AGGREGATOR_HTTP__HOST": LOCALHOST,
            "AGGREGATOR_HTTP__PORT": str(self.metrics_port),
            "AGGREGATOR_LOG__FORMAT": "text",
        }

    async def _worker_is_ready(self) -> bool:
        return await _is_200(f"http://{LOCALHOST}:{self.metrics_port}/readyz")

    def _remove_logs(self) -> None:
        if not self._keep_logs:
            shutil.rmtree(self.log_dir, ignore_errors=True)


async def _is_200(url: str) -> bool:
    try:
        async with aiohttp.ClientSession(timeout=_ASK_TIMEOUT) as client, client.get(url) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False
