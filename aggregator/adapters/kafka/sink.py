"""The topics that are written: summaries and dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from aggregator.adapters.kafka.producer import Message, Producer
from aggregator.core.errors import FatalError, SummaryTooLarge
from aggregator.core.model import SessionRef
from aggregator.core.naming import encode_ref
from aggregator.ports import InputRecord
from aggregator.telemetry import Event, get_logger

log = get_logger()

_SUMMARY_HEADERS: Final = (("content-type", b"application/json"), ("schema", b"session-summary/1"))


class KafkaSummarySink:
    """`SummarySink` on Kafka: the record's key is `<project>/<session_id>`, percent-encoded, so that all summaries of
    a session lie in one partition, in order.
    """

    def __init__(self, producer: Producer, topic: str) -> None:
        self._producer = producer
        self._topic = topic

    async def erase(self, refs: Sequence[SessionRef]) -> None:
        """Send a record without a value for each session, which says that it was erased; twice is harmless.

        On a compacted topic it removes the summaries before it, and in time itself.  Raises what `Producer.send` does.
        """
        await self._producer.send([Message(self._topic, encode_ref(ref).encode(), None, ()) for ref in refs])

    async def publish(self, summaries: Sequence[tuple[SessionRef, bytes]]) -> None:
        """Send all and wait until the broker has acknowledged each; sending one twice is harmless to consumers.

        Raises `SummaryTooLarge` once all others are acknowledged, else what `Producer.send` raises.
        """
        messages = [
            Message(self._topic, encode_ref(ref).encode(), document, _SUMMARY_HEADERS) for ref, document in summaries
        ]
        refused = await self._producer.send(messages)
        if refused:
            sizes = [len(summaries[index][1]) for index in refused]
            raise SummaryTooLarge(
                [summaries[index][0] for index in refused],
                f"topic {self._topic!r} (AGGREGATOR_KAFKA__SUMMARY_TOPIC) refuses a summary of {min(sizes)} bytes, of "
                f"session {encode_ref(summaries[refused[0]][0])}; raise the topic's max.message.bytes, or lower "
                "AGGREGATOR_SESSION__MAX_SESSION_TRACES",
            )


class KafkaDeadLetters:
    """`DeadLetters` on Kafka: key, value and headers as they were, and headers that say why and whence.

    Headers of the same names in the record stay; ours come last, which is where readers look by convention.
    A record that the topic refuses as too large (ours are longer by their headers, and the input topic may take more)
    must not block those behind it: its value is left out, with the header `value-omitted: <bytes>`, and if that is
    not enough its key and headers too (`record-omitted: true`).  The record itself is where `source-offset` says.
    A record with neither key nor value gets an empty value and the header `value-null: true`.
    """

    def __init__(self, producer: Producer, topic: str) -> None:
        self._producer = producer
        self._topic = topic

    async def send(self, record: InputRecord, *, reason: str, detail: str, partial: bool) -> None:
        """Send it and return once it is acknowledged; twice is harmless, the source headers tell.

        Raises what `Producer.send` raises, and `FatalError` where the topic refuses even the headers alone.
        """
        ours = _headers(record, reason=reason, detail=detail, partial=partial)
        for message in self._ever_smaller(record, ours):
            if not await self._producer.send([message]):
                return
            log.warning(
                Event.DEAD_LETTER_CUT,
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                bytes=len(message.value or b""),
            )
        raise FatalError(
            f"topic {self._topic!r} (AGGREGATOR_KAFKA__DEAD_LETTER_TOPIC) refuses even a record without a value; raise "
            "its max.message.bytes"
        )

    def _ever_smaller(self, record: InputRecord, ours: list[tuple[str, bytes]]) -> list[Message]:
        key, value, headers = record.key, record.value, [*record.headers, *ours]
        omitted = ("value-omitted", str(len(value or b"")).encode())
        whole = Message(self._topic, key, value, headers)
        if key is None and value is None:
            whole = Message(self._topic, key, b"", [*headers, ("value-null", b"true")])
        return [
            whole,
            Message(self._topic, key, b"", [*headers, omitted]),
            Message(self._topic, None, b"", [*ours, omitted, ("record-omitted", b"true")]),
        ]


def _headers(record: InputRecord, *, reason: str, detail: str, partial: bool) -> list[tuple[str, bytes]]:
    headers = {
        "dead-letter-reason": reason,
        "dead-letter-detail": detail,
        "source-topic": record.topic,
        "source-partition": str(record.partition),
        "source-offset": str(record.offset),
        "source-timestamp": str(record.timestamp),
    }
    if partial:
        headers["partial"] = "true"
    return [(name, text.encode(errors="replace")) for name, text in headers.items()]
