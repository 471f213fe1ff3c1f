"""`python -m bench`: CPU per span of each stage and of the whole worker, interpreted and compiled."""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import worker
from bench.builds import Build, builds
from bench.servers import PARTITIONS, Servers, servers
from bench.spans import LARGE, SMALL, TURNS, Shape
from bench.table import Column, memory_lines, table
from bench.worker import Figures, Preloaded

_SHAPES: Final[tuple[tuple[str, Shape], ...]] = (("large", LARGE), ("small", SMALL))

_REPLAYED_SPANS: Final = 1_000_000
_STEADY_SPANS_PER_S: Final = 6000
"""A fifth of what one worker does on two cores that it shares with its servers and its producer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Size:
    """How much is measured: sessions of five traces, per core flavour."""

    stage_sessions: dict[str, int]
    worker_sessions: dict[str, int]  # of 64-span records; of 4-span records as many
    rounds: int
    worker_rounds: int
    delay_sessions: int


_FULL: Final = _Size(
    stage_sessions={"interpreted": 1000, "compiled": 5000},
    worker_sessions={"interpreted": 4000, "compiled": 12_000},
    rounds=3,
    worker_rounds=3,
    delay_sessions=400,
)
_QUICK: Final = _Size(
    stage_sessions={"interpreted": 200, "compiled": 400},
    worker_sessions={"interpreted": 4000, "compiled": 6000},
    rounds=2,
    worker_rounds=1,
    delay_sessions=80,
)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


async def _stages(build: Build, at: Servers, loaded: Preloaded, shape: str, size: _Size) -> Figures:
    summaries = await at.broker.create_topic("summaries", partitions=PARTITIONS)
    fetch_records = min(loaded.records, 120_000 // loaded.shape.record_spans)
    command = [
        *(sys.executable, "-m", "bench.stages", "--shape", shape, "--redis", at.redis_url),
        *("--brokers", at.broker.bootstrap_servers, "--topic", loaded.topic, "--summaries", summaries),
        *("--sessions", str(size.stage_sessions[build.core]), "--rounds", str(size.rounds)),
        *("--fetch-records", str(fetch_records)),
    ]
    child = await asyncio.create_subprocess_exec(
        *command, cwd=build.directory, env=build.environment(), stdout=subprocess.PIPE
    )
    out, _ = await child.communicate()
    if child.returncode:
        raise RuntimeError(f"the stages ended with {child.returncode}")
    found = json.loads(out)
    if found["core"] != build.core:
        raise RuntimeError(f"the copy is {found['core']}, not {build.core}")
    return dict(found["figures"])


def _best(known: Figures, found: Figures) -> Figures:
    """Of each figure the round that was disturbed least."""
    better = {name: max if "per second" in name or "peak" in name else min for name in found}
    return known | {name: better[name](value, known.get(name, value)) for name, value in found.items()}


async def _columns(at: Servers, copies: list[Build], size: _Size, directory: Path) -> list[Column]:
    columns: list[Column] = []
    for shape_name, shape in _SHAPES:
        for build in copies:
            _say(f"{shape.record_spans}-span records, {build.core}: filling a topic")
            loaded = await worker.preload(at, shape, sessions=size.worker_sessions[build.core])
            _say(f"{shape.record_spans}-span records, {build.core}: stages")
            figures = await _stages(build, at, loaded, shape_name, size)
            _say(f"{shape.record_spans}-span records, {build.core}: the whole worker")
            for _ in range(size.worker_rounds):
                figures = _best(figures, await worker.backlog(build, at, loaded, directory))
            if shape is LARGE:
                figures |= await worker.delay(build, at, directory, sessions=size.delay_sessions)
            columns.append(Column(core=build.core, record_spans=shape.record_spans, figures=figures))
            await at.broker.delete_topic(loaded.topic)
    return columns


async def _indexes(at: Servers, build: Build, rounds: int, directory: Path) -> list[str]:
    """What the session indexes cost: the same backlog, and a steady load, with and without them in turn, at best."""
    lines = [f"{build.core}, CPU µs per span of worker and Redis, per close of the worker, and spans per second"]
    for name, shape in _SHAPES:
        loaded = await worker.preload(at, shape, sessions=_FULL.worker_sessions[build.core])
        found: dict[tuple[str, str], Figures] = {}
        for number in range(2 * rounds):
            enabled = "false" if number % 2 else "true"
            _say(f"{shape.record_spans}-span records, indexes {enabled}")
            extra = {"INDEX__ENABLED": enabled}
            for load, figures in (
                ("backlog", await worker.backlog(build, at, loaded, directory, extra)),
                ("steady", await worker.steady(build, at, shape, directory, extra, spans_per_s=_STEADY_SPANS_PER_S)),
            ):
                found[load, enabled] = _best(found.get((load, enabled), {}), figures)
        for load in ("backlog", "steady"):
            for title, enabled in (("without indexes", "false"), ("with indexes", "true")):
                figures = found[load, enabled]
                shown = [f"{figures.get(one, 0):10.2f}" for one in ("worker", "worker: Redis", "worker: close")]
                per_s = figures["worker: spans per second"]
                lines.append(f"{name:6} {load:8} {title:16} {''.join(shown)} {per_s:10.0f}")
        await at.broker.delete_topic(loaded.topic)
    return lines


async def _replay(at: Servers, build: Build, rounds: int, directory: Path) -> None:
    """Print how fast a log is read again after FLUSHALL, beside how fast it was read before: each at its best."""
    print(f"{build.core}, CPU µs per span of worker and Redis, and spans per second", flush=True)
    for name, shape in _SHAPES:
        sessions = _REPLAYED_SPANS // (TURNS * shape.trace_spans)
        _say(f"{shape.record_spans}-span records: filling a topic")
        loaded = await worker.preload(at, shape, sessions=sessions)
        first: Figures = {}
        again: Figures = {}
        for _ in range(rounds):
            _say(f"{shape.record_spans}-span records: reading, emptying Redis, reading again")
            one, other = await worker.replay(build, at, loaded, directory)
            first, again = _best(first, one), _best(again, other)
        for title, found in (("first", first), ("again", again)):
            shown = [f"{found[figure]:10.2f}" for figure in ("worker", "worker: Redis")]
            print(f"{name:6} {title:6} {''.join(shown)} {found['spans per second']:10.0f}")
        speeds = again["spans per second"] / first["spans per second"], first["worker"] / again["worker"]
        print(f"{name:6} read again at {speeds[0]:.0%} of the speed, {speeds[1]:.0%} by the worker's CPU", flush=True)
        await at.broker.delete_topic(loaded.topic)


async def _run(options: argparse.Namespace, directory: Path) -> None:
    _say("copying and compiling the package")
    copies = builds(Path(options.work) if options.work else directory)
    if options.core:
        copies = [build for build in copies if build.core == options.core]
    async with servers() as at:
        _say(f"on {at.names}")
        if options.million:
            found = await worker.open_sessions(copies[-1], at, directory, sessions=options.million)
            print("\n".join(memory_lines(copies[-1].core, found)))
            return
        if options.indexes:
            print("\n".join(await _indexes(at, copies[-1], options.indexes, directory)))
            return
        if options.replay:
            await _replay(at, copies[-1], options.replay, directory)
            return
        columns = await _columns(at, copies, _QUICK if options.quick else _FULL, directory)
        print("\n".join(table(columns, at.names)))


def main() -> None:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything: three minutes instead of eight")
    parser.add_argument(
        "--million",
        nargs="?",
        type=int,
        const=1_000_000,
        metavar="SESSIONS",
        help="instead: memory of the worker and of Redis while a million sessions are open",
    )
    parser.add_argument(
        "--indexes", nargs="?", type=int, const=3, metavar="ROUNDS", help="instead: what the session indexes cost"
    )
    parser.add_argument(
        "--replay",
        nargs="?",
        type=int,
        const=2,
        metavar="ROUNDS",
        help="instead: how fast a million spans are read again",
    )
    parser.add_argument("--core", choices=("interpreted", "compiled"), help="only this one")
    parser.add_argument("--work", metavar="DIRECTORY", help="keep the copies of the package here, and take those there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        asyncio.run(_run(options, Path(directory)))


if __name__ == "__main__":
    main()
