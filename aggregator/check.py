"""What `session-aggregator check` says: what the settings lead to, what is wrong there, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from aggregator.adapters.kafka.admin import Cluster, KafkaAdmin, input_problems, output_problems
from aggregator.adapters.kafka.security import Security
from aggregator.adapters.own_prices import OwnPrices, read_own_prices
from aggregator.adapters.redis.connections import connect_as_set
from aggregator.adapters.redis.servers import Eviction, Server, servers
from aggregator.core.errors import AggregatorError, BrokerRefused, ConfigurationError, StoreRefused
from aggregator.settings import KafkaSettings, PricingSettings, RedisSettings, Settings

_OLDEST_REDIS: Final = (7, 0)
# Long enough for a broker behind a slow name server, short enough for somebody who waits for the answer.
_PATIENCE_S: Final = 10.0

_EVICTION_WORDS: Final = {
    Eviction.NOTHING: "nothing is evicted",
    Eviction.EXPIRING: "keys that expire may be evicted",
    Eviction.ANYTHING: "open sessions may be evicted",
}


class _Report:
    """Lines for people; `problem` tells what must be mended, and `code` what that means for the exit code."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self.code = 0

    def say(self, subject: str, text: str) -> None:
        self._write(f"{subject:<10}{text}")

    def warn(self, text: str) -> None:
        self._write(f"  warning {text}")

    def problem(self, text: str, *, setting: bool = True) -> None:
        """A wrong setting outranks a system that was not reached: the latter may pass by itself."""
        self.code = 2 if setting else max(self.code, 1)
        self._write(f"  PROBLEM {text}")


async def check(settings: Settings, write: Callable[[str], None]) -> int:
    """Reach Kafka and Redis and report line by line; 0 all is well, 2 a setting is wrong, 1 something is away."""
    report = _Report(write)
    report.say("settings", "every variable is understood")
    _prices(settings.pricing, report)
    await _kafka(settings.kafka, report)
    await _redis(settings.redis, report)
    report.say("result", "ready to run" if report.code == 0 else "not ready, mend what is marked above")
    return report.code


def own_prices(pricing: PricingSettings) -> OwnPrices:
    """The operator's own prices, none without a file; raises `ConfigurationError` for one that can't be used."""
    if pricing.file is None:
        return {}
    try:
        return read_own_prices(pricing.file)
    except ConfigurationError as error:
        problems = str(error).splitlines()
        raise ConfigurationError("\n".join(f"AGGREGATOR_PRICING__FILE: {one}" for one in problems)) from error


def _prices(pricing: PricingSettings, report: _Report) -> None:
    if pricing.file is None:
        report.say("prices", "of the list that came with this release" if pricing.enabled else "none")
        return
    try:
        own = own_prices(pricing)
    except ConfigurationError as error:
        report.say("prices", str(pricing.file))
        for problem in str(error).splitlines():
            report.problem(problem)
        return
    report.say("prices", f"{pricing.file}: {len(own)} of your own, before the list")


def output_topics(kafka: KafkaSettings) -> dict[str, str]:
    """The topics that are written, by the variable that names each."""
    return {
        "AGGREGATOR_KAFKA__SUMMARY_TOPIC": kafka.summary_topic,
        "AGGREGATOR_KAFKA__DEAD_LETTER_TOPIC": kafka.dead_letter_topic,
    }


def named_topics(kafka: KafkaSettings) -> list[str]:
    """The topics that must be there before a worker starts, and be allowed to it."""
    read = () if kafka.topic_pattern else kafka.topics
    return [*read, *(() if kafka.create_topics else output_topics(kafka).values())]


def redis_problems(redis: RedisSettings, server: Server) -> list[str]:
    """Why a worker must not run on this server, one line each with its remedy."""
    problems = []
    if server.software == "redis" and _release(server.version) < _OLDEST_REDIS:
        problems.append(f"AGGREGATOR_REDIS__URL: Redis {server.version} is too old; use Redis 7.0 or later, or Valkey")
    if server.cluster != redis.cluster:
        kind, wanted = ("part of a Cluster", "true") if server.cluster else ("single server", "false")
        problems.append(f"AGGREGATOR_REDIS__CLUSTER: this is a {kind}; set it to {wanted}")
    if server.is_replica:
        problems.append("AGGREGATOR_REDIS__URL: this is a replica, which takes no writes; name the primary")
    if server.eviction is Eviction.ANYTHING and not redis.allow_eviction:
        problems.append(
            f"Redis may drop open sessions (maxmemory-policy {server.maxmemory_policy}); set it to noeviction or "
            "volatile-ttl, or AGGREGATOR_REDIS__ALLOW_EVICTION=true to accept the loss"
        )
    return problems


