"""`sessions …` as a user runs it: processes, a terminal or a pipe, and ids that mean harm."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import logging
import os
import pty
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from aggregator.adapters.redis.connections import connect
from aggregator.adapters.redis.keys import Keys
from aggregator.cli import app
from aggregator.client import Client, Query, Sort
from aggregator.core.model import SessionRef
from aggregator.ports import IndexOrder, SessionPut
from aggregator.sessions.export import COLUMNS
from tests.client.sessions import fill, puts, whole_put
from tests.contract.builders import T0_MS, T0_US
from tests.contract.conftest import Stores, redis_stores
from tests.docs.test_schema import EXAMPLE
from tests.e2e.waiting import until
from tests.kafka_servers import Broker
from tests.redis_servers import RedisServer, redis_servers_available
from tests.sessions.hostile import ESCAPES, FORMULA, HOSTILE, put_hostile
from tests.test_cli import command

KEYS = Keys()
STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")

pytestmark = pytest.mark.parametrize("redis_server", sorted(redis_servers_available())[:1], indirect=True)


@dataclass(frozen=True, kw_only=True)
class Shop:
    """A Redis, and the variables of commands that look at it."""

    stores: Stores
    environ: dict[str, str]
    plain: Any

    async def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Run `sessions …` in this process, which starts sooner: exit code, standard output, standard error."""
        return await asyncio.to_thread(invoked, ["sessions", *arguments], self.environ)


def invoked(arguments: list[str], environ: dict[str, str]) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, arguments, env=environ)
    logging.disable(logging.NOTSET)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout_bytes.decode(), result.stderr


@pytest.fixture
async def shop(redis_server: RedisServer) -> AsyncIterator[Shop]:
    connections = connect(redis_server.url)
    with redis_server.client() as plain:
        stores = redis_stores(connections, plain, KEYS)
        yield Shop(stores=stores, environ={"AGGREGATOR_REDIS__URL": redis_server.url}, plain=plain)
    await connections.close()


async def test_ls_lists_filters_sorts_and_goes_on(shop: Shop) -> None:
    await fill(shop.stores, list(puts(120)), now_ms=T0_MS)
    async with Client(shop.environ["AGGREGATOR_REDIS__URL"]) as client:
        wanted = (await client.list(Query(project="demo", sort=Sort.COST), limit=10)).sessions
    code, out, err = await shop("ls", "-p", "demo", "--sort", "cost", "-n", "5")
    assert code == 0
    rows = [line for line in out.splitlines() if line.startswith(" demo ")]
    assert [row.split()[1] for row in rows] == [one.session_id.split()[0] for one in wanted[:5]]
    cursor = re.search(r"5 sessions of \d+; go on with --cursor (\S+)", err)
    assert cursor
    code, out, _ = await shop("ls", "-p", "demo", "--sort", "cost", "-n", "5", "--cursor", cursor[1], "--json")
    assert [one["session_id"] for one in json.loads(out)["sessions"]] == [one.session_id for one in wanted[5:]]
    code, _, err = await shop("ls", "--cursor", "nonsense")
    assert code == 2
    assert "--cursor" in err
    options = [
        "--status=open",
        "--since=2026-09-21T20:00:00",
        "--until=2026-09-22T12:00:00",
        "--user=ada",
    ]
    code, out, _ = await shop("ls", "--json", "-n", "500", *options)
    found = [one for one in json.loads(out)["sessions"] if one["user_id"] == "ada" and one["status"] == "open"]
    assert len(found) == len(json.loads(out)["sessions"]) > 0
    assert all("2026-09-21T20" <= one["ended_at"] <= "2026-09-22T12" for one in found)


async def test_nothing_to_show_says_what_to_do(shop: Shop) -> None:
    code, out, err = await shop("ls")
    assert (code, out) == (0, "")
    assert "reindex" in err
    code, out, err = await shop("ls", "--user", "x")
    assert (code, out) == (0, "")
    assert "leave out a filter" in err
    code, out, err = await shop("show", "x")
    assert (code, out) == (1, "")
    assert "no session x" in err


