"""The chart on a real API server: installed, upgraded, rolled back and removed where pods must be `restricted`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.deploy.cluster import Cluster, cluster
from tests.deploy.programs import ROOT, crds, program, run
from tests.deploy.test_chart import CHART

NAMESPACE: Final = "sessions"
RELEASE: Final = "sessions"
NAME: Final = "sessions-session-aggregator"
ALL: Final[Mapping[str, Any]] = {
    "autoscaling": {"kind": "keda"},
    "monitoring": {"scrape": "serviceMonitor", "rules": True, "dashboards": True},
    "strimzi": {"enabled": True, "cluster": "kafka"},
    "web": {"enabled": True},
    "secretSettings": {"web": {"tokens": {"secret": "web", "key": "tokens"}}},
    "settings": {"redis": {"url": "rediss://redis:6379/0"}},
    "tls": {"redis": {"secret": "redis-tls"}},
    "secretFiles": {"kafka": "kafka-user"},
}
MADE: Final = (
    f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{NAME}",
    f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{NAME}-web",
    f"/api/v1/namespaces/{NAMESPACE}/services/{NAME}-web",
    f"/api/v1/namespaces/{NAMESPACE}/configmaps/{NAME}-web",
    f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies/{NAME}-web",
    f"/api/v1/namespaces/{NAMESPACE}/services/{NAME}",
    f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{NAME}",
    f"/api/v1/namespaces/{NAMESPACE}/configmaps/{NAME}",
    f"/api/v1/namespaces/{NAMESPACE}/configmaps/{NAME}-dashboards",
    f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets/{NAME}",
    f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies/{NAME}",
    f"/apis/keda.sh/v1alpha1/namespaces/{NAMESPACE}/scaledobjects/{NAME}",
    f"/apis/monitoring.coreos.com/v1/namespaces/{NAMESPACE}/servicemonitors/{NAME}",
    f"/apis/monitoring.coreos.com/v1/namespaces/{NAMESPACE}/prometheusrules/{NAME}",
    f"/apis/kafka.strimzi.io/v1/namespaces/{NAMESPACE}/kafkatopics/otlp-spans",
    f"/apis/kafka.strimzi.io/v1/namespaces/{NAMESPACE}/kafkatopics/session-summaries",
    f"/apis/kafka.strimzi.io/v1/namespaces/{NAMESPACE}/kafkatopics/otlp-spans-dead-letter",
)

pytestmark = pytest.mark.timeout(1800)  # the server is built by the first run


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as made:
        for crd in crds():
            assert made.ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd).status == 201
        for crd in crds():
            _wait_established(made, crd["metadata"]["name"])
        for namespace in (NAMESPACE, "plain"):
            _make_namespace(made, namespace)
        yield made


def _wait_established(server: Cluster, name: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = server.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")
        conditions = {entry["type"]: entry["status"] for entry in found.get("status", {}).get("conditions", [])}
        if conditions.get("Established") == "True":
            return
        time.sleep(0.1)
    raise AssertionError(f"{name} is not established: {conditions}")


def _make_namespace(server: Cluster, name: str) -> None:
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    assert server.ask("POST", "/api/v1/namespaces", body).status == 201


def pod_of(deployment: Mapping[str, Any]) -> dict[str, Any]:
    """The pod that the Deployment's controller would make."""
    template = deployment["spec"]["template"]
    metadata = {"name": f"{deployment['metadata']['name']}-of-nobody", "labels": template["metadata"]["labels"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def settings(server: Cluster) -> dict[str, str]:
    data: dict[str, str] = server.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/{NAME}")["data"]
    return data


def values(folder: Path, content: Mapping[str, Any]) -> list[str | Path]:
    path = folder / "values.yaml"
    path.write_text(yaml.safe_dump(dict(content)))
    return ["--namespace", NAMESPACE, "--values", path]


def test_the_namespace_refuses_a_pod_with_rights(server: Cluster) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "free"},
        "spec": {"automountServiceAccountToken": False, "containers": [{"name": "c", "image": "i"}]},
    }
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    server.ask("POST", f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", account)
    refused = server.ask("POST", f"/api/v1/namespaces/{NAMESPACE}/pods", body)
    assert refused.status == 403
    assert "violates PodSecurity" in refused.body["message"]


def test_from_install_to_uninstall(server: Cluster, tmp_path: Path) -> None:
    said = server.helm("install", RELEASE, CHART, *values(tmp_path, ALL))
    assert "Warning" not in said
    assert f"helm test {RELEASE}" in said
    for path in MADE:
        server.get(path)

    # Nodes are missing, so nobody makes the pods: one is made here, and pod security judges it.
    for deployment in MADE[:2]:
        pod = pod_of(server.get(deployment))
        accepted = server.ask("POST", f"/api/v1/namespaces/{NAMESPACE}/pods", pod)
        assert accepted.status == 201, accepted.body["message"]
        assert accepted.warnings == []
        mounts = [mount["mountPath"] for mount in accepted.body["spec"]["containers"][0].get("volumeMounts", [])]
        assert "/etc/session-aggregator/secrets/kafka" in mounts
        assert not [path for path in mounts if "serviceaccount" in path], "a token was put into the pod"

    before = server.get(MADE[0])["spec"]["template"]["metadata"]["annotations"]["checksum/settings"]
    changed = {**ALL, "settings": {**ALL["settings"], "session": {"idle_timeout_s": 900}}}
    assert "Warning" not in server.helm("upgrade", RELEASE, CHART, *values(tmp_path, changed))
    assert settings(server)["AGGREGATOR_SESSION__IDLE_TIMEOUT_S"] == "900"
    assert server.get(MADE[0])["spec"]["template"]["metadata"]["annotations"]["checksum/settings"] != before

    wrong = {**ALL, "settings": {**ALL["settings"], "session": {"idle_timeout_s": "soon"}}}
    with pytest.raises(AssertionError, match="at '/settings/session/idle_timeout_s': got string, want number"):
        server.helm("upgrade", RELEASE, CHART, *values(tmp_path, wrong))
    assert settings(server)["AGGREGATOR_SESSION__IDLE_TIMEOUT_S"] == "900"

    server.helm("rollback", RELEASE, "1", "--namespace", NAMESPACE)
    assert "AGGREGATOR_SESSION__IDLE_TIMEOUT_S" not in settings(server)
    assert server.get(MADE[0])["spec"]["template"]["metadata"]["annotations"]["checksum/settings"] == before

    _helm_test(server)

    server.helm("uninstall", RELEASE, "--namespace", NAMESPACE)
    for path in MADE:
        found = server.ask("GET", path)
        gone = found.status == 404 or found.body["metadata"].get("deletionTimestamp")
        assert gone, f"{path} is left"


def _helm_test(server: Cluster) -> None:
    """Let `helm test` make its pod, and say of it what a node would say of a `check` that ended well."""
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{NAME}-check"
    seen: list[dict[str, Any]] = []

    def node() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = server.ask("GET", path)
            if found.status == 200:
                seen.append(found.body)
                ended = {"status": {"phase": "Succeeded"}}
                server.ask("PATCH", f"{path}/status", ended, kind="application/merge-patch+json")
                return
            time.sleep(0.1)

    watcher = threading.Thread(target=node)
    watcher.start()
    try:
        said = server.helm("test", RELEASE, "--namespace", NAMESPACE, "--timeout", "60s")
    finally:
        watcher.join()
    assert "Phase:          Succeeded" in said
    assert seen[0]["spec"]["containers"][0]["args"] == ["check"]


def test_the_plain_manifests_are_taken_in(server: Cluster) -> None:
    base = list(yaml.safe_load_all(run([program("kustomize"), "build", ROOT / "deploy/kustomize/base"])))
    for part in base:
        answer = server.apply(part, "plain")
        assert answer.status in (200, 201), answer.body.get("message")
        assert answer.warnings == []
    deployment = server.get("/apis/apps/v1/namespaces/plain/deployments/session-aggregator")
    accepted = server.ask("POST", "/api/v1/namespaces/plain/pods", pod_of(deployment))
    assert accepted.status == 201, accepted.body["message"]
    wrong = {**base[0], "unknown": 1}
    assert "field not declared in schema" in server.apply(wrong, "plain").body["message"], "it takes anything"
