"""The chart's `values.schema.json`: the worker's own settings model, and what the chart adds.

So a setting that is misspelt or out of bounds in `values.yaml` fails at `helm install`, with the bounds of the code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from pydantic import BaseModel

from aggregator.settings import Settings

# The chart decides these: probes, scrapers and browsers come from outside the pod, certificates are mounted through
# `tls`, and the pods of a Deployment have no names that outlive them: all would be one member of the group.
_NOT_IN_VALUES: Final = {
    ("http", "host"),
    ("web", "host"),
    ("kafka", "group_instance_id"),
    ("kafka", "ssl_ca_file"),
    ("kafka", "ssl_cert_file"),
    ("kafka", "ssl_key_file"),
    ("redis", "ssl_ca_file"),
    ("redis", "ssl_cert_file"),
    ("redis", "ssl_key_file"),
}
# What the chart itself reads.
_REQUIRED: Final = {
    "kafka": ["bootstrap_servers", "topics", "group_id"],
    "shutdown": ["grace_s"],
    "http": ["port"],
}
_MAYBE_SECRET: Final = {("redis", "url")}  # a URL may hold a password, and often holds none
_KUBERNETES: Final = "0123456789.mkKMGTPEi"
_HOST_AND_PORT: Final = r"^(\[[0-9A-Fa-f:.]+\]|[^\s:/]+):[0-9]{1,5}$"
_NAME: Final = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"


def schema() -> dict[str, Any]:
    """The whole schema."""
    plain, secret = _settings()
    top = {**_chart(), "settings": plain, "secretSettings": secret, "web": _web(plain, secret)}
    required = ["image", "inputPartitions", "replicas", "settings", "resources", "autoscaling", "networkPolicy"]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart session-aggregator",
        **_object(top, required),
    }


def _settings() -> tuple[dict[str, Any], dict[str, Any]]:
    """The schemas of `settings` and `secretSettings`."""
    plain: dict[str, Any] = {}
    secret: dict[str, Any] = {}
    for group, field in Settings.model_fields.items():
        made = cast("type[BaseModel]", field.annotation).model_json_schema()
        values, secrets = {}, {}
        for name, described in made["properties"].items():
            value = _value(described, made.get("$defs", {}))
            is_secret = value.get("format") == "password"
            if not is_secret and (group, name) not in _NOT_IN_VALUES:
                values[name] = value
            if is_secret or (group, name) in _MAYBE_SECRET:
                secrets[name] = _SECRET_KEY
        if group == "kafka":
            values["bootstrap_servers"]["items"]["pattern"] = _HOST_AND_PORT
        if group in ("http", "web"):
            values["port"]["minimum"] = 1  # 0 is a free port, which neither probes nor clients would find
        plain[group] = _object(values, _REQUIRED.get(group, []))
        if secrets:
            secret[group] = _object(secrets)
    return _object(plain, ["kafka", "redis", "shutdown", "http"]), _object(secret)


def _value(described: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """A field of the model as the chart takes it: without defaults, which are the worker's."""
    if "$ref" in described:
        described = definitions[described["$ref"].rpartition("/")[2]]
    if "anyOf" in described:  # a value or nothing; nothing is left out of values
        described = next(kind for kind in described["anyOf"] if kind.get("type") != "null")
    kept = {
        name: value for name, value in described.items() if name not in ("default", "title", "description", "examples")
    }
    if kept["type"] == "array":  # pydantic writes the length of a tuple as that of a text
        kept = {{"minLength": "minItems", "maxLength": "maxItems"}.get(name, name): v for name, v in kept.items()}
        kept["items"] = dict(kept["items"])
    return kept


