"""Spans that producers really wrote, kept so that every run of the tests sees them without the producers.

`captured/<name>.binpb.gz` is one OTLP `TracesData` of one run as it came out of the Collector; `captured/<name>.json`
beside it says what the APIs charged, what the producer did and which version it was.  What no rollup reads is left
out: events, links, texts beyond `_LONGEST` characters, and resource attributes that tell of the machine.
`make interop ARGS=--recapture` writes them anew.
"""

from __future__ import annotations

import gzip
import json
import platform
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, TracesData

from tests.interop import environments
from tests.interop.catalogue import Producer
from tests.interop.running import Truth

FOLDER: Final = Path(__file__).parent / "captured"
_LONGEST: Final = 400
_OF_THE_MACHINE: Final = ("host.", "process.", "os.", "container.")
_PLACES: Final = ("code.filepath", "code.file.path", "error.stack_trace", "litellm.provider.error.stack_trace")


def keep(producer: Producer, truth: Truth, records: Iterable[bytes]) -> None:
    """Write what the producer's row is judged by."""
    spans = TracesData(resource_spans=[trimmed(one) for record in records for one in read(record)])
    whole = spans.SerializeToString(deterministic=True)
    for private in (str(Path(__file__).parents[2]), f"{Path.home()}/", platform.node()):
        # What is shorter than that, say a host named "shop", is found in any spans.
        assert len(private) < 6 or private.encode() not in whole, f"{producer.name}: {private} is in its spans"
    document = {"package": producer.package, "version": environments.version_of(producer), **truth.to_json()}
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{producer.name}.binpb.gz").write_bytes(gzip.compress(whole, mtime=0))
    (FOLDER / f"{producer.name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def load(producer: Producer) -> tuple[TracesData, Truth, str]:
    """The spans of the kept run, what is true of it, and the version of the producer that it was."""
    document: dict[str, Any] = json.loads((FOLDER / f"{producer.name}.json").read_text(encoding="utf-8"))
    packed = (FOLDER / f"{producer.name}.binpb.gz").read_bytes()
    return TracesData.FromString(gzip.decompress(packed)), Truth.from_json(document), document["version"]


def read(record: bytes) -> Iterable[ResourceSpans]:
    """The content of one record of encoding `otlp_proto`."""
    return TracesData.FromString(record).resource_spans


def trimmed(spans: ResourceSpans) -> ResourceSpans:
    """A copy without what no rollup reads."""
    made = ResourceSpans()
    made.CopyFrom(spans)
    _keep_only(made.resource.attributes, lambda one: not one.key.startswith(_OF_THE_MACHINE))
    for scope in made.scope_spans:
        for span in scope.spans:
            del span.events[:]
            del span.links[:]
            span.status.message = ""
            _keep_only(span.attributes, lambda one: one.key not in _PLACES)
            for attribute in span.attributes:
                _cut(attribute.value)
    return made


def _keep_only(attributes: Any, wanted: Callable[[KeyValue], bool]) -> None:
    kept = [attribute for attribute in attributes if wanted(attribute)]
    del attributes[:]
    attributes.extend(kept)


def _cut(value: AnyValue) -> None:
    if len(value.string_value) > _LONGEST:
        value.string_value = value.string_value[:_LONGEST] + "…"
    for one in value.array_value.values:
        _cut(one)
    for pair in value.kvlist_value.values:
        _cut(pair.value)
