"""The reference decoder: OTLP protobuf through the official parser.

`repeated KeyValue` has the same wire format as `map<string, AnyValue>`, so the message types are derived at start-up
from opentelemetry-proto's own descriptors with the attributes of spans and resources as maps (of a key that occurs
twice the last counts) and without events and links, which nothing here reads.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from .conventions import HAZARD_MESSAGES, Conventions
from .errors import UndecodableRecord
from .interpret import finish, put, resource_of, scope_of
from .model import Decoded
from .raw import UNUSABLE, RawSpan

NOT_PROTOBUF: Final = "not_protobuf"

_ANY_VALUE: Final = ".opentelemetry.proto.common.v1.AnyValue"
_STATUS_ERROR: Final = 2
_MAX_NS: Final = 2**63 - 1


def _file(descriptor: Any) -> descriptor_pb2.FileDescriptorProto:
    copy = descriptor_pb2.FileDescriptorProto()
    descriptor.CopyToProto(copy)
    return copy


def _attributes_as_map(message: descriptor_pb2.DescriptorProto, full_name: str) -> None:
    """Turn the field `attributes` of a message from `repeated KeyValue` into `map<string, AnyValue>`."""
    field = next(field for field in message.field if field.name == "attributes")
    field.type_name = f"{full_name}.AttributesEntry"
    entry = message.nested_type.add(name="AttributesEntry")
    entry.options.map_entry = True
    optional = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
    entry.field.add(name="key", number=1, label=optional, type=descriptor_pb2.FieldDescriptorProto.TYPE_STRING)
    entry.field.add(
        name="value",
        number=2,
        label=optional,
        type=descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE,
        type_name=_ANY_VALUE,
    )


def _traces_data() -> type[Message]:
    """The class of `TracesData` as derived; its wire format is that of `ExportTraceServiceRequest` too."""
    pool = descriptor_pool.DescriptorPool()
    resource = _file(resource_pb2.DESCRIPTOR)
    trace = _file(trace_pb2.DESCRIPTOR)
    for message in resource.message_type:
        _attributes_as_map(message, f".{resource.package}.{message.name}")
    for message in trace.message_type:
        if message.name == "Span":
            kept = [field for field in message.field if field.name not in ("events", "links")]
            del message.field[:]
            message.field.extend(kept)
            _attributes_as_map(message, f".{trace.package}.Span")
    for file in (_file(common_pb2.DESCRIPTOR), resource, trace):
        pool.Add(file)
    described: FileDescriptor = pool.FindFileByName(trace.name)
    return message_factory.GetMessageClass(described.message_types_by_name["TracesData"])


_TRACES_DATA: Final = _traces_data()


def decode_reference(data: bytes, *, log_ms: int, conventions: Conventions) -> Decoded:
    """Decode a record of OTLP protobuf by the official parser.

    Raises `UndecodableRecord` with reason `not_protobuf` where the parser rejects the bytes.
    """
    message: Any = _TRACES_DATA()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise UndecodableRecord(NOT_PROTOBUF, str(error)) from error
    out = Decoded()
    raw: RawSpan | None = None
    for resource_spans in message.resource_spans:
        attributes = resource_spans.resource.attributes
        resource = resource_of({key: _value(value) for key, value in attributes.items()}, conventions)
        for scope_spans in resource_spans.scope_spans:
            scope = scope_of(scope_spans.scope.name)
            if raw is None:
                raw = RawSpan(len(conventions.roles), resource, scope)
            raw.resource = resource
            raw.scope = scope
            for span in scope_spans.spans:
                _read(span, raw, conventions)
                finish(raw, conventions, log_ms, out)
    return out


def _read(span: Any, raw: RawSpan, conventions: Conventions) -> None:
    raw.begin()
    raw.trace_id = span.trace_id
    raw.span_id = span.span_id
    raw.parent_id = span.parent_span_id
    raw.name = span.name
    raw.start_ns = min(span.start_time_unix_nano, _MAX_NS)
    raw.end_ns = min(span.end_time_unix_nano, _MAX_NS)
    raw.error = span.status.code == _STATUS_ERROR
    for key, value in span.attributes.items():
        code = conventions.names.get(key)
        if code is not None:
            put(raw, conventions, code, _value(value))
        elif key.startswith(HAZARD_MESSAGES):
            raw.messages = True


def _value(value: Any) -> object:
    """The Python value of an `AnyValue`: None where it is empty, `UNUSABLE` for what nothing is read from."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind in ("string_value", "bool_value", "int_value", "double_value"):
        return getattr(value, kind)
    return UNUSABLE
