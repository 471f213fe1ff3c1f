"""The OpenTelemetry Collector, built from `deploy/collector/builder.yaml`, run with the very file that is recommended.

`python -m tests.interop.collector` builds it, once per manifest, into the checkout's cache.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from aggregator.embedded.process import LOCALHOST, ChildProcess, free_port, wait_until_answering
from aggregator.embedded.server import EmbeddedServer
from tests.e2e.waiting import PATIENCE_S, until
from tests.interop.required import require

_ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = _ROOT / "deploy" / "collector"
CONFIG: Final = DEPLOY / "config.yaml"
MANIFEST: Final = DEPLOY / "builder.yaml"
_BUILD_TIMEOUT_S: Final = 1800  # some four minutes with nothing cached; CI shares its cores
_READY: Final = "Everything is ready"
_ASK_TIMEOUT: Final = aiohttp.ClientTimeout(total=PATIENCE_S)
NO_SETTINGS: Final[Mapping[str, str]] = MappingProxyType({})


def program() -> Path:
    """The built Collector, which is built now where it is not in the cache; raises `RuntimeError` if it can't be."""
    version = _found(r"^  version: (\S+)$")
    made_of = hashlib.sha256(MANIFEST.read_bytes()).hexdigest()[:12]
    built = _ROOT / ".cache" / "collector" / f"{version}-{made_of}" / "collector"
    if not built.is_file():
        require("the OpenTelemetry Collector", "go")
        print(f"building the OpenTelemetry Collector {version}, which takes some minutes", flush=True)
        built.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=built.parent) as scratch:
            _build(Path(scratch)).replace(built)  # a build that is cut short leaves nothing that looks like one
    return built


def _found(pattern: str) -> str:
    found = re.search(pattern, MANIFEST.read_text(encoding="utf-8"), re.MULTILINE)
    assert found, f"{MANIFEST} has nothing like {pattern}"
    return found[1]


def _build(scratch: Path) -> Path:
    """Build it in that directory; returns where the program is."""
    manifest = scratch / "builder.yaml"
    text = MANIFEST.read_text(encoding="utf-8")
    manifest.write_text(text.replace("dist:\n", f"dist:\n  output_path: '{scratch / 'source'}'\n", 1), encoding="utf-8")
    core = _found(r"/otlpreceiver (v\S+)$")
    builder = f"go.opentelemetry.io/collector/cmd/builder@{core}"  # is released together with the core's components
    done = subprocess.run(
        ["go", "run", builder, "--config", str(manifest)],
        capture_output=True,
        text=True,
        timeout=_BUILD_TIMEOUT_S,
        check=False,
        cwd=scratch,
    )
    if done.returncode:
        raise RuntimeError(f"the OpenTelemetry Collector can't be built:\n{done.stdout}{done.stderr}")
    return scratch / "source" / "collector"


class Collector(EmbeddedServer):
    """A Collector between `async with` and its end, from OTLP to that topic of that broker.

    `variables` are those that the recommended file names; `settings` are laid over it, as in
    `{"exporters::kafka::traces::encoding": "otlp_json"}`; `overlay` is a configuration that is merged into it.
    Its queue lies in `log_dir`, so it outlives the process as in production.
    """

    start_timeout_s = 60.0

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        log_dir: Path,
        *,
        settings: Mapping[str, str] = NO_SETTINGS,
        variables: Mapping[str, str] = NO_SETTINGS,
        overlay: Path | None = None,
    ) -> None:
        super().__init__(log_dir=log_dir)
        self._program = program()
        self._arguments = [f"--config={CONFIG}", *([f"--config={overlay}"] if overlay else [])]
        self._arguments += [f"--set={name}={value}" for name, value in settings.items()]
        self._environment = {
            "KAFKA_BROKERS": bootstrap_servers,
            "KAFKA_TRACES_TOPIC": topic,
            "COLLECTOR_QUEUE_DIRECTORY": str(log_dir / "collector-queue"),
            **variables,
        }
        self._ports: dict[str, int] = {}

    @property
    def http_endpoint(self) -> str:
        """The value of `OTEL_EXPORTER_OTLP_ENDPOINT` for OTLP over HTTP."""
        return f"http://{LOCALHOST}:{self._ports['HTTP']}"

    @property
    def grpc_endpoint(self) -> str:
        """The value of `OTEL_EXPORTER_OTLP_ENDPOINT` for OTLP over gRPC."""
        return f"http://{LOCALHOST}:{self._ports['GRPC']}"

    def launch(self, port: int, log_dir: Path) -> ChildProcess:
        """Start it with its health on that port, and on free ports else."""
        self._ports = {"HEALTH": port} | {name: free_port() for name in ("HTTP", "GRPC", "METRICS")}
        return self._launch(log_dir)

    def _launch(self, log_dir: Path) -> ChildProcess:
        endpoints = {
            f"COLLECTOR_{name}_ENDPOINT": f"{LOCALHOST}:{port}"
            for name, port in self._ports.items()
            if name != "METRICS"
        }
        metrics = {"COLLECTOR_METRICS_HOST": LOCALHOST, "COLLECTOR_METRICS_PORT": str(self._ports["METRICS"])}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("KAFKA_", "COLLECTOR_"))}
        log_path = log_dir / "collector.log"
        log_path.unlink(missing_ok=True)  # of the one before: what it said about being ready is no longer true
        return ChildProcess(
            "the OpenTelemetry Collector",
            [str(self._program), *self._arguments],
            log_path=log_path,
            environment=inherited | self._environment | endpoints | metrics,
        )

    async def answers(self, child: ChildProcess, port: int) -> bool:
        """Whether it says that it is ready, and its health endpoint agrees."""
        if _READY not in child.log_path.read_text(errors="replace"):
            return False
        try:
            async with (
                aiohttp.ClientSession(timeout=_ASK_TIMEOUT) as http,
                http.get(f"http://{LOCALHOST}:{port}") as reply,
            ):
                return reply.status == 200
        except aiohttp.ClientError:
            return False

    async def kill(self) -> None:
        """Kill it where it stands; its queue stays."""
        os.kill(self.pid, signal.SIGKILL)
        await self.child.stop()

    async def terminate(self) -> None:
        """Stop it in order; its queue stays."""
        await self.child.stop()

    async def start_again(self) -> None:
        """Start it anew on the same ports and queue, after `kill` or `terminate`."""
        assert self._log_dir is not None
        self._child = child = self._launch(self._log_dir)
        await wait_until_answering(child, lambda: self.answers(child, self.port), timeout_s=self.start_timeout_s)

    async def metric(self, name: str, **labels: str) -> float:
        """One of its own metrics, without `otelcol_`, summed over all series with these labels; 0 without any."""
        url = f"http://{LOCALHOST}:{self._ports['METRICS']}/metrics"
        async with aiohttp.ClientSession(timeout=_ASK_TIMEOUT) as http, http.get(url) as reply:
            families = text_string_to_metric_families(await reply.text())
            samples = [sample for family in families for sample in family.samples]
        wanted = {f"otelcol_{name}", f"otelcol_{name}_total"}
        return sum(one.value for one in samples if one.name in wanted and labels.items() <= one.labels.items())

    async def flushed(self) -> None:
        """Wait until all that it accepted is with Kafka."""

        async def look() -> bool:
            return await self.metric("exporter_queue_size") == 0

        await until("the Collector's queue is empty", look)


if __name__ == "__main__":
    try:
        program()
    except pytest.skip.Exception as missing:
        print(f"{missing}; tests that need it are skipped")
    except pytest.fail.Exception as missing:
        sys.exit(str(missing))