async def _kafka(kafka: KafkaSettings, report: _Report) -> None:
    addresses = ",".join(kafka.bootstrap_servers)
    try:
        admin = KafkaAdmin(addresses, security=Security.of(kafka), timeout_s=_PATIENCE_S)
        cluster = await admin.cluster(topics=named_topics(kafka), group_id=kafka.group_id)
    except (ConfigurationError, BrokerRefused) as error:
        report.say("kafka", addresses)
        report.problem(str(error))
        return
    except AggregatorError as error:
        report.say("kafka", addresses)
        report.problem(
            f"{error}; check AGGREGATOR_KAFKA__BOOTSTRAP_SERVERS and AGGREGATOR_KAFKA__SECURITY_PROTOCOL "
            f"({kafka.security_protocol}), and that the brokers' advertised listeners can be reached from here",
            setting=False,
        )
        return
    _describe_cluster(kafka, addresses, cluster, report)


def _describe_cluster(kafka: KafkaSettings, addresses: str, cluster: Cluster, report: _Report) -> None:
    brokers = f"{len(cluster.brokers)} broker{'s' if len(cluster.brokers) != 1 else ''}"
    report.say("kafka", f"{addresses}: Kafka {cluster.release}, {brokers} ({', '.join(cluster.brokers)})")
    for topic in _input_topics(kafka, cluster):
        report.say("  input", f"{topic}: {_partitions(cluster.topics[topic])}")
    outputs = output_topics(kafka)
    for topic in outputs.values():
        if topic in cluster.topics:
            report.say("  output", f"{topic}: {_partitions(cluster.topics[topic])}")
        elif kafka.create_topics:
            report.say("  output", f"{topic}: will be created at start")
    for problem in input_problems(kafka.topics, kafka.topic_pattern, cluster.topics):
        report.problem(problem)
    if not kafka.create_topics:
        for problem in output_problems(outputs, cluster.topics):
            report.problem(problem)


def _input_topics(kafka: KafkaSettings, cluster: Cluster) -> list[str]:
    if kafka.topic_pattern is not None:
        return sorted(topic for topic in cluster.topics if re.match(kafka.topic_pattern, topic))
    return [topic for topic in kafka.topics if topic in cluster.topics]


def _partitions(count: int) -> str:
    return f"{count} partition{'s' if count != 1 else ''}"


async def _redis(redis: RedisSettings, report: _Report) -> None:
    try:
        connections = connect_as_set(redis)
        try:
            found = await servers(connections)
        finally:
            await connections.close()
    except (ConfigurationError, StoreRefused) as error:
        report.say("redis", str(redis.url))
        report.problem(str(error))
        return
    except AggregatorError as error:
        report.say("redis", str(redis.url))
        mode = "on, is this a Cluster?" if redis.cluster else "off"
        report.problem(
            f"{error}; check AGGREGATOR_REDIS__URL, that the server runs and can be reached from here, and "
            f"AGGREGATOR_REDIS__CLUSTER ({mode})",
            setting=False,
        )
        return
    for server in found:
        _describe_server(redis, server, report)


def _describe_server(redis: RedisSettings, server: Server, report: _Report) -> None:
    kind = "part of a Cluster" if server.cluster else "single server"
    report.say(
        "redis",
        f"{server.address}: {server.software} {server.version}, {kind}, {server.role}, "
        f"maxmemory-policy {server.maxmemory_policy} ({_EVICTION_WORDS[server.eviction]})",
    )
    problems = redis_problems(redis, server)
    for problem in problems:
        report.problem(problem)
    if server.eviction is not Eviction.NOTHING and not problems:
        report.warn(
            f"maxmemory-policy {server.maxmemory_policy}: under memory pressure late spans may be lost; "
            "noeviction makes the worker wait instead"
        )


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
