"""Each way into Kafka, and what is said where it is closed."""

from __future__ import annotations

import re
from pathlib import Path
from traceback import format_exception
from typing import Any

import pytest

from aggregator.adapters.kafka.access import Access
from aggregator.adapters.kafka.admin import KafkaAdmin
from aggregator.adapters.kafka.producer import Message, Producer
from aggregator.adapters.kafka.security import Security
from aggregator.adapters.tls import TlsFiles
from aggregator.core.errors import BrokerRefused
from tests.access.kafka_with_acls import CANARY, JWT, PASSWORD, WORKER, Acl, SecuredBroker, token
from tests.certificates import Authority
from tests.e2e.waiting import until


def security(broker: SecuredBroker, protocol: str, mechanism: str = "PLAIN", **more: Any) -> Security:
    """As the worker's user with the right password, unless told otherwise."""
    tls = {"ca_file": broker.certificates.file} | more.pop("tls", {})
    login = {"sasl_username": WORKER, "sasl_password": PASSWORD} if protocol.startswith("SASL") else {}
    return Security(protocol=protocol, sasl_mechanism=mechanism, tls=TlsFiles(group="kafka", **tls), **(login | more))


def files(broker: SecuredBroker, name: str = "sessions") -> dict[str, Path]:
    chain, key, _ = broker.certificates.issue(name)
    return {"cert_file": chain, "key_file": key}


async def test_every_way_in(secured_kafka: SecuredBroker, tmp_path: Path) -> None:
    topic, other = await secured_kafka.create_topic(), await secured_kafka.create_topic()
    await secured_kafka.allow(Acl("--topic", topic, "Read"))
    token_file, password_file = tmp_path / "token", tmp_path / "password"
    token_file.write_text(token(WORKER))
    password_file.write_text(f"{PASSWORD}\n")
    here = secured_kafka
    ways = {
        "TLS": security(here, "SSL"),
        "MUTUAL": security(here, "SSL", tls=files(here)),
        "ONLY512": security(here, "SASL_PLAINTEXT", "SCRAM-SHA-512"),
    }

    async def allowed() -> bool:
        return topic in (await KafkaAdmin(here.at("TLS"), security=ways["TLS"]).cluster()).topics

    await until("what is allowed counts", allowed)
    for mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
        found = await KafkaAdmin(here.at("SASL"), security=security(here, "SASL_SSL", mechanism)).cluster()
        assert topic in found.topics
        by_file = security(here, "SASL_SSL", mechanism, sasl_password=None, sasl_password_file=password_file)
        assert topic in (await KafkaAdmin(here.at("SASL"), security=by_file).cluster()).topics
    bearer = security(here, "SASL_SSL", "OAUTHBEARER", sasl_token_file=token_file)
    assert bearer.principal == f"User:{WORKER}"
    assert topic in (await KafkaAdmin(here.at("SASL"), security=bearer).cluster()).topics
    for listener, way in ways.items():
        assert topic in (await KafkaAdmin(here.at(listener), security=way).cluster()).topics, listener
    assert other not in found.topics


WRONG_CERTIFICATES = {
    "EXPIRED": r"certificate is not trusted here \(certificate has expired\); check AGGREGATOR_KAFKA__SSL_CA_FILE",
    "ELSEWHERE": r"certificate is not trusted here \(Hostname mismatch.*'localhost'\); check",
    "MUTUAL": r"it ended the TLS handshake \(.*certificate.*\); check AGGREGATOR_KAFKA__SSL_CERT_FILE",
}


async def refusal(address: str, way: Security) -> str:
    """The one line that says what is wrong."""
    with pytest.raises(BrokerRefused) as caught:
        await KafkaAdmin(address, security=way, timeout_s=20).cluster()
    said = str(caught.value)
    assert "\n" not in said
    told = "".join(format_exception(caught.value))
    assert CANARY not in told
    assert JWT not in told
    assert address in said
    return said


@pytest.mark.parametrize("listener", WRONG_CERTIFICATES)
async def test_a_certificate_that_is_refused(secured_kafka: SecuredBroker, listener: str) -> None:
    said = await refusal(secured_kafka.at(listener), security(secured_kafka, "SSL"))
    assert re.search(WRONG_CERTIFICATES[listener], said), said


