"""The Dockerfile builds what an operator may run: small, locked, compiled, without rights, and a worker that works."""

from __future__ import annotations

import json
import re
import time
import tomllib
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from aggregator.embedded.process import LOCALHOST, ChildProcess, free_port
from tests.builders import to_protobuf
from tests.deploy.conftest import Image
from tests.deploy.image import command_in, said_in
from tests.deploy.programs import ROOT, run
from tests.e2e.deliveries import known_trace
from tests.e2e.pipeline import Pipeline, pipeline
from tests.e2e.waiting import until
from tests.e2e.workers import Worker
from tests.kafka_servers import Broker
from tests.redis_servers import RedisServer, redis_servers_available

MOST_BYTES: Final = 230_000_000
"""What the image may take on a disk; it is some 200 MB, of which 80 MB are Debian's."""

LOCK: Final[dict[str, Any]] = tomllib.loads((ROOT / "uv.lock").read_text())
PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())

EXPORTED: Final = ["--quiet", "--frozen", "--no-dev", "--extra", "web", "--extra", "tracing", "--no-emit-project"]
"""What of the lock goes into the image."""

_UV: Final = [str(ROOT / ".venv/bin/python"), "-m", "uv"]

pytestmark = pytest.mark.timeout(1200)  # the first build fetches Debian


def test_hadolint_has_nothing_to_say() -> None:
    assert run([ROOT / ".venv/bin/hadolint", "--failure-threshold", "style", ROOT / "Dockerfile"]) == ""


