"""The HTTP server serves three paths to scrapers and probes, and tells nothing more."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter

from aggregator.adapters.http import HttpServer, Limits
from aggregator.core.errors import ConfigurationError


class Health:
    def __init__(self) -> None:
        self.live: list[str] = []
        self.ready: list[str] = []


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
async def server(health: Health) -> AsyncIterator[HttpServer]:
    registry = CollectorRegistry()
    Counter("aggregator_seen", "for the test", registry=registry).inc(3)
    http = HttpServer(
        host="127.0.0.1", port=0, registry=registry, liveness=lambda: health.live, readiness=lambda: health.ready
    )
    await http.start()
    yield http
    await http.stop()


def url(server: HttpServer, path: str) -> str:
    host, port = server.address
    return f"http://{host}:{port}{path}"


async def get(server: HttpServer, path: str, **headers: str) -> tuple[int, str, str]:
    async with aiohttp.ClientSession() as client, client.get(url(server, path), headers=headers) as answer:
        return answer.status, answer.headers["Content-Type"], await answer.text()


async def test_metrics_are_served_in_both_formats(server: HttpServer) -> None:
    status, content_type, body = await get(server, "/metrics")
    assert (status, content_type.partition(";")[0]) == (200, "text/plain")
    assert "aggregator_seen_total 3.0" in body
    status, content_type, body = await get(server, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert (status, content_type.partition(";")[0]) == (200, "application/openmetrics-text")
    assert body.endswith("# EOF\n")


async def test_health_names_every_reason(server: HttpServer, health: Health) -> None:
    assert (await get(server, "/livez"))[::2] == (200, "ok\n")
    assert (await get(server, "/readyz"))[::2] == (200, "ok\n")
    health.ready = ["redis is away", "no partitions yet"]
    assert (await get(server, "/livez"))[::2] == (200, "ok\n")
    assert (await get(server, "/readyz"))[::2] == (503, "redis is away\nno partitions yet\n")
    health.live = ["a task died"]
    assert (await get(server, "/livez"))[::2] == (503, "a task died\n")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/livez/x", "/../metrics2", "/admin"])
async def test_nothing_else_is_served(server: HttpServer, path: str) -> None:
    assert (await get(server, path))[0] == 404


async def test_only_reading_is_allowed(server: HttpServer) -> None:
    async with aiohttp.ClientSession() as client:
        async with client.post(url(server, "/metrics"), data=b"x" * 100_000) as answer:
            assert answer.status == 405
        async with client.head(url(server, "/livez")) as answer:
            assert (answer.status, await answer.read()) == (200, b"")


async def test_the_banner_names_no_version(server: HttpServer) -> None:
    for path in ("/livez", "/metrics", "/nothing"):
        async with aiohttp.ClientSession() as client, client.get(url(server, path)) as answer:
            assert answer.headers["Server"] == "session-aggregator"


async def test_a_request_that_is_too_large_is_refused(server: HttpServer) -> None:
    host, port = server.address
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(4096), timeout=5)
    writer.close()
    with suppress(ConnectionError):  # the server need not read the rest of it
        await writer.wait_closed()
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400"))
    assert b"aiohttp" not in answer


LIMITS = Limits(request_within_s=0.3, answer_within_s=0.3, connections=3)


@pytest.fixture
async def strict() -> AsyncIterator[HttpServer]:
    registry = CollectorRegistry()
    Counter("aggregator_seen", "x" * 30_000_000, registry=registry)  # more than the kernel's buffers take
    http = HttpServer(host="127.0.0.1", port=0, registry=registry, liveness=tuple, readiness=tuple, limits=LIMITS)
    await http.start()
    yield http
    await http.stop()


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What is left to read until the server closes."""
    async with asyncio.timeout(5):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


@pytest.mark.parametrize("start", [b"", b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: "], ids=["silent", "slow"])
async def test_a_request_that_does_not_come_to_its_end_is_cut_off(strict: HttpServer, start: bytes) -> None:
    reader, writer = await asyncio.open_connection(*strict.address)
    began = asyncio.get_running_loop().time()
    writer.write(start)

    async def drip() -> None:
        while start:
            await asyncio.sleep(0.05)
            writer.write(b"x")

    dripping = asyncio.create_task(drip())
    assert await ended(reader) == b""
    assert asyncio.get_running_loop().time() - began < 2
    dripping.cancel()
    writer.close()


async def test_a_slow_second_request_is_cut_off_and_idle_between_requests_is_not(strict: HttpServer) -> None:
    reader, writer = await asyncio.open_connection(*strict.address)
    for _ in range(2):
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(5):
            assert b"200" in await reader.readuntil(b"ok\n")
        await asyncio.sleep(0.5)
    writer.write(b"GET /li")
    assert await ended(reader) == b""
    writer.close()


async def test_an_answer_that_nobody_takes_is_thrown_away(strict: HttpServer) -> None:
    _, writer = await asyncio.open_connection(*strict.address, limit=1)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert strict._runner is not None
    assert strict._runner.server is not None
    async with asyncio.timeout(10):
        while strict._runner.server.connections:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.05)
    writer.close()


async def test_a_body_is_not_waited_for(strict: HttpServer) -> None:
    reader, writer = await asyncio.open_connection(*strict.address)
    writer.write(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
    assert b" 405 " in await ended(reader)
    writer.close()


async def test_of_too_many_connections_the_oldest_goes_and_a_probe_gets_in(strict: HttpServer) -> None:
    idle = [await asyncio.open_connection(*strict.address) for _ in range(LIMITS.connections)]
    assert await get(strict, "/livez") == (200, "text/plain; charset=utf-8", "ok\n")
    async with asyncio.timeout(0.25):  # before its time to send a request is over
        assert await idle[0][0].read() == b""
    for _, writer in idle:
        writer.close()


async def test_a_taken_port_names_the_setting() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        http = HttpServer(
            host="127.0.0.1", port=port, registry=CollectorRegistry(), liveness=lambda: (), readiness=lambda: ()
        )
        with pytest.raises(ConfigurationError, match=rf"AGGREGATOR_HTTP__PORT: can't listen on 127.0.0.1 port {port}"):
            await http.start()
        await http.stop()


async def test_stopping_is_idempotent_and_frees_the_port(server: HttpServer) -> None:
    host, port = server.address
    await server.stop()
    await server.stop()
    with pytest.raises(RuntimeError, match="does not run"):
        _ = server.address
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, port)