async def test_show_tells_all_of_a_session(shop: Shop) -> None:
    who = SessionRef("demo", "chat")
    traces = [
        whole_put(1, name="plan", ended_us=T0_US + 1_000_000),
        whole_put(
            2, name="call", started_us=T0_US + 3_000_000, ended_us=T0_US + 4_000_000, counts={"error_count": 2},
            users=[(T0_US, "ab" * 8, "ada")],
        ),
    ]  # fmt: skip
    await shop.stores.sessions.put([SessionPut(who, traces), SessionPut(SessionRef("other", "both"), traces[:1])])
    await shop.stores.sessions.put([SessionPut(SessionRef("demo", "both"), traces[:1])])
    await shop.stores.index.write([who, SessionRef("demo", "both"), SessionRef("other", "both")], now_ms=T0_MS)
    code, out, _ = await shop("show", "chat")
    assert code == 0
    bars = [line for line in out.splitlines() if "█" in line]
    assert [line.split()[0] for line in bars] == ["plan", "call"]
    assert "██████··················" in bars[0]
    assert "··················██████" in bars[1]
    assert "✗ 2" in bars[1]
    for text in ("ada", "gpt-4o", "4.0 s", "2 in 0 traces"):
        assert text in out
    code, out, _ = await shop("show", "chat", "-p", "demo", "--json")
    assert [trace["name"] for trace in json.loads(out)["traces"]] == ["plan", "call"]
    code, _, err = await shop("show", "both")
    assert code == 2
    assert "--project: demo, other" in err
    assert (await shop("show", "both", "-p", "other"))[0] == 0


async def test_what_means_harm_reaches_no_terminal(shop: Shop) -> None:
    await put_hostile(shop.stores)
    for words in ("ls", "ls --json", "export -f csv", "export", "top --count 1"):
        code, out, err = await shop(*words.split())
        assert code == 0, err
        assert not STEERING.search(out.replace("\r\n", "\n")), words
    for text in HOSTILE:
        code, out, err = await shop("show", f"--project={text[:100]}", "--", text)
        assert code == 0, (text, err)
        assert not STEERING.search(out), text
    code, _, err = await shop("show", f"{ESCAPES}no")
    assert code == 1
    assert not STEERING.search(err)


async def test_a_csv_is_no_program(shop: Shop, tmp_path: Path) -> None:
    await put_hostile(shop.stores)
    target = tmp_path / "out.csv"
    code, out, err = await shop("export", "--format", "csv", "-O", str(target))
    assert (code, out) == (0, "")
    assert "10 sessions written" in err
    rows = list(csv.DictReader(io.StringIO(target.read_bytes().decode(), newline="")))
    assert len(rows) == len(HOSTILE)
    assert tuple(rows[0]) == COLUMNS
    for row in rows:
        for name in ("project", "session_id", "user_id"):
            assert not row[name].startswith(("=", "+", "-", "@", "\t", "\r"))
    assert f"'{FORMULA}" in {row["session_id"] for row in rows}
    assert os.listdir(tmp_path) == [target.name]  # noqa: PTH208 - pathlib would be told to block


async def test_exports_hold_every_session_with_its_figures(shop: Shop, tmp_path: Path) -> None:
    await fill(shop.stores, list(puts(700)), now_ms=T0_MS)
    code, out, _ = await shop("export", "--sort", "tokens")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert len(lines) == 700
    target = tmp_path / "out.parquet"
    code, _, _ = await shop("export", "-f", "parquet", "-O", str(target), "--sort", "tokens")
    assert code == 0
    rows = parquet.read_table(target).to_pylist()
    assert [row["session_id"] for row in rows] == [line["session_id"] for line in lines]
    assert [row["cost_usd"] for row in rows] == [Decimal(line["cost_usd"]) for line in lines]
    assert [row["total_tokens"] for row in rows] == [line["tokens"]["total"] for line in lines]
    assert rows[0]["opened_at"] == datetime.fromisoformat(lines[0]["opened_at"]).astimezone(UTC)
    assert {row["ended_at"] is None for row in rows} == {True, False}


async def test_reindex_brings_lost_indexes_back(shop: Shop) -> None:
    await fill(shop.stores, list(puts(50)), now_ms=T0_MS)
    shop.plain.delete(KEYS.index("demo", IndexOrder.COST), KEYS.projects)
    code, out, _ = await shop("reindex")
    assert (code, out) == (0, "50 sessions indexed\n")
    assert shop.plain.zcard(KEYS.index("demo", IndexOrder.COST)) > 0
    assert json.loads((await shop("reindex", "--json"))[1]) == {"sessions": 50}


