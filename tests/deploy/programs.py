"""What the checks of `deploy/` run: programs built from pinned Go modules, and the schemas that manifests must fit.

Everything is made once per pinned version and kept in the checkout's `.cache/deploy`; `python -m tests.deploy.programs`
makes all of it, which takes ten minutes on two cores the first time, most of it for the Kubernetes API server.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[2]
CACHE: Final = ROOT / ".cache" / "deploy"
_GO: Final = Path(__file__).parent / "go"
_STRIMZI: Final = Path(__file__).parent / "strimzi" / "pom.xml"
_KAFKA_TOOLS: Final = Path(__file__).parent / "kafka_tools" / "pom.xml"
_JMX: Final = Path(__file__).parent / "jmx" / "pom.xml"

KUBERNETES: Final = ("1.33.13", "1.35.4", "1.37.2")
"""The versions of Kubernetes whose schemas manifests must fit."""

_CRDS: Final = {
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": (
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ),
    "github.com/kedacore/keda/v2@v2.20.2": (
        "config/crd/bases/keda.sh_scaledobjects.yaml",
        "config/crd/bases/keda.sh_triggerauthentications.yaml",
    ),
}
_COMPOSE: Final = "github.com/compose-spec/compose-go/v2@v2.9.0"
_PROGRAMS: Final = {
    "helm": ("tools", "helm.sh/helm/v3/cmd/helm"),
    "kubeconform": ("tools", "github.com/yannh/kubeconform/cmd/kubeconform"),
    "kustomize": ("tools", "sigs.k8s.io/kustomize/kustomize/v5"),
    "etcd": ("etcd", "go.etcd.io/etcd/server/v3"),
    "kube-apiserver": ("apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
}


def run(command: Sequence[str | Path], *, seconds: float = 600, **options: Any) -> str:
    """The standard output of a program that must succeed; else an error with all that it said."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False, **options)
    out: str = done.stdout
    if done.returncode:
        raise AssertionError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{out}{done.stderr}".strip())
    return out


def program(name: str) -> Path:
    """The path of a program, built if this checkout has not built it in this version."""
    module, package = _PROGRAMS[name]
    folder = _GO / module
    pinned = hashlib.sha256((folder / "go.mod").read_bytes() + (folder / "go.sum").read_bytes()).hexdigest()[:16]
    built = CACHE / "bin" / f"{module}-{pinned}" / name
    if not built.exists():
        _say(f"building {name}")
        fresh = built.with_name(f"{name}.{os.getpid()}")  # a run that is cut short leaves nothing half made
        build: list[str | Path] = ["go", "build", "-trimpath", f"-ldflags=-s -w {_stamp(folder)}", "-o", fresh, package]
        run(_gently(build), seconds=3600, cwd=folder, env=_go_environment())
        fresh.rename(built)
    return built


def _stamp(folder: Path) -> str:
    """What tells a Kubernetes program its version, which its own build scripts would do."""
    found = re.search(r"require k8s.io/kubernetes v(\d+)\.(\d+)\.(\d+)$", (folder / "go.mod").read_text(), re.MULTILINE)
    if not found:
        return ""
    values = {"gitVersion": "v" + ".".join(found.groups()), "gitMajor": found[1], "gitMinor": found[2]}
    return " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in values.items())


def module(name_and_version: str) -> Path:
    """The folder of a Go module's files."""
    answer = run(["go", "mod", "download", "-json", name_and_version], env=_go_environment())
    return Path(json.loads(answer)["Dir"])


@cache
def crds() -> list[dict[str, Any]]:
    """The custom resource definitions of Prometheus Operator, KEDA and Strimzi."""
    files = [module(name) / path for name, paths in _CRDS.items() for path in paths]
    files.append(_strimzi_crd())
    return [yaml.safe_load(path.read_text()) for path in files]


def _strimzi_crd() -> Path:
    """Strimzi publishes its CRDs in no package, but the program that makes them."""
    jars = _jars(_STRIMZI)
    made = jars / "kafkatopics.yaml"
    if not made.exists():
        fresh = made.with_name(f"kafkatopics.{os.getpid()}")
        kind = f"io.strimzi.api.kafka.model.topic.KafkaTopic={fresh}"
        run(["java", "-cp", f"{jars}/*", "io.strimzi.crdgenerator.CrdGenerator", "--yaml", kind])
        fresh.rename(made)
    return made


def jmx_exporter() -> Path:
    """The Java agent that shows a broker's metrics to Prometheus."""
    (found,) = _jars(_JMX).glob("jmx_prometheus_javaagent-*.jar")
    return found


def kafka_tools() -> Path:
    """The folder with the jars of Kafka's command-line tools."""
    return _jars(_KAFKA_TOOLS)


def _jars(pom: Path) -> Path:
    """A folder with the jars of a pom, fetched once."""
    pinned = hashlib.sha256(pom.read_bytes()).hexdigest()[:16]
    folder = CACHE / f"{pom.parent.name}-{pinned}"
    if not folder.is_dir():
        fresh = folder.with_name(f"{folder.name}.{os.getpid()}")
        run(_gently(["mvn", "-q", "-B", "-f", pom, "dependency:copy-dependencies", f"-DoutputDirectory={fresh}"]))
        fresh.rename(folder)
    return folder


def compose_schema() -> Mapping[str, Any]:
    """The JSON Schema of the Compose specification."""
    schema: dict[str, Any] = json.loads((module(_COMPOSE) / "schema" / "compose-spec.json").read_text())
    return schema


def kubernetes_schemas(version: str) -> Path:
    """A folder of JSON schemas, strict, one a kind, of that version of Kubernetes and of all CRDs."""
    from tests.deploy.kubernetes_schemas import write  # it takes what is here

    source = hashlib.sha256(Path(__file__).with_name("kubernetes_schemas.py").read_bytes() + repr(_CRDS).encode())
    source.update(_STRIMZI.read_bytes())
    folder = CACHE / "schemas" / f"{version}-{source.hexdigest()[:16]}"
    if not folder.is_dir():
        fresh = folder.with_name(f"{folder.name}.{os.getpid()}")
        swagger = module(f"k8s.io/kubernetes@v{version}") / "api" / "openapi-spec" / "swagger.json"
        write(json.loads(swagger.read_text()), crds(), fresh)
        fresh.rename(folder)
    return folder


def _gently(command: Sequence[str | Path]) -> list[str | Path]:
    return ["nice", "-n", "15", *command] if shutil.which("nice") else list(command)


def _go_environment() -> dict[str, str]:
    """The caller's, less what is only for the project that the caller works on."""
    return {name: value for name, value in os.environ.items() if name not in ("GOFLAGS", "GOWORK")}


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def main() -> None:
    """Make all of it; or, given the name of a program, that one, and print where it is."""
    if len(sys.argv) > 1:
        sys.stdout.write(f"{program(sys.argv[1])}\n")
        return
    for name in _PROGRAMS:
        program(name)
    for version in KUBERNETES:
        _say(f"schemas of Kubernetes {version}: {kubernetes_schemas(version)}")
    compose_schema()
    jmx_exporter()
    kafka_tools()


if __name__ == "__main__":
    main()
