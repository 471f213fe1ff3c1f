"""The command line says what is wrong in one message, and its exit codes can be relied on."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from importlib.metadata import version
from pathlib import Path

from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from aggregator.adapters.http import HttpServer
from aggregator.check import check
from aggregator.embedded.process import free_port
from aggregator.settings import load_settings
from tests.kafka_servers import Broker
from tests.redis_servers import Cluster, RedisServer

UNREACHABLE_S = 30.0


async def command(*arguments: str, **environ: str) -> tuple[int, str, str]:
    """Run `python -m aggregator` as a process: exit code, standard output, standard error."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AGGREGATOR_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "aggregator",
        *arguments,
        env=clean | environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), timeout=UNREACHABLE_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def checked(environ: dict[str, str]) -> tuple[int, list[str]]:
    lines: list[str] = []
    code = await check(load_settings(environ), lines.append)
    return code, lines


async def test_help_names_the_commands() -> None:
    code, out, _ = await command("--help")
    assert code == 0
    for name in ("run", "check", "healthcheck", "demo", "sessions", "web", "mcp"):
        assert name in out


async def test_version_is_the_package_s() -> None:
    code, out, _ = await command("--version")
    assert code == 0
    assert out.startswith(f"session-aggregator {version('session-aggregator')} (")


async def test_wrong_settings_end_every_command_that_reads_them_with_code_2_and_all_problems() -> None:
    wrong = {"AGGREGATOR_HTTP__PORT": "http", "AGGREGATOR_KAFKA__TOPIC": "spans"}
    for name in ("run", "check"):
        code, out, err = await command(name, **wrong)
        assert (code, out) == (2, "")
        assert "AGGREGATOR_HTTP__PORT" in err
        assert "did you mean AGGREGATOR_KAFKA__TOPICS?" in err
        assert "Traceback" not in err


async def test_every_mistake_in_the_file_of_prices_is_told_by_run_and_check(tmp_path: Path) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text('["gpt-*"]\nprompt = -1\ncompletion = "x"\n')
    environ = {"AGGREGATOR_PRICING__FILE": str(prices)}
    away = {"AGGREGATOR_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"}
    code, out, err = await command("run", **environ, **away)
    assert (code, out) == (2, "")
    assert err.count(f"AGGREGATOR_PRICING__FILE: {prices}: ") == 2
    code, out, err = await command("check", **environ, **away, AGGREGATOR_REDIS__URL=f"redis://127.0.0.1:{free_port()}")
    assert (code, err) == (2, "")
    assert out.count(f"PROBLEM AGGREGATOR_PRICING__FILE: {prices}: ") == 2
    prices.write_text('["gpt-*"]\nprompt = 1\n')
    _, out, _ = await command("check", **environ, **away, AGGREGATOR_REDIS__URL=f"redis://127.0.0.1:{free_port()}")
    assert f"{prices}: 1 of your own, before the list" in out


async def test_healthcheck_says_what_livez_says() -> None:
    reasons: list[str] = []
    server = HttpServer(
        host="0.0.0.0",  # noqa: S104 - as in a container
        port=free_port(),
        registry=CollectorRegistry(),
        liveness=lambda: reasons,
        readiness=lambda: ["not asked for"],
    )
    await server.start()
    port = str(server.address[1])
    try:
        assert await command("healthcheck", AGGREGATOR_HTTP__PORT=port) == (0, "ok\n", "")
        reasons.append("a task has died")
        assert await command("healthcheck", AGGREGATOR_HTTP__PORT=port) == (1, "a task has died\n", "")
    finally:
        await server.stop()
    code, out, err = await command("healthcheck", AGGREGATOR_HTTP__PORT=port)
    assert (code, out) == (1, "")
    assert err.startswith(f"127.0.0.1 port {port} does not answer: ")
    assert len(err.splitlines()) == 1


async def test_healthcheck_can_not_guess_a_port() -> None:
    code, out, err = await command("healthcheck", AGGREGATOR_HTTP__PORT="0")
    assert (code, out) == (2, "")
    assert "AGGREGATOR_HTTP__PORT is 0" in err


async def test_an_unknown_command_is_refused() -> None:
    assert (await command("fly"))[0] == 2


async def test_check_tells_what_is_away_and_which_setting_to_look_at() -> None:
    kafka, redis = free_port(), free_port()
    code, out, err = await command(
        "check",
        AGGREGATOR_KAFKA__BOOTSTRAP_SERVERS=f"127.0.0.1:{kafka}",
        AGGREGATOR_REDIS__URL=f"redis://:hunter2@127.0.0.1:{redis}/0",
    )
    assert (code, err) == (1, "")
    assert out.count("PROBLEM") == 2
    assert "check AGGREGATOR_KAFKA__BOOTSTRAP_SERVERS" in out
    assert "check AGGREGATOR_REDIS__URL" in out
    assert "hunter2" not in out


