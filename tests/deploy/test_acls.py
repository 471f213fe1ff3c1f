"""deploy/kafka/acls.sh with Kafka's own tool, on a cluster that has an authorizer."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.access.conftest import authority, secured_kafka
from tests.access.kafka_with_acls import WORKER, Acl, SecuredBroker, acls_of
from tests.deploy.programs import kafka_tools

__all__ = ["authority", "secured_kafka"]  # fixtures

SCRIPT: Final = Path(__file__).parents[2] / "deploy/kafka/acls.sh"
pytestmark = pytest.mark.timeout(600)  # each call of the tool is a JVM
_LISTED: Final = re.compile(
    r"resourceType=(\w+), name=([^,]+), patternType=LITERAL|operation=(\w+), permissionType=ALLOW"
)


async def test_the_script_allows_what_the_tests_of_the_worker_rely_on(
    secured_kafka: SecuredBroker,
    tmp_path: Path,
) -> None:
    tool = tmp_path / "kafka-acls.sh"
    tool.write_text(f'#!/bin/sh\nexec java -cp "{kafka_tools()}/*" org.apache.kafka.tools.AclCommand "$@"\n')
    tool.chmod(0o755)
    names = {name: f"{name.lower()}-{os.getpid()}" for name in ("INPUT_TOPIC", "SUMMARY_TOPIC", "DEAD_LETTER_TOPIC")}
    names |= {"GROUP_ID": f"group-{os.getpid()}", "BOOTSTRAP_SERVERS": secured_kafka.bootstrap_servers}
    environment = os.environ | names | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for _ in range(2):  # harmless the second time
        await asyncio.to_thread(_run, SCRIPT, env=environment)
    asking = ("--bootstrap-server", secured_kafka.bootstrap_servers, "--list", "--principal", f"User:{WORKER}")
    listed = await asyncio.to_thread(_run, tool, *asking, env=environment)
    found, resource = set(), ("", "")
    for kind, name, operation in _LISTED.findall(listed):
        if operation:
            found.add(Acl(*resource, operation.capitalize()))
        else:
            resource = (f"--{kind.lower()}", name)
    own = {acl for acl in found if acl.name.endswith(f"-{os.getpid()}")}
    (tmp_path / "recorded").mkdir()
    assert own == set(acls_of(tmp_path / "recorded", **names)), listed


def _run(program: Path, *arguments: str, env: Mapping[str, str]) -> str:
    done = subprocess.run([program, *arguments], env=env, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout
