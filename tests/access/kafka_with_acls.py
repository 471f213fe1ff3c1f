"""Apache Kafka with TLS, every log-in and ACLs, in one JVM; `ACLS` of the service are those that the script makes."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest

from aggregator.embedded.process import LOCALHOST, ChildProcess, free_port
from aggregator.embedded.server import EmbeddedServer
from tests.certificates import Authority
from tests.kafka_servers import Broker, KafkaProcess, brokers_of, new_cluster_id

ROOT: Final = Path(__file__).parents[2]
CANARY: Final = "canary-7f3a"
"""In every password and token that is a secret: it must turn up nowhere."""
JWT: Final = "eyJ"
PASSWORD: Final = f"{CANARY}-right"
WORKER: Final = "sessions"
_PLAIN: Final = "org.apache.kafka.common.security.plain.PlainLoginModule required"
_SCRAM: Final = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
_OAUTH: Final = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required"
_PROTOCOLS: Final = {
    "TLS": "SSL",
    "MUTUAL": "SSL",
    "EXPIRED": "SSL",
    "ELSEWHERE": "SSL",
    "SASL": "SASL_SSL",
    "ONLY512": "SASL_PLAINTEXT",
    "BRIEF": "SASL_SSL",
}
"""Listeners: `MUTUAL` asks for a client certificate, `ELSEWHERE` shows a certificate of another host, `ONLY512` takes
one mechanism, `BRIEF` ends every connection after two seconds.
"""
RESOURCES: Final = {"--topic": 2, "--group": 3, "--cluster": 4}
OPERATIONS: Final = {"Read": 3, "Write": 4, "Create": 5, "Describe": 8}


class Acl(NamedTuple):
    """One entry: the operation that the worker's user may do on a resource, whose option is that of kafka-acls.sh."""

    resource: str
    name: str
    operation: str


def token(subject: str, *, life_s: float = 3600) -> str:
    """An unsigned token, which Kafka's validator for tests takes; like every token it begins with `JWT`."""
    now = int(time.time())
    parts = ({"alg": "none"}, {"sub": subject, "iat": now, "exp": now + int(life_s)})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join(encoded) + "."


class SecuredKafka(EmbeddedServer):
    """One node with the listeners above; its plain one is for tests, without limits."""

    start_timeout_s = 60.0

    def __init__(self, jars: Path, certificates: Authority) -> None:
        super().__init__()
        self._jars = jars
        self._cluster_id = ""
        self.ports = {name: free_port() for name in _PROTOCOLS}
        _, _, here = certificates.issue("broker", "localhost", LOCALHOST)
        _, _, expired = certificates.issue("expired", "localhost", LOCALHOST, expired=True)
        _, _, elsewhere = certificates.issue("elsewhere", "broker.example")
        self._stores = {"EXPIRED": expired, "ELSEWHERE": elsewhere, "": here}
        self._authority = certificates.file

    def launch(self, port: int, log_dir: Path) -> ChildProcess:
        process = KafkaProcess(self._jars, log_dir)
        self._cluster_id = new_cluster_id()
        process.format(
            self._cluster_id,
            ports={"PLAINTEXT": port, **self.ports},
            controllers=[free_port()],
            timeout_s=self.start_timeout_s,
            protocols=_PROTOCOLS,
            more="\n".join(self._settings()),
            scram=[f"SCRAM-SHA-{bits}=[name={WORKER},password={PASSWORD}]" for bits in (256, 512)],
        )
        return process.start()

    async def answers(self, child: ChildProcess, port: int) -> bool:
        return bool(await brokers_of(self._cluster_id, port))

    def _settings(self) -> list[str]:
        lines = [
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users=User:ANONYMOUS",
            "ssl.principal.mapping.rules=RULE:^.*CN=([^,]+).*$/$1/,DEFAULT",
            "allow.everyone.if.no.acl.found=false",
            "sasl.mechanism.inter.broker.protocol=PLAIN",
            "listener.name.brief.connections.max.reauth.ms=2000",
        ]
        for name, protocol in _PROTOCOLS.items():
            listener = f"listener.name.{name.lower()}"
            if protocol.endswith("SSL"):
                lines += [
                    f"{listener}.ssl.keystore.type=PEM",
                    f"{listener}.ssl.keystore.location={self._stores.get(name, self._stores[''])}",
                    f"{listener}.ssl.truststore.type=PEM",
                    f"{listener}.ssl.truststore.location={self._authority}",
                    f"{listener}.ssl.client.auth={'required' if name == 'MUTUAL' else 'none'}",
                ]
            if protocol.startswith("SASL"):
                some = ["SCRAM-SHA-512"] if name == "ONLY512" else ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
                lines.append(f"{listener}.sasl.enabled.mechanisms={','.join([*some, 'OAUTHBEARER'][:4])}")
                lines += [f"{listener}.scram-sha-{bits}.sasl.jaas.config={_SCRAM}" for bits in (256, 512)]
                lines.append(f'{listener}.plain.sasl.jaas.config={_PLAIN} user_{WORKER}="{PASSWORD}";')
                lines.append(f'{listener}.oauthbearer.sasl.jaas.config={_OAUTH} unsecuredLoginStringClaim_sub="b";')
                validator = "org.apache.kafka.common.security.oauthbearer.internals.unsecured"
                lines.append(
                    f"{listener}.oauthbearer.sasl.server.callback.handler.class="
                    f"{validator}.OAuthBearerUnsecuredValidatorCallbackHandler"
                )
        return lines