def test_what_the_dockerfile_repeats_is_what_the_project_says() -> None:
    text = (ROOT / "Dockerfile").read_text()
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)$", text, re.MULTILINE))
    makefile = dict(re.findall(r"^(\w+) := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert arguments["UV_VERSION"] == makefile["UV_VERSION"]
    assert arguments["VERSION"] == PROJECT["project"]["version"]
    exported = f"uv export {' '.join(EXPORTED)} "
    assert exported in text
    assert exported in (ROOT / "Makefile").read_text(), "the SBOM would tell of something else"
    assert set(PROJECT["dependency-groups"]["build"]) == set(PROJECT["build-system"]["requires"])


@pytest.mark.parametrize("processor", ["x86_64", "aarch64"])
def test_both_processors_can_be_built_for(processor: str) -> None:
    """The image takes wheels only (`--no-build`), for Debian's Python 3.13 and glibc."""
    export = [*_UV, "export", *EXPORTED, "--no-hashes", "--no-annotate"]
    lines = [line for line in run(export, cwd=ROOT).splitlines() if not re.search("#|win32|== 'emscripten'", line)]
    needed = {line.partition("==")[0] for line in lines}
    assert len(needed) > 30
    fits = re.compile(
        rf".*-(py3|py2\.py3|cp313)-(none|cp313|abi3)-(any|manylinux\S*_{processor})\.whl|.*-cp3\d+-abi3-manylinux\S*_{processor}\.whl"
    )
    wheels = {part["name"]: [wheel["url"] for wheel in part.get("wheels", [])] for part in LOCK["package"]}
    assert [name for name in sorted(needed) if not any(fits.fullmatch(url) for url in wheels[name])] == []
    text = (ROOT / "Dockerfile").read_text()
    assert not re.search("amd64|x86|arm64|aarch64", re.sub("^#.*$", "", text, flags=re.MULTILINE))


def test_it_says_how_it_is_to_be_run(image: Image) -> None:
    said = image.configuration
    assert (said["User"], said["StopSignal"]) == ("65532:65532", "SIGTERM")
    assert (said["Entrypoint"], said["Cmd"]) == (["session-aggregator"], ["run"])
    assert said["Healthcheck"]["Test"] == ["CMD", "session-aggregator", "healthcheck"]
    assert list(said["ExposedPorts"]) == ["9464/tcp"]
    labels = {name.rpartition(".")[2]: value for name, value in said["Labels"].items() if "opencontainers" in name}
    assert labels["title"] == PROJECT["project"]["name"]
    assert labels["version"] == PROJECT["project"]["version"]
    assert labels["licenses"] == PROJECT["project"]["license"]
    assert labels.keys() >= {"description", "revision"}


def test_it_is_small_and_holds_nothing_to_build_with(image: Image) -> None:
    print(f"the image takes {image.size_bytes / 1e6:.0f} MB")
    assert image.size_bytes < MOST_BYTES
    tools = re.compile(r"(.*-)?(gcc|g\+\+|cc|c\+\+|clang|ld|make|as|pip\d?|uv|git|curl|wget)(-?[\d.]+)?")
    folders = ("usr/bin", "usr/local/bin", "usr/sbin", "opt/session-aggregator/bin")
    found = [path.name for folder in folders for path in (image.files / folder).iterdir()]
    assert len(found) > 100  # we look where things are
    assert [name for name in found if tools.fullmatch(name)] == []
    assert not list(image.files.glob("usr/lib/python3*/**/ensurepip/_bundled"))
    assert not list(image.files.glob("opt/session-aggregator/lib/*/site-packages/pip*"))


def test_its_packages_are_those_of_the_lock(image: Image) -> None:
    locked = {package["name"]: package["version"] for package in LOCK["package"]}
    (packages,) = image.files.glob("opt/session-aggregator/lib/python3*/site-packages")
    installed = {}
    for path in packages.glob("*.dist-info"):
        name, _, version = path.name.removesuffix(".dist-info").partition("-")
        installed[name.lower().replace("_", "-")] = version
    assert {"aiokafka", "redis", "session-aggregator", "starlette"} <= installed.keys()
    assert {name: locked[name] for name in installed} == installed
    assert "pytest" not in installed
    assert any(packages.glob("aggregator/__pycache__/app.*.pyc")), "nothing can be compiled on a read-only disk"


def test_it_runs_compiled_without_any_right(image: Image) -> None:
    said = said_in(image.files, image.environment, ["session-aggregator", "--version"])
    assert said == f"session-aggregator {PROJECT['project']['version']} (compiled core)\n"
    identity = said_in(image.files, image.environment, ["sh", "-c", "id; grep -E 'Cap|NoNew' /proc/self/status"])
    assert identity.splitlines()[0] == "uid=65532 gid=65532 groups=65532"
    rights = dict(re.findall(r"^(\w+):\t(\w+)$", identity, re.MULTILINE))
    assert rights.pop("NoNewPrivs") == "1"
    assert set(rights.values()) == {"0" * 16}
    for place in ("/", "/tmp", "/opt/session-aggregator", "/var/tmp"):  # noqa: S108 - nothing is written
        with pytest.raises(AssertionError, match="Read-only file system"):
            said_in(image.files, image.environment, ["touch", f"{place}/it"])


class ImageWorker(Worker):
    """The worker of the image, or what another command starts, run as a container would run it."""

    def __init__(self, image: Image, environment: dict[str, str], log_path: Path, *command: str) -> None:
        self.environment = image.environment | environment
        arguments = [*image.configuration["Entrypoint"], *(command or image.configuration["Cmd"])]
        self.child = ChildProcess(
            log_path.stem, command_in(image.files, self.environment, *arguments), log_path=log_path
        )


@pytest.fixture
async def deployment(kafka_broker: Broker, redis_server: RedisServer, tmp_path: Path) -> Any:
    async with pipeline(kafka_broker, redis_server, tmp_path) as made:
        yield made


@pytest.mark.parametrize("redis_server", sorted(redis_servers_available())[:1], indirect=True)
async def test_its_worker_turns_spans_into_a_summary(image: Image, deployment: Pipeline) -> None:
    port = str(free_port())
    own = {"AGGREGATOR_HTTP__HOST": LOCALHOST, "AGGREGATOR_HTTP__PORT": port, "AGGREGATOR_LOG__FORMAT": "json"}
    worker = ImageWorker(image, deployment.environment() | own, deployment.log_dir / "image.log")
    deployment.commands.append(worker)
    await worker.listening()
    await until("the worker is ready", worker.is_ready)
    health = image.configuration["Healthcheck"]["Test"][1:]
    assert said_in(image.files, worker.environment, health) == "ok\n"
    spans = known_trace(1, round(time.time() * 1000), session="a", spans=3)
    await deployment.send_bytes(to_protobuf(spans))
    await deployment.wait_closed()
    (summary,) = await deployment.read(deployment.summary_topic)
    assert json.loads(summary.value)["span_count"] == 3
    assert (await worker.metrics()).series("build_info")[0]["core"] == "compiled"
    await assert_its_web_view_shows(image, deployment, "a")
    await worker.terminate_within()
    with pytest.raises(AssertionError, match="does not answer"):
        said_in(image.files, worker.environment, health)


async def assert_its_web_view_shows(image: Image, deployment: Pipeline, session: str) -> None:
    """To whoever has a token, by a Redis user that may only read."""
    deployment.redis.acl_setuser(
        "viewer", enabled=True, nopass=True, keys=["agg:*"], commands=["+@read", "+ping", "+select", "+command"]
    )
    port, token = free_port(), "a-token-of-the-test"
    url = deployment.place.url.replace("redis://", "redis://viewer:x@")
    settings = {"REDIS__URL": url, "WEB__HOST": LOCALHOST, "WEB__PORT": str(port), "WEB__TOKENS": token}
    variables = {f"AGGREGATOR_{name}": value for name, value in settings.items()}
    deployment.commands.append(ImageWorker(image, variables, deployment.log_dir / "image-web.log", "web"))
    address = f"http://{LOCALHOST}:{port}"
    async with aiohttp.ClientSession() as client:

        async def answers() -> bool:
            try:
                async with client.get(f"{address}/healthz") as answer:
                    return answer.status == 200
            except aiohttp.ClientError:
                return False

        await until("the web view answers", answers)
        asked = f"{address}/api/v1/sessions"
        async with client.get(asked) as answer:
            assert answer.status == 401
        async with client.get(asked, headers={"Authorization": f"Bearer {token}"}) as answer:
            assert [entry["session_id"] for entry in (await answer.json())["sessions"]] == [session]


def test_the_sbom_is_what_the_lock_says(tmp_path: Path) -> None:
    made = tmp_path / "sbom.json"
    run(["make", "--silent", "sbom", f"SBOM={made}"], cwd=ROOT)
    said = json.loads(made.read_text())
    assert said["bomFormat"] == "CycloneDX"
    assert said["metadata"]["component"]["name"] == "session-aggregator"
    locked = {package["name"]: package["version"] for package in LOCK["package"]}
    components = {part["name"]: part for part in said["components"]}
    assert {"aiokafka", "redis", "starlette", "uvloop"} <= components.keys()
    assert "pytest" not in components
    for name, part in components.items():
        assert part["version"] == locked[name]
        assert part["purl"] == f"pkg:pypi/{name}@{locked[name]}"
        assert part["externalReferences"][0]["hashes"][0]["alg"] == "SHA-256"
