"""Toxiproxy between workers and servers: connections that are cut, slow, or open on one side only.

The server comes from its Go module, built once into the checkout's cache.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import aiohttp
import pytest

from aggregator.embedded.process import LOCALHOST, ChildProcess, free_port, wait_until_answering

_VERSION: Final = "2.7.0"  # the newest that builds with Debian 12's Go
_CACHE: Final = Path(__file__).parents[2] / ".cache" / "toxiproxy"
_START_TIMEOUT_S: Final = 20.0

Direction = Literal["upstream", "downstream"]


def _program() -> Path:
    """The server's program, built where it is not there yet."""
    program = _CACHE / _VERSION / "server"
    if program.is_file():
        return program
    if shutil.which("go") is None:
        problem = "faults of the network need Go, to build toxiproxy: apt-get install golang-go"
        if os.environ.get("REQUIRE_SERVERS") == "1":
            pytest.fail(problem, pytrace=False)
        pytest.skip(problem)
    fresh = _CACHE / f"{_VERSION}.{os.getpid()}"  # a run that is cut short leaves nothing half built
    command = ["go", "install", f"github.com/Shopify/toxiproxy/v2/cmd/server@v{_VERSION}"]
    environment = os.environ | {"GOBIN": str(fresh), "GOFLAGS": "-mod=mod"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environment)
    if done.returncode:
        shutil.rmtree(fresh, ignore_errors=True)
        pytest.fail(f"toxiproxy can't be built:\n{done.stdout}{done.stderr}", pytrace=False)
    with suppress(OSError):  # somebody else was quicker
        fresh.rename(program.parent)
    return program


class Proxy:
    """One listening port, and the server that stands behind it."""

    def __init__(self, server: Toxiproxy, name: str, port: int, upstream: int) -> None:
        self._server = server
        self.name = name
        self.port = port
        self.upstream = upstream  # the server's port

    async def cut(self) -> None:
        """Close all connections and refuse new ones."""
        await self._server.ask("POST", f"/proxies/{self.name}", {"enabled": False})

    async def slow_down(self, milliseconds: int, jitter_ms: int = 0) -> None:
        """Delay all that comes back."""
        await self._toxic("latency", "downstream", {"latency": milliseconds, "jitter": jitter_ms})

    async def half_open(self, direction: Direction) -> None:
        """Let nothing through in one direction, on connections that stay open; they break when it is healed."""
        await self._toxic("timeout", direction, {"timeout": 0})

    async def retarget(self, port: int) -> None:
        """Put another server behind it, as a virtual address does at a failover; connections break."""
        await self._server.ask("POST", f"/proxies/{self.name}", {"upstream": f"{LOCALHOST}:{port}", "enabled": True})
        self.upstream = port

    async def heal(self) -> None:
        """Let everything through again."""
        about = await self._server.ask("GET", f"/proxies/{self.name}")
        for toxic in about["toxics"]:
            await self._server.ask("DELETE", f"/proxies/{self.name}/toxics/{toxic['name']}")
        if not about["enabled"]:
            await self._server.ask("POST", f"/proxies/{self.name}", {"enabled": True})

    async def _toxic(self, kind: str, direction: Direction, attributes: dict[str, int]) -> None:
        toxic = {"name": f"{kind}-{direction}", "type": kind, "stream": direction, "attributes": attributes}
        await self._server.ask("POST", f"/proxies/{self.name}/toxics", toxic)


class Toxiproxy:
    """The running server of all proxies."""

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._port = free_port()
        self._child: ChildProcess | None = None
        self._made = 0

    async def __aenter__(self) -> Self:
        command = [str(_program()), "-host", LOCALHOST, "-port", str(self._port)]
        environment = os.environ | {"LOG_LEVEL": "error"}
        self._child = ChildProcess(
            "toxiproxy", command, log_path=self._log_dir / "toxiproxy.log", environment=environment
        )
        await wait_until_answering(self._child, self._answers, timeout_s=_START_TIMEOUT_S)
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._child is not None:
            await self._child.stop()

    async def _answers(self) -> bool:
        try:
            await self.ask("GET", "/version")
        except (OSError, aiohttp.ClientError):
            return False
        return True

    async def proxy(self, name: str, port: int) -> Proxy:
        """A new proxy for the server on that port, on a port that it keeps when it is enabled again."""
        self._made += 1
        unique = f"{name}-{self._made}"
        own = free_port()
        listen, upstream = f"{LOCALHOST}:{own}", f"{LOCALHOST}:{port}"
        await self.ask("POST", "/proxies", {"name": unique, "listen": listen, "upstream": upstream, "enabled": True})
        return Proxy(self, unique, own, port)

    async def remove(self, proxy: Proxy) -> None:
        """Take a proxy away."""
        await self.ask("DELETE", f"/proxies/{proxy.name}")

    async def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One request to its HTTP interface."""
        async with (
            asyncio.timeout(10),
            aiohttp.ClientSession() as client,
            client.request(method, f"http://{LOCALHOST}:{self._port}{path}", json=body) as answer,
        ):
            if answer.status >= 400:
                raise AssertionError(f"toxiproxy: {method} {path}: {answer.status} {await answer.text()}")
            return await answer.json(content_type=None) if answer.status != 204 else None