async def test_tail_follows_the_summaries(kafka_broker: Broker, shop: Shop) -> None:
    topic = await kafka_broker.create_topic()
    document = {
        "schema": "session-summary/1", "project": "demo", "session_id": ESCAPES, "user_id": "ada", "revision": 2,
        "duration_ms": 61234.5, "trace_count": 1, "tokens": {"total": 1500}, "cost_usd": "0.012300000",
        "error_count": 1,
    }  # fmt: skip
    others = [b"{", b"[]", json.dumps(document | {"project": "other"}).encode()]
    async with kafka_broker.producer() as producer:
        for value in (*others, json.dumps(document).encode()):
            await producer.send_and_wait(topic, value)
    environ = {
        "AGGREGATOR_KAFKA__BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers,
        "AGGREGATOR_KAFKA__SUMMARY_TOPIC": topic,
    }
    arguments = ("sessions", "tail", "--from-beginning", "--count", "1", "--project", "demo")
    code, out, err = await asyncio.to_thread(invoked, list(arguments), environ)
    assert code == 0, err
    assert out.startswith("closed  demo/\\x1b[2J")
    assert out.endswith("(revision 2): 1 m 01 s, 1 trace, 1,500 tokens, $0.0123, 1 error, user ada\n")
    code, out, _ = await asyncio.to_thread(invoked, [*arguments, "--json"], environ)
    assert json.loads(out) == document


async def test_a_redis_that_is_away_ends_it_with_1_and_its_setting_wrong_with_2(shop: Shop) -> None:
    code, out, err = await command("sessions", "ls", AGGREGATOR_REDIS__URL="redis://127.0.0.1:1/0")
    assert (code, out) == (1, "")
    assert "127.0.0.1:1" in err
    assert (await asyncio.to_thread(invoked, ["sessions", "ls"], {"AGGREGATOR_REDIS__URL": "nowhere"}))[0] == 2
    assert (await shop("ls", "--sort", "beauty"))[0] == 2
    assert "Traceback" not in err


async def test_on_a_terminal_there_are_colours_and_a_long_list_goes_through_the_pager(shop: Shop) -> None:
    await fill(shop.stores, list(puts(60)), now_ms=T0_MS)
    few = await on_terminal(shop, "ls", "-n", "3")
    assert "\x1b[" in few
    assert "PAGED" not in few
    many = await on_terminal(shop, "ls", "-n", "50")
    assert many.startswith("PAGED")
    assert "\x1b[" not in await on_terminal(shop, "ls", "-n", "3", NO_COLOR="1", TERM="dumb")


async def test_top_is_live_on_a_terminal_and_leaves_it_as_it_was(shop: Shop) -> None:
    await fill(shop.stores, list(puts(60)), now_ms=T0_MS)
    who = SessionRef("demo", "growing")

    async def interrupt_when_it_has_grown(terminal: Terminal) -> None:
        await terminal.shows("by tokens")
        assert "growing" not in terminal.text
        await shop.stores.sessions.put([SessionPut(who, [whole_put(9, counts={"prompt_tokens": 987_654_321})])])
        await shop.stores.schedule.add([(who, T0_MS)])
        await shop.stores.index.write([who], now_ms=T0_MS + 1)
        await terminal.shows("growing")
        await terminal.shows("987,654,321")
        terminal.type(b"\x03")

    code, seen = await at_terminal(shop, "top", "--sort", "tokens", "--every", "0.2", then=interrupt_when_it_has_grown)
    assert code == 130
    assert seen.startswith("\x1b[?1049h")  # the other screen, and back
    assert seen.endswith("\x1b[?25h\x1b[?1049l")
    assert "Traceback" not in seen
    code, seen = await at_terminal(shop, "top", "--count", "1", "--json")
    assert (code, len(json.loads(seen)["sessions"]) > 3) == (0, True)


