"""Workers as operators run them: processes of their own, configured by the environment, watched over HTTP."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from aggregator.embedded.process import LOCALHOST, ChildProcess
from tests.e2e.waiting import PATIENCE_S, until

GRACE_S: Final = 10.0
_MORE_S: Final = 30.0  # until one that does not end by itself is killed: this process may be too busy to see it end
_ASK_TIMEOUT: Final = aiohttp.ClientTimeout(total=PATIENCE_S)


class Answer(NamedTuple):
    """What an endpoint said."""

    status: int
    text: str


class Command:
    """`python -m aggregator …` as a process, with all that it writes in a file."""

    module = "aggregator"

    def __init__(self, arguments: Sequence[str], environment: dict[str, str], log_path: Path) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AGGREGATOR_")}
        self.child = ChildProcess(
            log_path.stem,
            [sys.executable, "-m", self.module, *arguments],
            log_path=log_path,
            environment=clean | {"PYTHONUNBUFFERED": "1"} | environment,
        )

    @property
    def output(self) -> str:
        """Everything written so far, to standard output and standard error alike."""
        return self.child.log_path.read_text(errors="replace")

    async def ended(self) -> int:
        """Wait for the end that comes by itself; returns the exit code."""

        async def look() -> list[int]:
            code = self.child.exit_code()
            return [] if code is None else [code]

        (code,) = await until(f"{self.child.name} ends by itself", look)
        await self.child.stop()
        return code

    async def terminate(self) -> int:
        """End it with SIGTERM, as an orchestrator does; returns the exit code (negative if it had to be killed)."""
        return await self.child.stop(grace_s=GRACE_S + _MORE_S)

    async def kill(self) -> None:
        """Kill it where it stands."""
        os.kill(self.child.pid, signal.SIGKILL)
        await self.child.stop()


class Worker(Command):
    """A running `aggregator run` on a port of its own choice."""

    def __init__(self, environment: dict[str, str], log_path: Path) -> None:
        own = {
            "AGGREGATOR_HTTP__HOST": LOCALHOST,
            "AGGREGATOR_HTTP__PORT": "0",
            "AGGREGATOR_LOG__FORMAT": "json",
            "AGGREGATOR_SHUTDOWN__GRACE_S": f"{GRACE_S - 1:g}",
        }
        super().__init__(["run"], own | environment, log_path)
        self._url = ""

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log lines of that event."""
        lines = [json.loads(line) for line in self.output.splitlines() if line.startswith("{") and line.endswith("}")]
        return [line for line in lines if line["event"] == name]

    async def listening(self) -> None:
        """Wait until it says where it listens."""

        async def look() -> list[dict[str, Any]]:
            assert self.child.exit_code() is None, f"{self.child.name} ended{self.child.log_end()}"
            return self.events("http_listening")

        (line,) = await until(f"{self.child.name} listens", look)
        self._url = f"http://{line['host']}:{line['port']}"

    async def get(self, path: str) -> Answer:
        """Ask one of its endpoints."""
        try:
            async with aiohttp.ClientSession(timeout=_ASK_TIMEOUT) as client, client.get(self._url + path) as answer:
                return Answer(answer.status, await answer.text())
        except aiohttp.ClientConnectionError as error:
            raise AssertionError(f"{self.child.name} does not answer {path}{self.child.log_end()}") from error

    async def terminate_within(self, grace_s: float = GRACE_S) -> None:
        """End it with SIGTERM; it must end in order, with 0, and within that time by its own log."""
        assert await self.terminate() == 0, self.output
        told, ended = (
            datetime.fromisoformat(line["timestamp"])
            for name in ("worker_stopping", "worker_stopped")
            for line in self.events(name)
        )
        assert (ended - told).total_seconds() < grace_s, self.output

    async def is_ready(self) -> bool:
        """Whether `/readyz` says so."""
        return (await self.get("/readyz")).status == 200

    async def is_troubled(self) -> bool:
        """Whether `/readyz` says that a server is waited for."""
        answer = await self.get("/readyz")
        return answer.status != 200 and ": " in answer.text

    async def metrics(self) -> Metrics:
        """What `/metrics` says now."""
        return Metrics((await self.get("/metrics")).text)


class Metrics:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self._values: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self._values[sample.name, frozenset(sample.labels.items())] = sample.value

    def value(self, name: str, **labels: str) -> float:
        """The value of one series (without `aggregator_`); 0 where there is none, as in a query."""
        return self._values.get((f"aggregator_{name}", frozenset(labels.items())), 0.0)

    def total(self, name: str) -> float:
        """The sum over all labels."""
        return sum(value for (found, _), value in self._values.items() if found == f"aggregator_{name}")

    def series(self, name: str) -> list[dict[str, str]]:
        """The labels of each series of that name; empty where there is none."""
        return [dict(labels) for found, labels in self._values if found == f"aggregator_{name}"]
