"""What `deploy/compose.yaml` puts together: each part's configuration runs on the part's own program."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
import redis
import yaml
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from aggregator.check import check
from aggregator.embedded.process import free_port
from aggregator.settings import load_settings
from aggregator.web.access import Access
from tests.deploy.programs import ROOT, compose_schema, kafka_tools, run
from tests.deploy.test_chart import template
from tests.kafka_servers import Broker
from tests.redis_servers import redis_servers_available

DEPLOY: Final = ROOT / "deploy"
COMPOSE: Final[Mapping[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: Final[Mapping[str, Mapping[str, Any]]] = COMPOSE["services"]

pytestmark = pytest.mark.timeout(600)


def variables(name: str) -> dict[str, str]:
    return {key: str(value) for key, value in SERVICES[name].get("environment", {}).items()}


# --- as a whole -------------------------------------------------------------------------------------------------------


def test_it_is_a_compose_file() -> None:
    validator = jsonschema.Draft7Validator(compose_schema())
    validator.validate(COMPOSE)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({"services": {"a": {"imagine": "b"}}})


def test_every_image_has_a_version_and_every_file_is_there() -> None:
    for name, service in SERVICES.items():
        assert re.fullmatch(r"[\w./-]+:v?\d[\w.-]*", service["image"]), name
        for volume in service.get("volumes", []):
            place, _, _ = volume.partition(":")
            if place.startswith("."):
                assert (DEPLOY / place).exists(), f"{name}: {place}"
            else:
                assert place in COMPOSE["volumes"], f"{name}: {place}"


def test_nothing_listens_beyond_this_machine() -> None:
    for name, service in SERVICES.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name


def test_the_worker_starts_with_these_settings_and_rights() -> None:
    worker = SERVICES["session-aggregator"]
    settings = load_settings(variables("session-aggregator"))
    assert settings.kafka.bootstrap_servers == ("kafka:9092",)
    assert worker["read_only"] is True
    assert worker["cap_drop"] == ["ALL"]
    assert int(worker["stop_grace_period"].removesuffix("s")) >= settings.shutdown.grace_s + 5


def test_the_web_view_lets_in_with_the_token_that_is_told() -> None:
    settings = load_settings(variables("web"))
    assert settings.redis.url == load_settings(variables("session-aggregator")).redis.url
    assert SERVICES["web"]["ports"] == [f"127.0.0.1:{settings.web.port}:{settings.web.port}"]
    access = Access(settings.web)
    assert not access.open
    for told in ((DEPLOY / "compose.yaml").read_text(), (DEPLOY / "README.md").read_text()):
        (token,) = re.findall(r"token `?([\w-]+)[`;]", told)
        assert access.bearer(token) is not None


def test_prometheus_takes_its_configuration() -> None:
    run(["promtool", "check", "config", DEPLOY / "prometheus/prometheus.yml"])
    scraped = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    hosts = [
        target.partition(":")[0]
        for job in scraped
        for part in job.get("static_configs", [])
        for target in part["targets"]
    ]
    hosts += [name for job in scraped for part in job.get("dns_sd_configs", []) for name in part["names"]]
    assert set(hosts) <= SERVICES.keys()


def test_grafana_finds_dashboards_and_prometheus() -> None:
    provisioning = DEPLOY / "grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((provisioning / "dashboards/dashboards.yaml").read_text())["providers"]
    assert f"./grafana:{provider['options']['path']}:ro" in SERVICES["grafana"]["volumes"]
    home = variables("grafana")["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (DEPLOY / "grafana" / Path(home).name).exists()


# --- topics -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kafka_topics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `kafka-topics.sh`, as Kafka's distribution has it: its own tool, run by Java."""
    folder = tmp_path_factory.mktemp("bin")
    script = folder / "kafka-topics.sh"
    script.write_text(f'#!/bin/sh\nexec java -cp "{kafka_tools()}/*" org.apache.kafka.tools.TopicCommand "$@"\n')
    script.chmod(0o755)
    return folder