async def test_tail_shows_what_closes_from_now_on_until_ctrl_c(kafka_broker: Broker, shop: Shop) -> None:
    topic = await kafka_broker.create_topic()
    shop.environ["AGGREGATOR_KAFKA__BOOTSTRAP_SERVERS"] = kafka_broker.bootstrap_servers
    shop.environ["AGGREGATOR_KAFKA__SUMMARY_TOPIC"] = topic
    document = EXAMPLE | {"user_id": None, "session_id": "before"}

    async def interrupt_when_it_is_there(terminal: Terminal) -> None:
        async with kafka_broker.producer() as producer:
            await producer.send_and_wait(topic, json.dumps(document).encode())

            async def look() -> bool:
                await producer.send_and_wait(topic, json.dumps(document | {"session_id": "now"}).encode())
                await asyncio.sleep(0.2)
                return "demo/now" in terminal.text

            await until("the summary is shown", look)
        terminal.type(b"\x03")

    code, seen = await at_terminal(shop, "tail", then=interrupt_when_it_is_there)
    assert code == 130
    assert "closed  demo/now: 1 m 01 s, 1 trace, 1,500 tokens, $0.0123, 1 error\r\n" in seen
    assert "Traceback" not in seen


@pytest.mark.parametrize(
    ("words", "wanted"),
    [("sessions ", {"ls", "show", "top", "tail", "export"}), ("sessions ls --sort ", {sort.value for sort in Sort})],
)
async def test_the_shell_completes_commands_and_values(shop: Shop, words: str, wanted: set[str]) -> None:
    assert shop
    variables = {
        "_SESSION_AGGREGATOR_COMPLETE": "complete_bash",
        "COMP_WORDS": f"session-aggregator {words}",
        "COMP_CWORD": str(1 + words.count(" ")),
    }
    program = Path(sys.executable).with_name("session-aggregator")
    process = await asyncio.create_subprocess_exec(
        program, env={**os.environ, **variables}, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert wanted <= set(out.decode().split())


async def test_a_reader_that_has_enough_ends_it_quietly(shop: Shop) -> None:
    await fill(shop.stores, list(puts(700)), now_ms=T0_MS)
    code = "sessions export | head -n 1; echo ${PIPESTATUS[0]}"
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", f"{sys.executable} -m aggregator {code}"),
        env={**os.environ, **shop.environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    first, ended = out.decode().splitlines()
    assert json.loads(first)["project"]
    assert ended == "1"
    assert b"Traceback" not in err


async def test_parquet_without_its_package_says_what_to_install(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, err = await shop("export", "-f", "parquet", "-O", str(tmp_path / "out.parquet"))
    assert code == 2
    assert "pip install 'session-aggregator[parquet]'" in err


class Terminal:
    """The other side of a command's terminal."""

    def __init__(self, main: int) -> None:
        self._main = main
        self.text = ""

    async def follow(self) -> None:
        """Read until the command ends."""
        seen = b""
        while True:
            try:
                part = await asyncio.to_thread(os.read, self._main, 65_536)
            except OSError:  # how Linux says that the other side is closed
                return
            if not part:
                return
            seen += part
            self.text = seen.decode(errors="ignore")

    async def shows(self, text: str) -> None:
        async def look() -> bool:
            return text in self.text

        await until(f"{text!r} is shown", look)

    def type(self, keys: bytes) -> None:
        os.write(self._main, keys)


async def on_terminal(shop: Shop, *arguments: str, **environ: str) -> str:
    """What a command writes on a terminal."""
    code, seen = await at_terminal(shop, *arguments, then=None, **environ)
    assert code == 0
    return seen


async def at_terminal(
    shop: Shop,
    *arguments: str,
    then: Callable[[Terminal], Awaitable[None]] | None = None,
    **environ: str,
) -> tuple[int, str]:
    """Exit code, and what is written on a terminal of 40 lines, with a pager that says that it was used."""
    main, other = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *("setsid", "--ctty", "--wait", sys.executable, "-m", "aggregator", "sessions", *arguments),
        env={
            **os.environ, "LINES": "40", "COLUMNS": "150", "TERM": "xterm", "PAGER": "sh -c 'echo PAGED; cat'",
            **shop.environ, **environ,
        },
        stdin=other,
        stdout=other,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    os.close(other)
    terminal = Terminal(main)
    following = asyncio.create_task(terminal.follow())
    try:
        if then is not None:
            await then(terminal)
        code = await asyncio.wait_for(process.wait(), timeout=30)
        await following
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(main)
    return code, terminal.text
