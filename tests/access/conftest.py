"""A Kafka with ACLs and certificates, started once for the whole folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.access.kafka_with_acls import SecuredBroker, SecuredKafka
from tests.certificates import Authority
from tests.kafka_servers import in_own_loop, kafka_version_and_jars


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Whom everybody trusts here."""
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def secured_kafka(authority: Authority) -> Iterator[SecuredBroker]:
    """Apache Kafka with every way to log in."""
    apache = kafka_version_and_jars()
    if apache is None:
        pytest.skip("only Apache Kafka does this: needs java and mvn on the PATH")
    server = SecuredKafka(apache[1], authority)
    in_own_loop(server.__aenter__())
    try:
        yield SecuredBroker(server, authority)
    finally:
        in_own_loop(server.stop())
