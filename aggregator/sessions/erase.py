"""`sessions erase`: what is known of a session, or of all sessions that name a user, goes and does not come back.

Redis comes first and the topic of summaries last, so that no summary follows the record that takes them back.
All of it may be repeated, also for a session that is not there any more.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Final

import typer

from aggregator.adapters.clock import SystemClock
from aggregator.adapters.kafka.producer import Producer
from aggregator.adapters.kafka.security import Security
from aggregator.adapters.kafka.sink import KafkaSummarySink
from aggregator.adapters.redis.connections import connect_as_set
from aggregator.adapters.redis.erasing import Erased, RedisErasing
from aggregator.adapters.redis.index import RedisSessionIndex
from aggregator.adapters.redis.keys import Keys
from aggregator.client import Client
from aggregator.client.wording import counted, duration, harmless
from aggregator.core.errors import AggregatorError
from aggregator.core.model import SessionRef
from aggregator.settings import Settings

PUBLISHED_WITHIN_S: Final = 65.0
"""A summary of a session that was claimed before is on its topic by then, cut shorter too, or is never sent."""

_SHOWN: Final = 20


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be erased: a session by its id, or all of a user; and how."""

    session_id: str | None
    user: str | None
    project: str | None
    hold_s: float | None
    tombstone: bool
    dry_run: bool
    yes: bool
    as_json: bool


def longest_life_s(settings: Settings) -> float:
    """For how long spans of a session that was erased just now could come too late for its keys' lives."""
    session = settings.session
    return max(session.retention_s, session.idle_timeout_s + session.late_ttl_s)


async def erase(settings: Settings, wanted: Wanted) -> int:
    """Erase and say what was there; 1 where there is nothing to erase."""
    redis = settings.redis
    connections = connect_as_set(redis)
    keys = Keys(redis.key_prefix, closing_shards=settings.session.closing_shards)
    index = RedisSessionIndex(connections, keys, retention_ms=round(settings.session.retention_s * 1000))
    erasing = RedisErasing(connections, keys, index)
    try:
        refs = await _sessions(settings, erasing, wanted)
        if not refs:
            return 1
        if wanted.dry_run or not (wanted.yes or _confirmed(refs)):
            _list(refs, wanted)
            return 0 if wanted.dry_run else 1
        await _erase(settings, erasing, refs, wanted)
    finally:
        await connections.close()
    return 0


async def _erase(settings: Settings, erasing: RedisErasing, refs: Sequence[SessionRef], wanted: Wanted) -> None:
    kafka = settings.kafka
    hold_s = longest_life_s(settings) if wanted.hold_s is None else wanted.hold_s
    producer = Producer(",".join(kafka.bootstrap_servers), client_id=kafka.client_id, security=Security.of(kafka))
    try:
        if wanted.tombstone:  # before anything is erased: whose it was can't be found out again
            await producer.start()
        try:
            done = await erasing.erase(refs, hold_ms=round(hold_s * 1000), now_ms=SystemClock().now_ms())
            if wanted.tombstone:
                await _take_back(KafkaSummarySink(producer, kafka.summary_topic), done)
        except AggregatorError:
            given = "" if wanted.hold_s is None else f"--hold {wanted.hold_s:g} "
            given += "" if wanted.tombstone else "--no-tombstone "
            again = "".join(
                f"\n  session-aggregator sessions erase --yes {given}"
                + harmless(f"--project {quote(ref.project)} -- {quote(ref.session_id)}")
                for ref in refs
            )
            typer.echo(f"Not all is erased, in Redis or on the topic; go on with:{again}", err=True)
            raise
    finally:
        await producer.close()
    _report(settings, done, hold_s, wanted)


async def _take_back(sink: KafkaSummarySink, done: Sequence[Erased]) -> None:
    if any(one.closing for one in done):
        typer.echo("A worker may be publishing a summary just now; waiting until it has.", err=True)
        await asyncio.sleep(PUBLISHED_WITHIN_S)
    await sink.erase([one.ref for one in done])


async def _sessions(settings: Settings, erasing: RedisErasing, wanted: Wanted) -> list[SessionRef]:
    """The sessions meant; none, with a word about it, where that can't be said."""
    if wanted.user is not None:
        refs = await erasing.sessions_of(wanted.user, wanted.project)
        if not refs:
            typer.echo(f"No session in Redis names the user {harmless(wanted.user)}.", err=True)
        return refs
    session_id = wanted.session_id or ""
    if wanted.project is not None:
        return [SessionRef(wanted.project, session_id)]
    async with Client.from_settings(settings) as client:
        projects = await client.projects()
        found = await client.read([(one, session_id) for one in projects])
    there = [one for one, session in zip(projects, found, strict=True) if session is not None]
    if len(there) == 1:
        return [SessionRef(there[0], session_id)]
    if there:
        names = ", ".join(harmless(one) for one in there)
        typer.echo(f"Several projects have a session with this id; add --project: {names}", err=True)
    else:
        typer.echo(
            f"There is no session {harmless(session_id)} in Redis; with --project what is on the topic of summaries "
            "is taken back all the same, and late spans are refused.",
            err=True,
        )
    return []


def _confirmed(refs: Sequence[SessionRef]) -> bool:
    names = ", ".join(harmless(f"{ref.project}/{ref.session_id}") for ref in refs[:3])
    more = ", …" if len(refs) > 3 else ""
    return typer.confirm(f"Erase {counted(len(refs), 'session')} for good ({names}{more})?", err=True)


def _list(refs: Sequence[SessionRef], wanted: Wanted) -> None:
    if wanted.as_json:
        typer.echo(json.dumps({"would_erase": [ref._asdict() for ref in refs]}))
        return
    typer.echo(f"Nothing was erased of {counted(len(refs), 'session')}:")
    for ref in refs:
        typer.echo(harmless(f"  {ref.project}/{ref.session_id}"))


def _report(settings: Settings, done: Sequence[Erased], hold_s: float, wanted: Wanted) -> None:
    if wanted.as_json:
        sessions = [{**one.ref._asdict(), "found": one.found, "traces": one.traces} for one in done]
        typer.echo(json.dumps({"sessions": sessions, "hold_s": hold_s, "summaries_taken_back": wanted.tombstone}))
        return
    for one in done[:_SHOWN]:
        what = f"erased, with {counted(one.traces, 'trace')}" if one.found else "was not in Redis"
        typer.echo(f"{harmless(f'{one.ref.project}/{one.ref.session_id}')}: {what}")
    if len(done) > _SHOWN:
        typer.echo(f"and {counted(len(done) - _SHOWN, 'more session')}")
    typer.echo(f"Late spans are refused for {duration(hold_s * 1000)}.")
    kafka = settings.kafka
    if wanted.tombstone:
        typer.echo(f"Topic {kafka.summary_topic} says so to its consumers: a record without a value per session.")
    elif any(one.published for one in done):
        typer.echo(f"Topic {kafka.summary_topic} still has the summaries, until its retention takes them.")
    inputs = kafka.topic_pattern or ", ".join(kafka.topics)
    typer.echo(f"The spans stay on {inputs} and {kafka.dead_letter_topic} until their retention takes them.")
