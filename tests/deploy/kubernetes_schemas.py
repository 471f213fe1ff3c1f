"""From Kubernetes' OpenAPI document and from CRDs to JSON schemas that kubeconform takes, strict: no unknown field."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

LOCATION = "{{ .ResourceKind }}-{{ .Group }}-{{ .ResourceAPIVersion }}.json"
"""Where kubeconform finds the schema of a resource."""

_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"


def write(swagger: Mapping[str, Any], crds: Iterable[Mapping[str, Any]], folder: Path) -> None:
    """Write one file a kind into `folder`, with what they share beside them."""
    folder.mkdir(parents=True)
    definitions = {name: _strict(schema) for name, schema in swagger["definitions"].items()}
    definitions[_QUANTITY]["type"] = ["string", "number"]  # the document says text alone, the server takes both
    (folder / "_definitions.json").write_text(json.dumps({"definitions": definitions}))
    for name, schema in swagger["definitions"].items():
        for kind in schema.get("x-kubernetes-group-version-kind", []):
            reference = {"$ref": f"_definitions.json#/definitions/{name}"}
            _file(folder, kind["kind"], kind["group"], kind["version"]).write_text(json.dumps(reference))
    for crd in crds:
        spec = crd["spec"]
        for version in spec["versions"]:
            schema = _strict(version["schema"]["openAPIV3Schema"])
            # The API server itself looks at the metadata; a CRD only says that it is an object.
            schema["properties"]["metadata"] = {
                "$ref": "_definitions.json#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
            }
            _file(folder, spec["names"]["kind"], spec["group"], version["name"]).write_text(json.dumps(schema))


def _file(folder: Path, kind: str, group: str, version: str) -> Path:
    # kubeconform takes what stands before the slash of an apiVersion for the group: of the core that is the version.
    return folder / f"{kind.lower()}-{group or version}-{version}.json"


def _strict(schema: Any) -> Any:
    """The same, with fields that it does not name refused and references within `_definitions.json`."""
    if isinstance(schema, Sequence) and not isinstance(schema, str):
        return [_strict(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    made = {name: _strict(part) for name, part in schema.items()}
    if isinstance(reference := made.get("$ref"), str):
        made["$ref"] = reference.replace("#/definitions/", "_definitions.json#/definitions/")
    if made.get("format") == "int-or-string" or made.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
        made.pop("format", None)
        made.setdefault("anyOf", [{"type": "integer"}, {"type": "string"}])
    closed = not made.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(made.get("properties"), Mapping) and "additionalProperties" not in made and closed:
        made["additionalProperties"] = False
    return made
