"""What is to be done in a run, and the lanes that do it: each has brokers of its own, so that all can be broken."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, cast

from tests.faults import leaving, rolling  # noqa: F401 - they enter their scenes
from tests.faults.brokers import SEATS, Kafka, kafka
from tests.faults.catalogue import Fault, StoreKind
from tests.faults.clusters import Clustered, clustered
from tests.faults.deployment import deployment
from tests.faults.guarded import guarded
from tests.faults.outcome import Outcome, TooSlowError
from tests.faults.scenes import SCENES, Scene
from tests.faults.schedules import Schedule, alone, carry_out, drawn, eligible
from tests.faults.stores import Store, single
from tests.faults.table import Tally
from tests.faults.toxiproxy import Toxiproxy


class Kind(NamedTuple):
    """What a deployment stands on: its table is named by it."""

    store: StoreKind
    brokers: int

    def __str__(self) -> str:
        return f"{self.store}-{self.brokers}"


class Job(NamedTuple):
    """One thing to do on a deployment of its own."""

    kind: Kind
    play: Schedule | Scene


EVERYTHING: Final = (
    [Kind("single", 1)],
    [Kind("single", 1)],
    [Kind("cluster", 1), Kind("guarded", 1)],
    [Kind("single", 3)],
)
"""The lanes of a whole run."""


def _alone_on(kind: Kind) -> list[Fault]:
    """Faults that are to be done alone there: all on the plainest, elsewhere those that it can make a difference to."""
    faults = eligible(store=kind.store, brokers=kind.brokers)
    if kind.brokers > 1:
        return [one for one in faults if one.domain == "kafka"]
    if kind.store != "single":
        return [one for one in faults if one.domain == "redis" or (one.domain == "network" and "Redis" in one.name)]
    return faults


class Run:
    """What the lanes share; the variables are those of `__main__`."""

    def __init__(self, directory: Path, proxies: Toxiproxy) -> None:
        self.directory = directory
        self.proxies = proxies
        self.lanes = _lanes()
        self.tallies: defaultdict[Kind, Tally] = defaultdict(Tally)
        self.failed = False
        self._ends_s = time.monotonic() + 60 * number("FAULTS_MINUTES", 10)
        first, most = int(number("FAULTS_SEED", 1)), int(number("FAULTS_SCHEDULES", 10**9))
        self._seeds: Iterator[int] = iter(range(first, first + most))
        self._alone = self._alone_jobs()

    def _alone_jobs(self) -> list[Job]:
        wanted = re.compile(os.environ.get("FAULTS_ALONE", "."))
        jobs: list[Job] = []
        for kind in sorted({kind for kinds in self.lanes for kind in kinds}):
            jobs += [Job(kind, alone(fault)) for fault in _alone_on(kind) if wanted.search(fault.name)]
            if kind == Kind("single", 1):
                jobs += [Job(kind, one) for one in SCENES.values() if wanted.search(one.name)]
        # What takes long first, so that no lane is left with it at the end.
        return sorted(jobs, key=lambda job: -job.play.seconds)

    def next_job(self, kinds: Sequence[Kind]) -> Job | None:
        """What a lane is to do next, None where nothing more is to be begun."""
        if self.failed:
            return None
        for index, job in enumerate(self._alone):
            if job.kind in kinds:
                return self._alone.pop(index)
        if time.monotonic() > self._ends_s or (seed := next(self._seeds, None)) is None:
            return None
        kind = kinds[seed % len(kinds)]
        return Job(kind, drawn(seed, eligible(store=kind.store, brokers=kind.brokers), seats=SEATS))


def number(name: str, default: float) -> float:
    """A variable of the environment."""
    return float(os.environ.get(name) or default)


def _lanes() -> Sequence[Sequence[Kind]]:
    store, brokers = os.environ.get("FAULTS_STORE"), os.environ.get("FAULTS_BROKERS")
    if not store and not brokers:
        return EVERYTHING
    if (store or "single") not in ("single", "cluster", "guarded"):
        raise SystemExit(f"FAULTS_STORE={store}: must be single, cluster or guarded")
    kind = Kind(cast(StoreKind, store or "single"), int(brokers or 1))
    return [[kind]] * int(number("FAULTS_LANES", 2))


@dataclass
class Lane:
    """One deployment after another."""

    run: Run
    number: int
    kinds: Sequence[Kind]

    async def work(self) -> None:
        """Do what is to be done until there is no more of it, or something has failed."""
        directory = self.run.directory / f"lane-{self.number}"
        await asyncio.to_thread(directory.mkdir)
        async with AsyncExitStack() as stack:
            brokers = await stack.enter_async_context(
                kafka(self.run.proxies, directory, nodes=max(kind.brokers for kind in self.kinds))
            )
            cluster = None
            if any(kind.store == "cluster" for kind in self.kinds):
                cluster = await stack.enter_async_context(clustered(self.run.proxies))
            done = 0
            while (job := self.run.next_job(self.kinds)) is not None:
                done += 1
                await self._do(job, brokers, cluster, directory / str(done))

    async def _do(self, job: Job, brokers: Kafka, cluster: Clustered | None, log_dir: Path) -> None:
        began_s = time.monotonic()
        try:
            try:
                found = await self._played(job, brokers, cluster, log_dir / "first")
            except TooSlowError as error:  # as it may be once by what else the machine does
                print(f"{job.kind}, {job.play.title}: {error}; measured again", file=sys.stderr, flush=True)
                found = await self._played(job, brokers, cluster, log_dir / "second")
        except Exception:  # whatever it is, it is this job's failure
            self.run.failed = True
            traceback.print_exc()
            print(f"FAILED: {job.play.title}; repeat with {_again(job)}", file=sys.stderr, flush=True)
            return
        self.run.tallies[job.kind].add(job.play.names, found, alone=job.play.alone)
        took_s = time.monotonic() - began_s
        print(
            f"{job.kind}, {job.play.title}: ok in {took_s:.0f} s, {found.spans} spans, {found.sessions} sessions"
            f"{_times(found) if job.play.alone else ''}",
            file=sys.stderr,
            flush=True,
        )

    async def _played(self, job: Job, brokers: Kafka, cluster: Clustered | None, log_dir: Path) -> Outcome:
        await asyncio.to_thread(log_dir.mkdir, parents=True)
        async with self._store(job, cluster) as store:
            if isinstance(job.play, Schedule):
                return await carry_out(job.play, brokers, store, log_dir)
            async with deployment(brokers, store, log_dir, partitions=job.play.partitions) as made:
                try:
                    return await job.play.play(made)
                except BaseException as error:
                    error.add_note(f"{job.play.name}\n{made.report()}")
                    raise

    @asynccontextmanager
    async def _store(self, job: Job, cluster: Clustered | None) -> AsyncIterator[Store]:
        if job.kind.store == "cluster":
            assert cluster is not None
            await cluster.flush()
            yield cluster
        elif job.kind.store == "guarded":
            async with guarded(self.run.proxies) as under_sentinels:
                yield under_sentinels
        else:
            async with single(self.run.proxies, replica=job.play.replica) as plain:
                yield plain


def _times(found: Outcome) -> str:
    return "".join(f"; {name}: {took_s:.2f} s" for name, took_s in found.recovery_s.items())


def _again(job: Job) -> str:
    if isinstance(job.play, Schedule) and not job.play.alone:
        what = f"FAULTS_ALONE=none FAULTS_SEED={job.play.seed} FAULTS_SCHEDULES=1"
    else:
        what = f"FAULTS_ALONE={shlex.quote(f'^{re.escape(job.play.names[0])}$')} FAULTS_SCHEDULES=0"
    return (
        f"FAULTS_STORE={job.kind.store} FAULTS_BROKERS={job.kind.brokers} FAULTS_LANES=1 {what} python -m tests.faults"
    )
