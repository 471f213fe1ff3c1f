"""What is read off the processes under test: CPU and memory of Redis, of a worker, and what Redis holds."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import redis

from aggregator.adapters.redis.keys import Keys

_TICK_US: Final = 1_000_000 / os.sysconf("SC_CLK_TCK")


class RedisFigures(NamedTuple):
    """CPU since its start in µs (user and system, all threads), and memory in use."""

    cpu_us: float
    memory_bytes: int


class Redis:
    """A Redis server as the benchmark looks at it."""

    def __init__(self, client: redis.Redis) -> None:
        self._client: Any = client

    def figures(self) -> RedisFigures:
        """CPU and memory as they are now."""
        cpu, memory = self._client.info("cpu"), self._client.info("memory")
        return RedisFigures(
            (cpu["used_cpu_user"] + cpu["used_cpu_sys"]) * 1_000_000,
            memory["used_memory"] - memory["mem_clients_normal"],
        )

    def flush(self) -> None:
        """Empty it."""
        self._client.flushall()

    def applied(self) -> int:
        """How many records have been applied, over all partitions that are read from offset 0."""
        return sum(map(int, self._client.hvals(Keys().progress)))

    def sessions(self) -> int:
        """How many sessions the deadline index holds."""
        shards = self._client.pipeline(transaction=False)
        for shard in range(64):
            shards.zcard(Keys().due(shard))
        return sum(shards.execute())

    def session_bytes(self) -> float:
        """What `MEMORY USAGE` says of all keys of one session and its traces, on the mean of some."""
        heads = list(islice(self._client.scan_iter(match="agg:session:*}", count=1000), 20))
        total = 0
        for head in heads:
            traces = [f"agg:trace:{{{one.decode()}}}" for one in self._client.hkeys(head + b":traces")]
            keys = [head, head + b":traces", head + b":models", *traces]
            total += sum(self._client.memory_usage(key, samples=0) or 0 for key in keys)
        return total / len(heads)


class Process:
    """Another process on this machine."""

    def __init__(self, pid: int) -> None:
        self._directory = Path(f"/proc/{pid}")

    def cpu_us(self) -> float:
        """CPU since its start, user and system, all threads; in steps of a clock tick."""
        fields = (self._directory / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * _TICK_US

    def memory_bytes(self) -> tuple[int, int]:
        """Resident memory now and at its peak."""
        status = dict(line.split(":", 1) for line in (self._directory / "status").read_text().splitlines())
        now, peak = (int(status[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
        return now, peak
