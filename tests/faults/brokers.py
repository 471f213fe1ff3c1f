"""Apache Kafka that can be broken: nodes that are killed, stopped and started again on their data.

Each worker reaches each node through a proxy of its own (`worker.py`), so its way can be cut for that worker alone.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from aggregator.embedded.process import LOCALHOST, ChildProcess, free_port, wait_until_answering
from tests.faults.disks import Disk, disks
from tests.faults.toxiproxy import Proxy, Toxiproxy
from tests.kafka_servers import Broker, KafkaProcess, brokers_of, kafka_version_and_jars, new_cluster_id

SEATS: Final = 4
"""Workers of one deployment at most."""

_START_TIMEOUT_S: Final = 60.0


class Node:
    """One node, with the proxies of the seats of workers."""

    def __init__(self, number: int, process: KafkaProcess, port: int, proxies: list[Proxy], disk: Disk | None) -> None:
        self.number = number
        self.port = port
        self.proxies = proxies
        self.disk = disk  # of its own, with its data, where there can be one
        self._process = process
        self._child: ChildProcess | None = None

    def start(self) -> ChildProcess:
        """Start it, or start it again."""
        self._child = self._process.start()
        return self._child

    async def kill(self) -> None:
        """Kill it where it stands, if it has not ended by itself."""
        if self._child is not None:
            if self._child.exit_code() is None:
                os.kill(self._child.pid, signal.SIGKILL)
            await self._child.stop()

    def exit_code(self) -> int | None:
        """How it ended, None while it runs."""
        assert self._child is not None
        return self._child.exit_code()

    def log_tail(self) -> str:
        """The last lines that it wrote."""
        assert self._child is not None
        return self._child.log_tail()

    def pause(self) -> None:
        """Let it hang, with its connections open."""
        assert self._child is not None
        os.kill(self._child.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        assert self._child is not None
        os.kill(self._child.pid, signal.SIGCONT)

    async def stop(self) -> None:
        """End it for good."""
        await self.kill()
        if self.disk is not None:
            self.disk.unmount()


class Kafka(Broker):
    """A cluster of such nodes."""

    def __init__(self, nodes: Sequence[Node], cluster_id: str, name: str) -> None:
        servers = ",".join(f"{LOCALHOST}:{node.port}" for node in nodes)
        super().__init__(servers, name, pid=0, is_apache=True, copies=len(nodes))
        self.nodes = nodes
        self._cluster_id = cluster_id

    def ways(self, seat: int) -> list[Proxy]:
        """The proxies between the worker on that seat and all nodes."""
        return [node.proxies[seat] for node in self.nodes]

    async def whole(self, children: Sequence[ChildProcess] = ()) -> None:
        """Wait until all nodes answer and know each other."""
        for node in self.nodes:

            async def sees_all(port: int = node.port) -> bool:
                return await brokers_of(self._cluster_id, port) == len(self.nodes)

            child = children[node.number - 1] if children else node._child
            assert child is not None
            await wait_until_answering(child, sees_all, timeout_s=_START_TIMEOUT_S)

    async def leaders(self, topic: str) -> dict[int, Node]:
        """Which node leads each partition of a topic; those without a leader are missing."""
        by_number = {node.number: node for node in self.nodes}
        partitions = await self._partitions(topic)
        return {one["partition"]: by_number[one["leader"]] for one in partitions if one["leader"] in by_number}

    async def only_on(self, topic: str, node: Node) -> list[int]:
        """The partitions of a topic that no other node has."""
        return [one["partition"] for one in await self._partitions(topic) if set(one["replicas"]) == {node.number}]

    async def _partitions(self, topic: str) -> list[dict[str, Any]]:
        async with self.admin() as admin:
            (about,) = await admin.describe_topics([topic])
        found: list[dict[str, Any]] = about["partitions"]
        return found

    async def coordinator(self, group: str) -> Node | None:
        """Which node coordinates a group; None while it moves."""
        async with self.admin() as admin:
            found: Any = await admin.find_coordinator(group)
        return next((node for node in self.nodes if node.number == found), None)


@asynccontextmanager
async def kafka(proxies: Toxiproxy, directory: Path, *, nodes: int = 1, seats: int = SEATS) -> AsyncIterator[Kafka]:
    """Start a cluster; at the end kill it."""
    found = kafka_version_and_jars()
    if found is None:
        pytest.skip("faults of Kafka need java and mvn on the PATH")
    version, jars = found
    cluster_id = new_cluster_id()
    controllers = [free_port() for _ in range(nodes)]
    made: list[Node] = []
    for number in range(1, nodes + 1):
        own = directory / f"kafka-{number}"
        await asyncio.to_thread(own.mkdir, parents=True)
        port = free_port()
        data = own / str(port)
        await asyncio.to_thread(data.mkdir)
        ways = [await proxies.proxy(f"kafka-{number}-{seat}", port) for seat in range(seats)]
        disk = Disk(data) if disks() else None
        process = KafkaProcess(jars, own)
        await asyncio.to_thread(
            process.format,
            cluster_id,
            ports={"PLAINTEXT": port},
            node_id=number,
            controllers=controllers,
            timeout_s=_START_TIMEOUT_S,
        )
        made.append(Node(number, process, port, ways, disk))
    cluster = Kafka(made, cluster_id, f"Apache Kafka {version}")
    try:
        await cluster.whole([node.start() for node in made])
        yield cluster
    finally:
        for node in made:
            await node.stop()
