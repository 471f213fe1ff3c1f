"""What is asked of a cluster, and what is said about topics that are missing."""

from __future__ import annotations

import asyncio
import ssl
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from aggregator.adapters.kafka.admin import KafkaAdmin, input_problems, output_problems
from aggregator.adapters.kafka.security import Security
from aggregator.adapters.tls import TlsFiles
from aggregator.core.errors import BrokerUnavailable, ConfigurationError
from aggregator.embedded.process import LOCALHOST, free_port
from tests.kafka_servers import Broker

# A self-signed pair of nobody, the key encrypted with SECRET.
CERTIFICATE, KEY = (Path(__file__).parent.parent / "kafka" / f"client-{part}.pem" for part in ("certificate", "key"))
SECRET = "open sesame"  # noqa: S105 - it opens nothing else


async def test_a_cluster_tells_itself_and_its_topics(kafka_broker: Broker) -> None:
    topic = await kafka_broker.create_topic(partitions=3)
    cluster = await KafkaAdmin(kafka_broker.bootstrap_servers).cluster()
    assert cluster.topics[topic] == 3
    assert list(cluster.brokers) == [kafka_broker.bootstrap_servers]
    assert cluster.cluster_id
    if kafka_broker.is_apache:
        assert cluster.release == "4.1 or later"


async def listed(admin: KafkaAdmin, names: Sequence[str]) -> Mapping[str, int]:
    """The topics once these are among them: a broker's metadata come a moment after the answer of the creation."""
    for _ in range(400):
        topics = (await admin.cluster()).topics
        if set(names) <= set(topics):
            return topics
        await asyncio.sleep(0.05)
    raise AssertionError(f"{names} were not listed within 20 s")


async def test_missing_topics_are_created_like_the_input(kafka_broker: Broker) -> None:
    spans = await kafka_broker.create_topic(partitions=3)
    new = [f"{name}-{uuid.uuid4().hex[:8]}" for name in ("summaries", "dead")]
    admin = KafkaAdmin(kafka_broker.bootstrap_servers)
    await admin.create_topics([spans, *new], like=spans)
    await admin.create_topics(new, like=spans)
    topics = await listed(admin, new)
    assert [topics[name] for name in new] == [3, 3]


async def test_without_a_model_the_broker_chooses_the_partitions(apache_kafka: Broker) -> None:
    name = f"dead-{uuid.uuid4().hex[:8]}"
    admin = KafkaAdmin(apache_kafka.bootstrap_servers)
    await admin.create_topics([name])
    assert (await listed(admin, [name]))[name] == 1


async def test_a_name_that_kafka_refuses_is_a_wrong_setting(apache_kafka: Broker) -> None:
    with pytest.raises(ConfigurationError, match="not a topic name"):
        await KafkaAdmin(apache_kafka.bootstrap_servers).create_topics(["not a topic name"])


async def test_an_unreachable_cluster_is_transient() -> None:
    address = f"{LOCALHOST}:{free_port()}"
    with pytest.raises(BrokerUnavailable, match=address):
        await KafkaAdmin(address).cluster()


def test_problems_name_the_setting_and_the_remedy() -> None:
    existing = {"a", "b", "__consumer_offsets"}
    assert input_problems(["a", "b"], None, existing) == []
    assert input_problems(["a", "c"], None, existing) == [
        "AGGREGATOR_KAFKA__TOPICS: there is no topic 'c'; create it, or name one that this user may see: a, b"
    ]
    assert input_problems([], "[ab]", existing) == []
    assert input_problems([], "c.*", set()) == [
        (
            "AGGREGATOR_KAFKA__TOPIC_PATTERN: there is no topic that matches 'c.*'; create it, or name one that this "
            "user may see: there is none"
        )
    ]
    assert input_problems(["x"], None, {f"t{number}" for number in range(30)})[0].endswith("t17, ...")
    wanted = {"AGGREGATOR_KAFKA__SUMMARY_TOPIC": "a", "AGGREGATOR_KAFKA__DEAD_LETTER_TOPIC": "d"}
    assert output_problems(wanted, existing) == [
        (
            "AGGREGATOR_KAFKA__DEAD_LETTER_TOPIC: there is no topic 'd'; create it, or set "
            "AGGREGATOR_KAFKA__CREATE_TOPICS=true"
        )
    ]


def test_security_without_tls_is_words_only() -> None:
    assert Security().client_arguments() == {"security_protocol": "PLAINTEXT"}
    scram = Security(
        protocol="SASL_PLAINTEXT", sasl_mechanism="SCRAM-SHA-512", sasl_username="me", sasl_password=SECRET
    )
    assert scram.client_arguments() == {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "me",
        "sasl_plain_password": SECRET,
    }
    assert SECRET not in repr(scram)


def test_tls_checks_certificates_unless_told_otherwise() -> None:
    context = TlsFiles(group="kafka").context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    context = TlsFiles(group="kafka", check_hostname=False).context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, False)


def test_a_client_certificate_is_taken_and_a_broken_one_named(tmp_path: Path) -> None:
    good = TlsFiles(group="kafka", ca_file=CERTIFICATE, cert_file=CERTIFICATE, key_file=KEY, key_password=SECRET)
    assert good.context().cert_store_stats()["x509"] == 1
    for wrong, name in (
        (TlsFiles(group="kafka", cert_file=CERTIFICATE, key_file=KEY), "SSL_KEY_PASSWORD"),
        (TlsFiles(group="kafka", ca_file=KEY), "SSL_CA_FILE"),
        (TlsFiles(group="redis", ca_file=tmp_path / "missing"), "AGGREGATOR_REDIS__SSL_CA_FILE"),
    ):
        with pytest.raises(ConfigurationError, match=name):
            wrong.context()
    with pytest.raises(ConfigurationError, match="SSL_CA_FILE"):
        Security(protocol="SSL", tls=TlsFiles(group="kafka", ca_file=KEY)).client_arguments()
