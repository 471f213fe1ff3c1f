"""Every query of every dashboard and rule finds data in a Prometheus that watched a real pipeline under load."""

from __future__ import annotations

import asyncio
import json
import math
import re
import shutil
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from aggregator.embedded.process import LOCALHOST, ChildProcess, free_port
from deploy.generate.dashboards import BOARDS
from tests.builders import joined, record, span, to_protobuf
from tests.deploy.programs import ROOT, jmx_exporter
from tests.e2e.deliveries import known_trace
from tests.e2e.pipeline import Pipeline, pipeline
from tests.e2e.waiting import until
from tests.kafka_servers import ApacheKafka, Broker, _server
from tests.redis_servers import RedisServer, redis_servers_available

LOAD_S: Final = 20.0
RULES: Final = ROOT / "deploy/prometheus/rules"

pytestmark = pytest.mark.timeout(600)


class Prometheus:
    """A Prometheus that has watched everything; asked over HTTP."""

    def __init__(self, port: int, began_s: float) -> None:
        self.url = f"http://{LOCALHOST}:{port}"
        self.began_s = began_s

    def ask(self, path: str, **query: str) -> Any:
        """The data of an answer that must be a success."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - our own server
            said = json.loads(answer.read())
        assert said["status"] == "success", said
        return said["data"]

    def values(self, query: str) -> list[float]:
        """Every number that a query had since the beginning; NaN is none."""
        end_s = time.time()
        found = self.ask("query_range", query=query, start=f"{self.began_s}", end=f"{end_s}", step="1")["result"]
        numbers = [float(value) for series in found for _, value in series["values"]]
        return [number for number in numbers if not math.isnan(number)]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """The pipeline with all its exporters, some seconds of load, and the Prometheus that saw it."""
    if missing := [name for name in ("prometheus", "prometheus-redis-exporter") if shutil.which(name) is None]:
        pytest.fail(f"apt-get install {' '.join(missing)}", pytrace=False)
    folder = tmp_path_factory.mktemp("watched")
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            yield runner.run(_watched(folder, stack))
        finally:
            runner.run(stack.aclose())


async def _watched(folder: Path, stack: AsyncExitStack) -> Prometheus:
    broker, broker_metrics = await _broker(stack)
    redis = RedisServer(redis_servers_available()["redis"], "--maxmemory", "200mb")
    stack.callback(redis.remove)
    made = await stack.enter_async_context(pipeline(broker, redis, folder))
    worker, port = made.worker(HTTP__PORT=str(port := free_port()), INGEST__MAX_BATCH_RECORDS="500"), port
    await worker.listening()
    await until("the worker is ready", worker.is_ready)
    exporter = free_port()
    command = ["prometheus-redis-exporter", f"-redis.addr={redis.url}", f"-web.listen-address={LOCALHOST}:{exporter}"]
    _child(stack, ChildProcess("redis-exporter", command, log_path=folder / "redis-exporter.log"))
    targets = {"session-aggregator": port, "redis": exporter, "kafka": broker_metrics}
    prometheus = Prometheus(await _prometheus(folder, targets, stack), time.time())
    await _load(made)
    return prometheus


def _child(stack: AsyncExitStack, child: ChildProcess) -> None:
    stack.push_async_callback(child.stop)


async def _broker(stack: AsyncExitStack) -> tuple[Broker, int]:
    """Apache Kafka with the JMX exporter, configured as deploy/ ships it."""
    server, name = _server()
    assert isinstance(server, ApacheKafka), "the broker's dashboard needs java and mvn on the PATH"
    port = free_port()
    agent = f"-javaagent:{jmx_exporter()}={LOCALHOST}:{port}:{ROOT / 'deploy/kafka/jmx-exporter.yaml'}"
    server.agents.append(agent)
    await stack.enter_async_context(server)
    return Broker(server.address, name, pid=server.pid, is_apache=True), port


async def _prometheus(folder: Path, targets: dict[str, int], stack: AsyncExitStack) -> int:
    """Start it with the rules that deploy/ ships, looking every second."""
    port = free_port()
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES / "*.yaml")],
        "scrape_configs": [
            # A broker has thousands of beans to look through, which takes a busy machine seconds.
            {
                "job_name": job,
                "static_configs": [{"targets": [f"{LOCALHOST}:{where}"]}],
                "scrape_interval": "5s" if job == "kafka" else "1s",
            }
            for job, where in targets.items()
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    command.append(f"--web.listen-address={LOCALHOST}:{port}")
    _child(stack, ChildProcess("prometheus", command, log_path=folder / "prometheus.log"))

    async def look() -> bool:
        try:
            found = await asyncio.to_thread(Prometheus(port, 0).ask, "query", query="up == 1")
        except OSError:
            return False
        return len(found["result"]) == len(targets)

    await until("Prometheus has reached all targets", look, timeout_s=90)
    return port


async def _load(made: Pipeline) -> None:
    """Sessions that begin, use tokens, end and come back, and records that are wrong."""
    ends_s = time.monotonic() + LOAD_S
    number = 0
    while time.monotonic() < ends_s:
        number += 1
        now_ms = round(time.time() * 1000)
        usage: dict[str, Any] = {"openinference.span.kind": "LLM", "llm.token_count.prompt": 7, "llm.cost.total": 0.5}
        spans = [
            record(
                [span(1, {"session.id": f"s{number % 20}"} | usage, trace=10 * number, start=now_ms, end=now_ms + 5)]
            ),
            known_trace(10 * number + 1, now_ms, session=f"t{number}", spans=3),
        ]
        odd = record(
            [span(2, {"session.id": "a", "llm.token_count.prompt": -1}, trace=10 * number + 2, start=1, end=2)]
        )
        await made.send_bytes(to_protobuf(joined(spans)), to_protobuf(odd), b"\xff")
        await asyncio.sleep(0.2)
    await made.wait_committed()
    await asyncio.sleep(2)  # so that a scrape sees the end


def queries() -> Iterator[tuple[str, str, str]]:
    """(dashboard, panel, query) of the files that Grafana reads."""
    for path in sorted((ROOT / "deploy/grafana").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                yield path.stem.rpartition("-")[2], panel["title"], target["expr"]


JOBS: Final = {"overview": "session-aggregator", "sessions": "session-aggregator", "redis": "redis", "kafka": "kafka"}


@pytest.mark.parametrize(("board", "panel", "query"), list(queries()), ids=[f"{b}-{p}" for b, p, _ in queries()])
def test_every_panel_has_data(loaded: Prometheus, board: str, panel: str, query: str) -> None:
    assert '{job="$job"' in query, "another job's series would be mixed in"
    rate_interval = "30s" if board == "kafka" else "15s"  # a busy machine may miss a scrape of the broker or two
    assert loaded.values(query.replace("$job", JOBS[board]).replace("$__rate_interval", rate_interval)), panel


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_the_variable_finds_the_job(loaded: Prometheus, board: Any) -> None:
    found = loaded.ask("series", **{"match[]": board.finds})  # what label_values() asks
    assert {series["job"] for series in found} == {JOBS[board.uid.rpartition("-")[2]]}


def test_every_metric_of_every_rule_exists(loaded: Prometheus) -> None:
    there = set(loaded.ask("label/__name__/values"))
    rules = [
        rule
        for path in RULES.glob("*.yaml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]
    named = {name for rule in rules for name in re.findall(r"\b(?:aggregator|redis|process)_[a-z_]+\b", rule["expr"])}
    assert len(named) > 10
    assert named <= there | {"redis_behind"}  # a label's value


def test_every_rule_is_evaluated(loaded: Prometheus) -> None:
    rules = [rule for group in loaded.ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}
    for rule in rules:
        if rule["type"] == "recording" and rule["name"].endswith("rate5m"):
            assert loaded.values(rule["name"]), rule["name"]


def test_the_load_is_seen_for_what_it_is(loaded: Prometheus) -> None:
    firing = {entry["labels"]["alertname"] for entry in loaded.ask("alerts")["alerts"] if entry["state"] == "firing"}
    assert "SessionAggregatorDeadLetters" in firing
    assert not firing & {"SessionAggregatorStateLost", "SessionAggregatorRestarting", "SessionAggregatorAbsent"}
    assert max(loaded.values("sum(aggregator_session_cost_usd_sum)")) > 0


def test_rows_are_named_like_the_stages() -> None:
    from aggregator.telemetry import Stage

    titles = [title for title, _ in BOARDS[0].rows]
    assert [title for title in titles if title in set(Stage)] == list(Stage)