async def test_strangers(secured_kafka: SecuredBroker, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")
    said = await refusal(secured_kafka.at("TLS"), security(secured_kafka, "SSL", tls={"ca_file": other.file}))
    assert re.search(r"not trusted here \(.*(issuer|self.signed).*\); check AGGREGATOR_KAFKA__SSL_CA_FILE", said), said
    chain, key, _ = other.issue("sessions")
    way = security(secured_kafka, "SSL", tls={"cert_file": chain, "key_file": key})
    said = await refusal(secured_kafka.at("MUTUAL"), way)
    assert re.search(rf"as the client certificate {chain}: it ended the TLS handshake", said), said


async def test_a_file_that_is_spoilt_after_the_start_is_waited_for(
    secured_kafka: SecuredBroker, tmp_path: Path
) -> None:
    trusted = tmp_path / "ca.crt"
    trusted.write_bytes(secured_kafka.certificates.file.read_bytes())
    access = Access(secured_kafka.at("TLS"), security(secured_kafka, "SSL", tls={"ca_file": trusted}))
    assert await access.why("looking") is None
    trusted.write_text("spoilt")
    found = await access.why("looking")
    assert isinstance(found, BrokerRefused)
    assert f"AGGREGATOR_KAFKA__SSL_CA_FILE: {trusted} can't be used" in str(found)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_a_wrong_password(secured_kafka: SecuredBroker, mechanism: str) -> None:
    way = security(secured_kafka, "SASL_SSL", mechanism, sasl_password=f"{CANARY}-wrong")
    said = await refusal(secured_kafka.at("SASL"), way)
    assert f"does not let User:{WORKER} in: Authentication failed" in said
    assert "AGGREGATOR_KAFKA__SASL_" in said


async def test_other_log_ins_that_fail(secured_kafka: SecuredBroker, tmp_path: Path) -> None:
    here = secured_kafka
    said = await refusal(here.at("ONLY512"), security(here, "SASL_PLAINTEXT", "SCRAM-SHA-256"))
    assert f"does not let User:{WORKER} in" in said
    assert "SASL_MECHANISM" in said
    old = tmp_path / "token"
    old.write_text(token(WORKER, life_s=-60))
    said = await refusal(here.at("SASL"), security(here, "SASL_SSL", "OAUTHBEARER", sasl_token_file=old))
    assert f"does not let User:{WORKER} in: the token is refused" in said
    gone = tmp_path / "gone"
    said = await refusal(here.at("SASL"), security(here, "SASL_SSL", "OAUTHBEARER", sasl_token_file=gone))
    assert "AGGREGATOR_KAFKA__SASL_TOKEN_FILE" in said
    way = security(here, "SASL_SSL", sasl_password=None, sasl_password_file=gone)
    said = await refusal(here.at("SASL"), way)
    assert "AGGREGATOR_KAFKA__SASL_PASSWORD_FILE" in said


async def test_certificates_that_are_replaced(secured_kafka: SecuredBroker, tmp_path: Path) -> None:
    """The same client goes on with what the files hold at each new connection."""
    other = Authority(tmp_path, "other")
    trusted, chain, key = (tmp_path / name for name in ("ca.crt", "tls.crt", "tls.key"))
    topic = await secured_kafka.create_topic()
    await secured_kafka.allow(Acl("--topic", topic, "Write"))
    ours, theirs = secured_kafka.certificates.issue("sessions"), other.issue("sessions-2")

    def put(authority: Authority, pair: tuple[Path, ...]) -> None:
        for target, source in zip((trusted, chain, key), (authority.file, *pair), strict=False):
            target.write_bytes(source.read_bytes())

    put(other, ours)
    way = security(secured_kafka, "SSL", tls={"ca_file": trusted, "cert_file": chain, "key_file": key})
    producer = Producer(secured_kafka.at("MUTUAL"), security=way, delivery_timeout_s=10)
    with pytest.raises(BrokerRefused, match="its certificate is not trusted here"):
        await producer.start()
    put(secured_kafka.certificates, theirs)
    with pytest.raises(BrokerRefused, match="it ended the TLS handshake"):
        await producer.start()
    put(secured_kafka.certificates, ours)
    await producer.start()
    try:
        assert await producer.send([Message(topic, b"k", b"v", ())]) == []
    finally:
        await producer.close()
