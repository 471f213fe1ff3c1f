"""The chart and the manifests made from it: valid for every supported Kubernetes, and clear about wrong values."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from aggregator.settings import load_settings
from aggregator.web.access import Access
from deploy.generate import everything
from deploy.generate.kustomize import COMPONENTS
from tests.deploy.kubernetes_schemas import LOCATION
from tests.deploy.programs import KUBERNETES, ROOT, kubernetes_schemas, program, run

CHART: Final = ROOT / "deploy/helm/session-aggregator"
KUSTOMIZE: Final = ROOT / "deploy/kustomize"

SECURE: Final[Mapping[str, Any]] = {
    "settings": {
        "kafka": {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", "sasl_username": "sessions"},
        "session": {"idle_timeout_s": 900, "retention_s": 3_000_000, "id_attributes": ["chat.id", "run.id"]},
    },
    "secretSettings": {
        "kafka": {"sasl_password": {"secret": "kafka-user", "key": "password"}},
        "redis": {"url": {"secret": "redis", "key": "url"}},
    },
    "tls": {
        "kafka": {"secret": "kafka-tls", "cert": "tls.crt", "key": "tls.key"},
        "redis": {"secret": "redis-tls"},
    },
}

WEB: Final[Mapping[str, Any]] = {
    **SECURE,
    "web": {
        "enabled": True,
        "settings": {"redis": {"timeout_s": 2}},
        "secretSettings": {"redis": {"url": {"secret": "redis-viewer", "key": "url"}}},
        "from": [{"podSelector": {"matchLabels": {"app": "ingress"}}}],
    },
    "secretSettings": {**SECURE["secretSettings"], "web": {"tokens": {"secret": "web", "key": "tokens"}}},
    "secretFiles": {"kafka": "kafka-user", "prices": "own-prices"},
}

VARIANTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "default": {},
    "secure": SECURE,
    "keda": {"autoscaling": {"kind": "keda", "authenticationRef": "kafka"}, **SECURE},
    "hpa": {"autoscaling": {"kind": "hpa"}},
    "service-monitor": {
        "monitoring": {
            "scrape": "serviceMonitor",
            "rules": True,
            "dashboards": True,
            "labels": {"release": "prometheus"},
        }
    },
    "pod-monitor": {"monitoring": {"scrape": "podMonitor"}},
    "strimzi-v1": {"strimzi": {"enabled": True, "cluster": "kafka", "namespace": "kafka"}},
    "strimzi-v1beta2": {
        "strimzi": {"enabled": True, "cluster": "kafka", "apiVersion": "kafka.strimzi.io/v1beta2"},
        "settings": {"kafka": {"topics": ["a", "b"]}},
    },
    "everything-else": {
        "image": {"digest": f"sha256:{'0' * 64}"},
        "imagePullSecrets": [{"name": "registry"}],
        "fullnameOverride": "sessions",
        "networkPolicy": {
            "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
            "kafka": {"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "ports": [9092, 9093]},
            "extraEgress": [{"ports": [{"port": 4317, "protocol": "TCP"}]}],
        },
        "podAnnotations": {"a": "b"},
        "podLabels": {"team": "ai"},
        "nodeSelector": {"kubernetes.io/arch": "arm64"},
        "tolerations": [{"key": "k", "operator": "Exists"}],
        "priorityClassName": "high",
        "extraEnv": [{"name": "TZ", "value": "UTC"}],
        "extraVolumes": [{"name": "own", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "own", "mountPath": "/own"}],
    },
    "web": WEB,
    "web-behind-a-proxy": {
        "web": {"enabled": True, "replicas": 2, "from": [{"podSelector": {}}]},
        "settings": {"web": {"user_header": "X-Forwarded-User", "port": 8080}},
    },
    "nothing-but-the-worker": {
        "networkPolicy": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
        "serviceAccount": {"create": False},
    },
}

pytestmark = pytest.mark.timeout(1200)  # programs and schemas are made by the first test that needs them


def template(
    values: Mapping[str, Any], folder: Path, *options: str, version: str = KUBERNETES[0]
) -> list[dict[str, Any]]:
    """What the chart renders to with these values over its own."""
    path = folder / "values.yaml"
    path.write_text(yaml.safe_dump(dict(values)))
    command: list[str | Path] = [program("helm"), "template", "session-aggregator", CHART, "--namespace", "sessions"]
    text = run([*command, "--kube-version", version, "--values", path, *options])
    return [part for part in yaml.safe_load_all(text) if part]


def of_kind(kind: str, parts: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    (found,) = (part for part in parts if part["kind"] == kind)
    return found


def named(kind: str, name: str, parts: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return of_kind(kind, [part for part in parts if part["metadata"]["name"] == name])


def workload(parts: Sequence[Mapping[str, Any]], ending: str = "") -> tuple[dict[str, str], Mapping[str, Any]]:
    """The variables of the worker's containers, or of those whose names end so, secrets made up; and the pod's spec."""
    (pod,) = (
        part["spec"]["template"]["spec"]
        for part in parts
        if part["kind"] == "Deployment" and part["metadata"]["name"].endswith("-web") == bool(ending)
    )
    (container,) = pod["containers"]
    (source,) = container["envFrom"]
    variables = dict(named("ConfigMap", source["configMapRef"]["name"], parts)["data"])
    for entry in container.get("env", []):
        if "valueFrom" in entry:
            assert entry["name"] not in variables
            variables[entry["name"]] = "redis://:x@r/0" if entry["name"].endswith("URL") else "x" * 16
    return variables, pod


def assert_valid(parts: Sequence[Mapping[str, Any]], version: str) -> None:
    """kubeconform finds a schema for each, strict ones, and nothing against any."""
    location = f"{kubernetes_schemas(version)}/{LOCATION}"
    command: list[str | Path] = [
        program("kubeconform"),
        "-strict",
        "-summary",
        "-output",
        "json",
        "-schema-location",
        location,
        "-",
    ]
    said = run(command, input=yaml.safe_dump_all(list(parts)))
    assert json.loads(said)["summary"] == {"valid": len(parts), "invalid": 0, "errors": 0, "skipped": 0}


# --- valid ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_valid(variant: str, version: str, tmp_path: Path) -> None:
    parts = template(VARIANTS[variant], tmp_path, version=version)
    assert len(parts) >= 4
    assert_valid(parts, version)


def test_what_is_no_field_is_found(tmp_path: Path) -> None:
    parts = template(VARIANTS["keda"], tmp_path)
    of_kind("ScaledObject", parts)["spec"]["maxReplicas"] = 3
    of_kind("Deployment", parts)["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerport"] = 1
    with pytest.raises(AssertionError) as caught:
        assert_valid(parts, KUBERNETES[0])
    assert "maxReplicas" in str(caught.value)
    assert "containerport" in str(caught.value)


@pytest.mark.parametrize("variant", VARIANTS)
def test_helm_has_nothing_to_say(variant: str, tmp_path: Path) -> None:
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(dict(VARIANTS[variant])))
    run([program("helm"), "lint", "--strict", "--kube-version", KUBERNETES[0], "--values", path, CHART])


# --- what it makes ----------------------------------------------------------------------------------------------------


def as_in_the_pod(variables: Mapping[str, str], container: Mapping[str, Any], tmp_path: Path) -> dict[str, str]:
    """The variables with files that are there, and with a URL for TLS where it comes from a secret."""
    found = dict(variables)
    folders = [mount["mountPath"] for mount in container.get("volumeMounts", ())]
    for name, value in variables.items():
        if "__SSL_" in name:
            assert str(Path(value).parent) in folders
            found[name] = str(tmp_path / "values.yaml")
    secrets = {entry["name"] for entry in container.get("env", ())}
    return found | ({"AGGREGATOR_REDIS__URL": "rediss://redis:6379/0"} if "AGGREGATOR_REDIS__URL" in secrets else {})


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_worker_understands_every_variable(variant: str, tmp_path: Path) -> None:
    variables, pod = workload(template(VARIANTS[variant], tmp_path))
    (container,) = pod["containers"]
    settings = load_settings(as_in_the_pod(variables, container, tmp_path))
    assert settings.http.port == container["ports"][0]["containerPort"]
    assert pod["terminationGracePeriodSeconds"] >= settings.shutdown.grace_s + 5
    assert settings.web.tokens is None
    if variant == "secure":
        assert settings.session.retention_s == 3_000_000
        assert settings.session.id_attributes == ("chat.id", "run.id")


def test_a_pattern_takes_the_place_of_the_topics(tmp_path: Path) -> None:
    variables, pod = workload(template({"settings": {"kafka": {"topic_pattern": "spans-.*"}}}, tmp_path))
    settings = load_settings(as_in_the_pod(variables, pod["containers"][0], tmp_path))
    assert settings.kafka.topic_pattern == "spans-.*"


@pytest.mark.parametrize("variant", ["web", "web-behind-a-proxy"])
def test_the_web_view_has_its_settings_and_nothing_of_kafka(variant: str, tmp_path: Path) -> None:
    parts = template(VARIANTS[variant], tmp_path)
    variables, pod = workload(parts, "-web")
    assert not [name for name in variables if "KAFKA" in name]
    (container,) = pod["containers"]
    settings = load_settings(as_in_the_pod(variables, container, tmp_path))
    Access(settings.web)  # raises where strangers could look
    name = "session-aggregator-web"
    ports = {entry["port"] for entry in named("Service", name, parts)["spec"]["ports"]}
    assert ports == {settings.web.port} == {entry["containerPort"] for entry in container["ports"]}
    labels = named("Deployment", name, parts)["spec"]["template"]["metadata"]["labels"].items()
    assert named("Service", name, parts)["spec"]["selector"].items() <= labels
    assert not named("Service", "session-aggregator", parts)["spec"]["selector"].items() <= labels
    policy = named("NetworkPolicy", name, parts)["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels
    assert policy["ingress"][0]["from"] == VARIANTS[variant]["web"]["from"]
    assert {entry["port"] for rule in policy["egress"] for entry in rule["ports"]} == {53, 6379}
    (components,) = named("NetworkPolicy", "session-aggregator", parts)["spec"]["podSelector"]["matchExpressions"]
    assert components["values"] == ["worker", "check"]  # or it could reach Kafka as well


def test_the_web_view_has_a_redis_user_of_its_own(tmp_path: Path) -> None:
    parts = template(WEB, tmp_path)

    def secret(name: str) -> str:
        (container,) = named("Deployment", name, parts)["spec"]["template"]["spec"]["containers"]
        found = {entry["name"]: entry["valueFrom"]["secretKeyRef"]["name"] for entry in container["env"]}
        return str(found["AGGREGATOR_REDIS__URL"])

    assert (secret("session-aggregator"), secret("session-aggregator-web")) == ("redis", "redis-viewer")
    plain = {"settings": {"redis": {"url": "redis://replica:6379/0"}}, "secretSettings": {}}
    variables, _ = workload(template({**WEB, "web": {**WEB["web"], **plain}}, tmp_path), "-web")
    assert variables["AGGREGATOR_REDIS__URL"] == "redis://replica:6379/0"
    assert workload(parts)[0].get("AGGREGATOR_REDIS__TIMEOUT_S") is None
    assert workload(parts, "-web")[0]["AGGREGATOR_REDIS__TIMEOUT_S"] == "2"


def test_secrets_that_settings_name_as_files_are_mounted_as_folders(tmp_path: Path) -> None:
    for ending, tls in (("", {"kafka", "redis"}), ("-web", {"redis"})):
        _, pod = workload(template(WEB, tmp_path), ending)
        (container,) = pod["containers"]
        secrets = {volume["name"]: volume["secret"]["secretName"] for volume in pod["volumes"]}
        found = {mount["mountPath"]: secrets[mount["name"]] for mount in container["volumeMounts"]}
        assert not any("subPath" in mount for mount in container["volumeMounts"]), "it would never be renewed"
        assert found == {
            "/etc/session-aggregator/secrets/kafka": "kafka-user",
            "/etc/session-aggregator/secrets/prices": "own-prices",
            **{f"/etc/session-aggregator/tls/{name}": f"{name}-tls" for name in tls},
        }


def test_certificates_without_tls_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"tls.kafka.secret takes settings.kafka.security_protocol SSL"):
        template({"tls": {"kafka": {"secret": "kafka-tls"}}}, tmp_path)


def test_a_change_of_settings_replaces_the_pods(tmp_path: Path) -> None:
    def checksum(values: Mapping[str, Any]) -> str:
        deployment = of_kind("Deployment", template(values, tmp_path))
        found: str = deployment["spec"]["template"]["metadata"]["annotations"]["checksum/settings"]
        return found

    assert checksum({}) == checksum({"replicas": 3})
    assert checksum({}) != checksum({"settings": {"log": {"level": "debug"}}})


def test_an_autoscaler_alone_counts_the_workers(tmp_path: Path) -> None:
    assert "replicas" in of_kind("Deployment", template({}, tmp_path))["spec"]
    for kind in ("keda", "hpa"):
        parts = template({"autoscaling": {"kind": kind}}, tmp_path)
        assert "replicas" not in of_kind("Deployment", parts)["spec"]


def test_no_service_or_budget_counts_the_pod_of_helm_test(tmp_path: Path) -> None:
    parts = template({}, tmp_path)
    labels = of_kind("Pod", parts)["metadata"]["labels"].items()
    worker = of_kind("Deployment", parts)["spec"]["template"]["metadata"]["labels"].items()
    for selector in (
        of_kind("Service", parts)["spec"]["selector"],
        of_kind("PodDisruptionBudget", parts)["spec"]["selector"]["matchLabels"],
        of_kind("Deployment", parts)["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= worker
        assert not selector.items() <= labels
    assert of_kind("NetworkPolicy", parts)["spec"]["podSelector"]["matchLabels"].items() <= labels


# --- wrong values -----------------------------------------------------------------------------------------------------

WRONG: Final[Sequence[tuple[Mapping[str, Any], str]]] = [
    ({"replica": 3}, "additional properties 'replica' not allowed"),
    ({"replicas": "three"}, "at '/replicas': got string, want integer"),
    ({"replicas": 0}, "at '/replicas': minimum: got 0, want 1"),
    ({"settings": {"session": {"idle_timeout": 5}}}, "at '/settings/session': additional properties 'idle_timeout'"),
    ({"settings": {"session": {"idle_timeout_s": 0}}}, "at '/settings/session/idle_timeout_s'"),
    ({"settings": {"kafka": {"bootstrap_servers": ["kafka"]}}}, "at '/settings/kafka/bootstrap_servers/0': 'kafka'"),
    ({"settings": {"kafka": {"bootstrap_servers": []}}}, "at '/settings/kafka/bootstrap_servers': minItems"),
    ({"settings": {"kafka": {"security_protocol": "TLS"}}}, "'PLAINTEXT', 'SSL', 'SASL_PLAINTEXT', 'SASL_SSL'"),
    ({"settings": {"kafka": {"sasl_password": "x"}}}, "additional properties 'sasl_password' not allowed"),
    ({"settings": {"redis": {"url": "redis://:hunter2@r:6379/0"}}}, "settings.redis.url holds a password"),
    ({"settings": {"redis": {"url": "redis://r:6380/0"}}}, "settings.redis.url has port 6380, but networkPolicy"),
    ({"settings": {"kafka": {"bootstrap_servers": ["k:9094"]}}}, "does not let the worker reach port 9094"),
    ({"settings": {"http": {"port": 0}}}, "at '/settings/http/port': minimum: got 0, want 1"),
    ({"settings": {"kafka": {"group_instance_id": "a"}}}, "additional properties 'group_instance_id' not allowed"),
    ({"secretFiles": {"a/b": "x"}}, "at '/secretFiles': additional properties 'a/b' not allowed"),
    ({"web": {"enabled": True}}, "set secretSettings.web.tokens, or settings.web.user_header"),
    ({"web": {"enabled": True}, "settings": {"web": {"user_header": "X-User"}}}, "in web.from, the proxy alone"),
    ({"web": {"settings": {"kafka": {}}}}, "at '/web/settings': additional properties 'kafka' not allowed"),
    ({"web": {"settings": {"redis": {"url": "redis://:hunter2@r:6379/0"}}}}, "web.settings.redis.url holds a password"),
    ({"image": {"digest": "latest"}}, "at '/image/digest'"),
    ({"resources": {"requests": {"memory": "1 GB"}}}, "at '/resources/requests/memory'"),
    ({"replicas": 13}, "replicas is 13, but inputPartitions is 12"),
    ({"autoscaling": {"kind": "keda", "maxReplicas": 20}}, "autoscaling.maxReplicas is 20, but inputPartitions is 12"),
    ({"autoscaling": {"kind": "hpa", "minReplicas": 5, "maxReplicas": 4}}, "autoscaling.minReplicas is 5, greater"),
    ({"autoscaling": {"kind": "cron"}}, "at '/autoscaling/kind': value must be one of 'none', 'keda', 'hpa'"),
    ({"strimzi": {"enabled": True}}, "strimzi.cluster is missing"),
    (
        {"strimzi": {"enabled": True, "cluster": "kafka"}, "settings": {"kafka": {"topic_pattern": "spans-.*"}}},
        "settings.kafka.topic_pattern names none",
    ),
    ({"tls": {"redis": {"secret": "redis-tls"}}}, "tls.redis.secret takes a settings.redis.url that begins with"),
]


@pytest.mark.parametrize(("values", "sentence"), WRONG, ids=[sentence[:50] for _, sentence in WRONG])
def test_a_wrong_value_is_named(values: Mapping[str, Any], sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(dict(values)))
    command: list[str | Path] = [
        program("helm"),
        "template",
        "x",
        CHART,
        "--kube-version",
        KUBERNETES[0],
        "--values",
        path,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert sentence in done.stderr
    assert "hunter2" not in done.stderr


# --- what follows from it ---------------------------------------------------------------------------------------------


def test_every_made_file_is_as_it_would_be_made_now() -> None:
    for made in (everything.first(), everything.second(program("helm"))):
        for path, text in made.items():
            assert (everything.DEPLOY / path).read_text() == text, f"{path} is old: make deploy-files"


def test_no_made_file_is_left_over() -> None:
    made = {*everything.first(), *everything.second(program("helm"))}
    for folder in (f"{everything.CHART}/files", "kustomize"):
        there = {str(path.relative_to(everything.DEPLOY)) for path in (everything.DEPLOY / folder).rglob("*.*")}
        assert there <= made


def built(folder: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(run([program("kustomize"), "build", folder])))


def test_the_base_is_what_helm_would_install(tmp_path: Path) -> None:
    def known(parts: Sequence[Mapping[str, Any]]) -> set[tuple[str, str]]:
        return {(part["kind"], part["metadata"]["name"]) for part in parts}

    base = built(KUSTOMIZE / "base")
    assert known(base) == known(template({}, tmp_path, "--no-hooks"))
    assert "Helm" not in yaml.safe_dump_all(base)
    for version in KUBERNETES:
        assert_valid(base, version)


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_component_is_valid_over_the_base(component: str, tmp_path: Path) -> None:
    content = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "sessions",
        "resources": [os.path.relpath(KUSTOMIZE / "base", tmp_path)],
        "components": [os.path.relpath(KUSTOMIZE / "components" / component, tmp_path)],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(content))
    parts = built(tmp_path)
    kinds = COMPONENTS[component][1]
    assert {part["kind"] for part in parts} >= set(kinds)
    assert len(parts) > len(built(KUSTOMIZE / "base"))
    assert {part["metadata"]["namespace"] for part in parts} == {"sessions"}
    worker = named("Deployment", "session-aggregator", parts)
    assert ("replicas" in worker["spec"]) == (component not in ("keda", "hpa"))
    for version in KUBERNETES:
        assert_valid(parts, version)


def examples(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / "deploy/README.md").read_text(), re.MULTILINE | re.DOTALL)


def test_the_values_that_the_readme_shows_are_valid(tmp_path: Path) -> None:
    *shown, _ = examples("yaml")
    assert len(shown) == 3
    for values in shown:
        assert_valid(template(yaml.safe_load(values), tmp_path), KUBERNETES[0])


def test_the_kustomization_that_the_readme_shows_builds(tmp_path: Path) -> None:
    *_, text = examples("yaml")
    above = os.path.relpath(ROOT, tmp_path)
    (tmp_path / "kustomization.yaml").write_text(text.replace("deploy/kustomize", f"{above}/deploy/kustomize"))
    parts = built(tmp_path)
    assert_valid(parts, KUBERNETES[0])
    data = of_kind("ConfigMap", parts)["data"]
    assert data["AGGREGATOR_REDIS__URL"] == "redis://redis.redis:6379/0"
    assert data["AGGREGATOR_HTTP__PORT"] == "9464"
    (container,) = of_kind("Deployment", parts)["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example/session-aggregator:0.1.0"


def test_the_topic_that_the_readme_creates_is_the_chart_s(tmp_path: Path) -> None:
    (command,) = (text for text in examples("") if text.startswith("kafka-topics.sh"))
    topics = template({"strimzi": {"enabled": True, "cluster": "kafka"}}, tmp_path)
    (spec,) = (part["spec"] for part in topics if part.get("spec", {}).get("topicName") == "otlp_spans")
    assert dict(re.findall(r"--config (\S+?)=(\S+)", command)) == {k: str(v) for k, v in spec["config"].items()}
    assert f"--partitions {spec['partitions']} --replication-factor {spec['replicas']}" in command


def test_all_say_the_same_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)
    text = (KUSTOMIZE / "base/manifests.yaml").read_text()
    assert re.findall(r"image: (\S+)", text) == [f"session-aggregator:{version}"]
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    assert compose["services"]["session-aggregator"]["image"] == f"session-aggregator:{version}"
