"""One run of a producer: a process of its own between the stubs of its APIs and a Collector."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from tests.interop import environments
from tests.interop.catalogue import Producer
from tests.interop.stubs import APIS
from tests.interop.stubs.bill import Bill

PATIENCE_S: Final = 180.0
"""Some frameworks take half a minute to be imported on a busy machine."""

_KEPT: Final = ("PATH", "LANG", "LC_ALL", "TZ", "SYSTEMROOT")


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a producer knows of one of its sessions."""

    project: str
    user: str | None
    traces: int
    error_traces: int


@dataclass(frozen=True)
class Truth:
    """What is true of one run, whatever its spans say: what the producer did and what the APIs charged."""

    told: Mapping[str, Told]
    bill: Bill

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"told": {name: vars(told) for name, told in self.told.items()}, "bill": self.bill.to_json()}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """What `to_json` wrote."""
        told = {name: Told(**kept) for name, kept in document["told"].items()}
        return cls(told, Bill.from_json(document["bill"]))


async def run(producer: Producer, *, http_endpoint: str, grpc_endpoint: str, scratch: Path) -> Truth:
    """Let the producer do its work; its last line of output is what it says it did."""
    bill = Bill()
    command = await asyncio.to_thread(environments.command_of, producer)
    async with AsyncExitStack() as stack:
        variables = _variables(producer, http_endpoint, grpc_endpoint, scratch)
        for name in producer.apis:
            variables |= (await stack.enter_async_context(APIS[name](bill))).environment()
        log = scratch / f"{producer.name}.log"
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *command, env=variables, cwd=scratch, stdout=asyncio.subprocess.PIPE, stderr=errors
            )
            try:
                output, _ = await asyncio.wait_for(process.communicate(), PATIENCE_S)
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
    logged = log.read_text(errors="replace")[-8000:]
    assert process.returncode == 0, f"{producer.name} ended with {process.returncode}:\n{logged}"
    print(logged)
    assert not bill.strays, f"{producer.name} sent requests that name no session: {bill.strays}"
    said = json.loads(output.decode().strip().splitlines()[-1])
    return Truth({session: Told(**one) for session, one in said["sessions"].items()}, bill)


def _variables(producer: Producer, http_endpoint: str, grpc_endpoint: str, scratch: Path) -> dict[str, str]:
    """The whole environment of the process: nothing of this machine's but what programs need to start."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {
        **kept,
        "HOME": str(scratch),  # frameworks keep caches there
        "NO_PROXY": "127.0.0.1,localhost",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": http_endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "INTEROP_GRPC_ENDPOINT": grpc_endpoint,  # what a producer over gRPC puts into the variable above
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=shop,openinference.project.name=shop",
        **producer.variables,
    }