def _object(properties: Mapping[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    """An object with these properties and no others."""
    made: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": dict(properties)}
    if required:
        made["required"] = required
    return made


def _words(*words: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(words)}


def _count(least: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": least}


_TEXT: Final[dict[str, Any]] = {"type": "string"}
_YES_OR_NO: Final[dict[str, Any]] = {"type": "boolean"}
_OBJECTS: Final[dict[str, Any]] = {"type": "array", "items": {"type": "object"}}
_TEXTS: Final[dict[str, Any]] = {"type": "object", "additionalProperties": {"type": "string"}}
_ANY_OBJECT: Final[dict[str, Any]] = {"type": "object"}
_PORTS: Final[dict[str, Any]] = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "integer", "minimum": 1, "maximum": 65535},
}
_SECRET_NAME: Final[dict[str, Any]] = {"type": "string", "pattern": rf"^$|{_NAME}"}
_MOUNTED_CERTIFICATES: Final = _object({"secret": _SECRET_NAME, "ca": _TEXT, "cert": _TEXT, "key": _TEXT})
_SECRET_KEY: Final[dict[str, Any]] = _object(
    {"secret": {"type": "string", "pattern": _NAME}, "key": {"type": "string", "minLength": 1}}, ["secret", "key"]
)
_QUANTITIES: Final[dict[str, Any]] = {
    "type": "object",
    "additionalProperties": {"type": ["string", "number"], "pattern": rf"^[{_KUBERNETES}]+$"},
}

_RESOURCES: Final[dict[str, Any]] = _object({"requests": _QUANTITIES, "limits": _QUANTITIES}, ["requests"])


def _chart() -> dict[str, Any]:
    """What the chart has beside the settings."""
    return {
        "image": _object(
            {
                "repository": {"type": "string", "minLength": 1},
                "tag": _TEXT,
                "digest": {"type": "string", "pattern": "^$|^sha256:[0-9a-f]{64}$"},
                "pullPolicy": _words("Always", "IfNotPresent", "Never"),
            },
            ["repository"],
        ),
        "imagePullSecrets": _OBJECTS,
        "nameOverride": _TEXT,
        "fullnameOverride": _TEXT,
        "inputPartitions": _count(1),
        "replicas": _count(1),
        "tls": _object(dict.fromkeys(("kafka", "redis"), _MOUNTED_CERTIFICATES)),
        "resources": _RESOURCES,
        "secretFiles": {
            "type": "object",
            "additionalProperties": False,
            "patternProperties": {"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$": {"type": "string", "pattern": _NAME}},
        },
        "autoscaling": _autoscaling(),
        "monitoring": _object(
            {
                "scrape": _words("none", "serviceMonitor", "podMonitor"),
                "interval": {"type": "string", "pattern": "^[0-9]+(ms|s|m)$"},
                "labels": _TEXTS,
                "rules": _YES_OR_NO,
                "runbook": {"type": "string", "minLength": 1},
                "dashboards": _YES_OR_NO,
                "dashboardLabels": _TEXTS,
            }
        ),
        "podDisruptionBudget": _object({"enabled": _YES_OR_NO, "maxUnavailable": {"type": ["integer", "string"]}}),
        "networkPolicy": _network_policy(),
        "serviceAccount": _object({"create": _YES_OR_NO, "name": _TEXT, "annotations": _TEXTS}),
        "strimzi": _object(
            {
                "enabled": _YES_OR_NO,
                "apiVersion": _words("kafka.strimzi.io/v1", "kafka.strimzi.io/v1beta2"),
                "cluster": _TEXT,
                "namespace": _TEXT,
                "replicas": _count(1),
                "minInSyncReplicas": _count(1),
            }
        ),
        "podAnnotations": _TEXTS,
        "podLabels": _TEXTS,
        "nodeSelector": _TEXTS,
        "tolerations": _OBJECTS,
        "affinity": _ANY_OBJECT,
        "priorityClassName": _TEXT,
        "topologySpreadConstraints": _OBJECTS,
        "extraEnv": _OBJECTS,
        "extraVolumes": _OBJECTS,
        "extraVolumeMounts": _OBJECTS,
        "global": _ANY_OBJECT,  # Helm gives it to every chart that is another's part
    }


def _web(plain: Mapping[str, Any], secret: Mapping[str, Any]) -> dict[str, Any]:
    """The web view; of the settings it may have those of Redis as its own."""
    own, own_secrets = (_object({"redis": settings["properties"]["redis"]}) for settings in (plain, secret))
    return _object(
        {
            "enabled": _YES_OR_NO,
            "replicas": _count(1),
            "settings": own,
            "secretSettings": own_secrets,
            "from": _OBJECTS,
            "resources": _RESOURCES,
        },
        ["settings", "secretSettings", "resources"],
    )


def _autoscaling() -> dict[str, Any]:
    return _object(
        {
            "kind": _words("none", "keda", "hpa"),
            "minReplicas": _count(1),
            "maxReplicas": _count(1),
            "lagThreshold": _count(1),
            "authenticationRef": _SECRET_NAME,
            "targetCPUUtilizationPercentage": {"type": "integer", "minimum": 1, "maximum": 100},
        },
        ["kind", "minReplicas", "maxReplicas"],
    )


def _network_policy() -> dict[str, Any]:
    place = _object({"to": _OBJECTS, "ports": _PORTS}, ["ports"])
    return _object(
        {
            "enabled": _YES_OR_NO,
            "metricsFrom": _OBJECTS,
            "kafka": place,
            "redis": place,
            "dns": _object({"to": _OBJECTS}),
            "extraEgress": _OBJECTS,
        }
    )
