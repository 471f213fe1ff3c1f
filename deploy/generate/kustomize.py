"""The plain manifests of `deploy/kustomize`, rendered from the chart, so that there is one source of both.

`base` is what every cluster can take; each component adds what needs an operator of its own.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

NAME: Final = "session-aggregator"
_KUBERNETES: Final = "1.33.0"  # nothing in the chart depends on it, but Helm has to be told one

COMPONENTS: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "service-monitor": (("monitoring.scrape=serviceMonitor",), ("ServiceMonitor",)),
    "pod-monitor": (("monitoring.scrape=podMonitor",), ("PodMonitor",)),
    "rules": (("monitoring.rules=true",), ("PrometheusRule",)),
    "keda": (("autoscaling.kind=keda",), ("ScaledObject",)),
    "hpa": (("autoscaling.kind=hpa",), ("HorizontalPodAutoscaler",)),
    "strimzi-topics": (("strimzi.enabled=true", "strimzi.cluster=kafka"), ("KafkaTopic",)),
    "web": (
        (
            "web.enabled=true",
            "secretSettings.web.tokens.secret=session-aggregator-web",
            "secretSettings.web.tokens.key=tokens",
        ),
        ("ConfigMap", "Deployment", "Service", "NetworkPolicy"),
    ),
}
"""Name -> the chart's values that bring it, and the kinds that it is."""

_HEAD: Final = "# Rendered from deploy/helm/session-aggregator by `make deploy-files`; edit that.\n"
# Whoever scales, by an autoscaler or by hand, must not be set back by the next apply.
_NO_REPLICAS: Final = "- op: remove\n  path: /spec/replicas\n"


def files(helm: Path, chart: Path) -> dict[str, str]:
    """Path below `deploy/kustomize` -> text."""
    base = _render(helm, chart)
    known = {_identity(part) for part in base}
    made = {"base/manifests.yaml": _text(base), "base/kustomization.yaml": _kustomization("Kustomization")}
    for name, (values, kinds) in COMPONENTS.items():
        found = [part for part in _render(helm, chart, *values) if _identity(part) not in known]
        made[f"components/{name}/manifests.yaml"] = _text(found)
        scales = kinds[0] in ("ScaledObject", "HorizontalPodAutoscaler")
        made[f"components/{name}/kustomization.yaml"] = _kustomization("Component", scales=scales)
    return made


def _render(helm: Path, chart: Path, *values: str) -> list[dict[str, Any]]:
    options = [part for value in values for part in ("--set", value)]
    command: list[str | Path] = [helm, "template", NAME, chart, "--namespace", NAME, "--no-hooks"]
    command += ["--kube-version", _KUBERNETES, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - our own chart
    return [_plain(part) for part in yaml.safe_load_all(done.stdout) if part]


def _plain(part: dict[str, Any]) -> dict[str, Any]:
    """Without what only Helm needs, and in whatever namespace it is applied to."""
    part["metadata"].pop("namespace", None)
    for labels in (part["metadata"]["labels"], _pod_labels(part)):
        labels.pop("helm.sh/chart", None)
        labels.pop("app.kubernetes.io/managed-by", None)
    return part


def _identity(part: Mapping[str, Any]) -> tuple[str, str]:
    return part["kind"], part["metadata"]["name"]


def _pod_labels(part: dict[str, Any]) -> dict[str, str]:
    if part["kind"] != "Deployment":
        return {}
    labels: dict[str, str] = part["spec"]["template"]["metadata"]["labels"]
    return labels


def _text(parts: list[dict[str, Any]]) -> str:
    return _HEAD + yaml.safe_dump_all(parts, sort_keys=False, width=120)


def _kustomization(kind: str, *, scales: bool = False) -> str:
    version = "v1alpha1" if kind == "Component" else "v1beta1"
    content: dict[str, Any] = {
        "apiVersion": f"kustomize.config.k8s.io/{version}",
        "kind": kind,
        "resources": ["manifests.yaml"],
    }
    if scales:
        content["patches"] = [{"target": {"kind": "Deployment", "name": NAME}, "patch": _NO_REPLICAS}]
    return _HEAD + yaml.safe_dump(content, sort_keys=False)