async def test_check_reaches_everything(kafka_broker: Broker, redis_server: RedisServer) -> None:
    topic = await kafka_broker.create_topic(partitions=3)
    summaries = await kafka_broker.create_topic("summaries")
    rejects = await kafka_broker.create_topic("rejects")
    code, lines = await checked(
        {
            "AGGREGATOR_KAFKA__BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers,
            "AGGREGATOR_KAFKA__TOPICS": topic,
            "AGGREGATOR_KAFKA__SUMMARY_TOPIC": summaries,
            "AGGREGATOR_KAFKA__DEAD_LETTER_TOPIC": rejects,
            "AGGREGATOR_REDIS__URL": redis_server.url,
        }
    )
    text = "\n".join(lines)
    assert code == 0, text
    assert f"{topic}: 3 partitions" in text
    assert f"{summaries}: 1 partition" in text
    assert f"{rejects}: 1 partition" in text
    assert "single server" in text
    assert "maxmemory-policy noeviction (nothing is evicted)" in text
    assert lines[-1].endswith("ready to run")


async def test_check_lists_every_missing_topic_and_eviction_at_once(
    kafka_broker: Broker, redis_server: RedisServer
) -> None:
    missing = f"missing-{uuid.uuid4().hex}"
    environ = {
        "AGGREGATOR_KAFKA__BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers,
        "AGGREGATOR_KAFKA__TOPICS": missing,
        "AGGREGATOR_KAFKA__SUMMARY_TOPIC": f"{missing}-summaries",
        "AGGREGATOR_KAFKA__DEAD_LETTER_TOPIC": f"{missing}-rejects",
        "AGGREGATOR_REDIS__URL": redis_server.url,
    }
    async with Redis.from_url(redis_server.url) as client:
        await client.config_set("maxmemory", "1gb")
        await client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            code, lines = await checked(environ)
            _, allowed = await checked(
                environ | {"AGGREGATOR_REDIS__ALLOW_EVICTION": "true", "AGGREGATOR_KAFKA__CREATE_TOPICS": "true"}
            )
        finally:
            await client.config_set("maxmemory-policy", "noeviction")
            await client.config_set("maxmemory", "0")
    problems = [line for line in lines if "PROBLEM" in line]
    assert code == 2
    assert len(problems) == 4
    for setting, problem in zip(
        (
            "AGGREGATOR_KAFKA__TOPICS",
            "AGGREGATOR_KAFKA__SUMMARY_TOPIC",
            "AGGREGATOR_KAFKA__DEAD_LETTER_TOPIC",
            "AGGREGATOR_REDIS__ALLOW_EVICTION",
        ),
        problems,
        strict=True,
    ):
        assert setting in problem
    still = [line for line in allowed if "PROBLEM" in line]
    assert len(still) == 1
    assert "AGGREGATOR_KAFKA__TOPICS" in still[0]
    assert sum("will be created at start" in line for line in allowed) == 2
    assert any("warning" in line and "allkeys-lru" in line for line in allowed)


async def test_check_notices_a_cluster_that_the_settings_do_not_know(
    kafka_broker: Broker, redis_cluster: Cluster
) -> None:
    topic = await kafka_broker.create_topic()
    environ = {
        "AGGREGATOR_KAFKA__BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers,
        "AGGREGATOR_KAFKA__TOPIC_PATTERN": f"{topic}$",
        "AGGREGATOR_KAFKA__CREATE_TOPICS": "true",
        "AGGREGATOR_REDIS__URL": redis_cluster.url,
    }
    code, lines = await checked(environ)
    assert code == 2
    assert any("AGGREGATOR_REDIS__CLUSTER" in line and "set it to true" in line for line in lines)
    code, lines = await checked(environ | {"AGGREGATOR_REDIS__CLUSTER": "true"})
    assert code == 0, lines
    assert sum("part of a Cluster" in line for line in lines) > 1
    assert any(f"{topic}: 1 partition" in line for line in lines)


async def test_run_that_can_not_have_its_port_says_which_setting(
    kafka_broker: Broker, redis_server: RedisServer
) -> None:
    topic = await kafka_broker.create_topic()
    taken = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    try:
        code, _, err = await command(
            "run",
            AGGREGATOR_KAFKA__BOOTSTRAP_SERVERS=kafka_broker.bootstrap_servers,
            AGGREGATOR_KAFKA__TOPICS=topic,
            AGGREGATOR_KAFKA__CREATE_TOPICS="true",
            AGGREGATOR_REDIS__URL=redis_server.url,
            AGGREGATOR_HTTP__HOST="127.0.0.1",
            AGGREGATOR_HTTP__PORT=str(port),
            AGGREGATOR_LOG__FORMAT="json",
        )
    finally:
        taken.close()
        await taken.wait_closed()
    assert code == 2, err
    assert f"AGGREGATOR_HTTP__PORT: can't listen on 127.0.0.1 port {port}" in err
    assert "Traceback" not in err
    for line in err.splitlines():
        if line.startswith("{"):
            assert "event" in json.loads(line)