async def test_the_topics_are_created_as_the_chart_would(
    kafka_broker: Broker, kafka_topics: Path, tmp_path: Path
) -> None:
    names = {f"{kind}_TOPIC": f"{kind.lower()}-{os.getpid()}" for kind in ("INPUT", "SUMMARY", "DEAD_LETTER")}
    own = variables("topics") | names | {"BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers}
    environment = os.environ | own | {"PATH": f"{kafka_topics}:{os.environ['PATH']}"}
    command = SERVICES["topics"]["command"]
    script = DEPLOY / "kafka/create-topics.sh"
    for _ in range(2):  # harmless the second time
        await asyncio.to_thread(run, [*command[:-1], script], env=environment)
    kafka = {"topics": [names["INPUT_TOPIC"]], "summary_topic": names["SUMMARY_TOPIC"]}
    kafka["dead_letter_topic"] = names["DEAD_LETTER_TOPIC"]
    values = {
        "inputPartitions": 4,
        "settings": {"kafka": kafka},
        "strimzi": {"enabled": True, "cluster": "kafka", "replicas": 1, "minInSyncReplicas": 1},
    }
    wanted = {
        part["spec"]["topicName"]: part["spec"] for part in template(values, tmp_path) if part["kind"] == "KafkaTopic"
    }
    assert wanted.keys() == set(names.values())
    async with kafka_broker.admin() as admin:
        for described in await admin.describe_topics(list(wanted)):
            assert len(described["partitions"]) == wanted[described["topic"]]["partitions"]
        for name, spec in wanted.items():
            assert await _settings_of(admin, name, spec["config"]) == {k: str(v) for k, v in spec["config"].items()}


async def _settings_of(admin: Any, topic: str, wanted: Mapping[str, Any]) -> dict[str, str]:
    (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    entries = {entry[0]: entry[1] for entry in answer.resources[0][4]}
    return {name: entries[name] for name in wanted}


# --- Redis ------------------------------------------------------------------------------------------------------------


@contextmanager
def redis_as_shipped(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Redis with deploy/redis/redis.conf, on a port and in a folder of this test."""
    port = free_port()
    program = redis_servers_available()["redis"]
    place = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    process = subprocess.Popen([program, str(DEPLOY / "redis/redis.conf"), *place], stdout=subprocess.DEVNULL)
    try:
        with redis.Redis(port=port) as client:
            _wait_until_it_answers(client, process)
        yield process, port
    finally:
        process.kill()
        process.wait()


def _wait_until_it_answers(client: redis.Redis, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            client.ping()
        except redis.ConnectionError:
            assert process.poll() is None, "Redis does not take its configuration"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


async def test_check_has_nothing_against_this_redis(kafka_broker: Broker, tmp_path: Path) -> None:
    topics = [await kafka_broker.create_topic(kind) for kind in ("in", "out", "bad")]
    with redis_as_shipped(tmp_path) as (_, port):
        names = dict(zip(("TOPICS", "SUMMARY_TOPIC", "DEAD_LETTER_TOPIC"), topics, strict=True))
        kafka = {f"AGGREGATOR_KAFKA__{name}": topic for name, topic in names.items()}
        kafka["AGGREGATOR_KAFKA__BOOTSTRAP_SERVERS"] = kafka_broker.bootstrap_servers
        lines: list[str] = []
        settings = load_settings(kafka | {"AGGREGATOR_REDIS__URL": f"redis://127.0.0.1:{port}/0"})
        assert await check(settings, lines.append) == 0, lines


def test_this_redis_survives_a_crash_and_evicts_nothing(tmp_path: Path) -> None:
    with redis_as_shipped(tmp_path) as (process, port):
        with redis.Redis(port=port) as client:
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            client.set("agg:it", "stays")
            time.sleep(1.5)  # what a crash may take is a second
            while client.info("persistence")["aof_pending_bio_fsync"]:
                time.sleep(0.1)  # and as long as the disk takes
        process.send_signal(signal.SIGKILL)
        process.wait()
    with redis_as_shipped(tmp_path) as (_, port), redis.Redis(port=port) as client:
        assert client.get("agg:it") == b"stays"
        client.config_set("maxmemory", "500kb")  # less than it has anyway
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            client.mset({f"agg:{number}": b"x" for number in range(100)})
        assert client.get("agg:it") == b"stays"