class SecuredBroker(Broker):
    """It, as tests see it."""

    def __init__(self, server: SecuredKafka, certificates: Authority) -> None:
        super().__init__(server.address, "Apache Kafka with ACLs", pid=server.pid, is_apache=True)
        self.certificates = certificates
        self._ports = server.ports

    def at(self, listener: str) -> str:
        """The address of a listener, by the name that its certificate has."""
        return f"localhost:{self._ports[listener]}"

    async def allow(self, *acls: Acl, user: str = WORKER) -> None:
        """Add entries to what the user may do."""
        for acl in acls:
            await self._ask(CreateAclsRequest(*_entry(acl, user)))

    async def forbid(self, *acls: Acl, user: str = WORKER) -> None:
        """Take entries away."""
        for acl in acls:
            await self._ask(DeleteAclsRequest(*_entry(acl, user)))

    async def _ask(self, request: Any) -> None:
        async with self.admin() as admin:
            answer = await admin._send_to_controller(request)
        code = (getattr(answer, "creation_responses", None) or answer.filter_responses)[0][0]
        assert code == 0, answer


def _entry(acl: Acl, user: str) -> tuple[int, str, int, str, str, int, int]:
    literal, allow = 3, 3
    kind, operation = RESOURCES[acl.resource], OPERATIONS[acl.operation]
    return kind, acl.name, literal, f"User:{user}", "*", operation, allow


def acls_of(folder: Path, **names: str) -> list[Acl]:
    """What deploy/kafka/acls.sh allows, found by running it with a kafka-acls.sh that only writes down its arguments.

    (The real tool takes a JVM of seconds for each call; `make deploy-check` runs the script with it.)
    """
    recorder, written = folder / "kafka-acls.sh", folder / "acls.txt"
    written.unlink(missing_ok=True)
    recorder.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> "{written}"\n')
    recorder.chmod(0o755)
    environment = {**os.environ, **names, "PATH": f"{folder}:{os.environ['PATH']}"}
    subprocess.run([ROOT / "deploy/kafka/acls.sh"], env=environment, check=True, timeout=30)
    return [acl for line in written.read_text().splitlines() for acl in _acls(line.split())]


def _acls(arguments: Sequence[str]) -> list[Acl]:
    pairs = list(pairwise(arguments))
    operations = [value for option, value in pairs if option == "--operation"]
    named = [(option, value) for option, value in pairs if option in RESOURCES]
    return [Acl(option, value, operation) for option, value in named for operation in operations]
