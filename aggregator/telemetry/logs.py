"""Every log event, and how log lines are written: one event name with fields, as text or as JSON.

Lines of libraries go the same way.  Nothing here reads a clock but structlog's own time stamp.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from enum import StrEnum
from typing import Final, TextIO

import structlog
from structlog.typing import Processor

Log = structlog.stdlib.BoundLogger


class Event(StrEnum):
    """Each event: its name, the levels it is logged at, what it means, and the fields beside it.

    Names and fields are part of the interface; docs/events.md is made from here, and a test compares all calls.
    """

    levels: tuple[str, ...]
    meaning: str
    fields: tuple[str, ...]

    def __new__(cls, name: str, levels: str, meaning: str, fields: str) -> Event:
        """`levels` and `fields` are words with blanks between them."""
        event = str.__new__(cls, name)
        event._value_ = name
        event.levels, event.meaning, event.fields = tuple(levels.split()), meaning, tuple(fields.split())
        return event

    WORKER_STARTED = "worker_started", "info", "A worker begins.", "version core"
    HTTP_LISTENING = "http_listening", "info", "Metrics and health are served there.", "host port"
    REDIS_CONNECTED = "redis_connected", "info", "A Redis server was reached.", "address version cluster"
    WORKER_READY = "worker_ready", "info", "Kafka and Redis are reached; the worker reads from now on.", ""
    WORKER_STOPPING = "worker_stopping", "info", "It was told to stop, and finishes what it holds.", "reason"
    GRACE_EXCEEDED = "grace_exceeded", "warning", "It could not finish in time; the rest is read again.", "grace_s"
    CLOSE_UNFINISHED = "close_unfinished", "warning", "A server was not told that the worker goes.", "error"
    WORKER_STOPPED = "worker_stopped", "info", "It ends.", ""
    TASK_DIED = "task_died", "error", "A part of the worker has failed for good, so the worker ends.", "error exc_info"

    RETRYING = "retrying", "warning", "Something is away; it is tried again until it works.", "operation error"
    RECOVERED = "recovered", "info", "It works again.", "operation"

    PARTITIONS_ASSIGNED = "partitions_assigned", "info", "The group gave the worker partitions.", "partitions"
    PARTITIONS_REVOKED = "partitions_revoked", "info", "The group takes partitions away.", "partitions"
    REVOKED_UNFINISHED = (
        "revoked_unfinished",
        "warning",
        "Partitions were given up with batches not stored yet; their new owner reads them again.",
        "partitions unfinished",
    )
    PARTITION_STARTED = (
        "partition_started",
        "info warning",
        "A partition is read from there; a warning where that is not simply where the group had come to.",
        "topic partition offset why replay_records",
    )
    REPLAYED = (
        "replayed",
        "info",
        "All records from there on that had been read before have been read again.",
        "topic partition offset why records",
    )
    GROUP_NOT_LEFT = "group_not_left", "warning", "The broker did not confirm that the worker left.", "seconds"
    COMMIT_PASSED_OVER = (
        "commit_passed_over",
        "info warning",
        "Offsets were not committed, which the next commit makes up for.",
        "partitions error",
    )
    TOPIC_CREATED = "topic_created", "info", "A missing topic was made.", "topic partitions"
    TOPIC_RECREATED = (
        "topic_recreated",
        "error",
        "A topic was deleted and made again; it is read from its beginning.",
        "topic partition offset beginning_offset end_offset",
    )
    RECORDS_LOST = (
        "records_lost",
        "error",
        "Retention took records before they were read.",
        "topic partition offset records",
    )
    RECORDS_UNREADABLE = (
        "records_unreadable",
        "error",
        "Records from there on can't be unpacked; they go to the dead-letter topic as they lie in the log.",
        "topic partition offset next_offset error",
    )
    RECORD_REJECTED = (
        "record_rejected",
        "warning",
        "A record went to the dead-letter topic; one line per reason in ten seconds, `suppressed` counts the others.",
        "topic partition offset reason detail partial suppressed",
    )
    DEAD_LETTER_CUT = (
        "dead_letter_cut",
        "warning",
        "The dead-letter topic refused a record as too large; it was sent without its value.",
        "topic partition offset bytes",
    )
    PLAIN_PRODUCER = "plain_producer", "warning", "The broker gives no producer ids; duplicates are possible.", "error"

    CLOCK_CORRECTED = (
        "clock_corrected",
        "warning",
        "This machine's clock is off; `seconds` are added to it to have that of Redis.",
        "seconds",
    )
    STATE_LOST = (
        "state_lost",
        "error",
        "Redis has less than it had; the partition is read again.",
        "topic partition expected found",
    )
    CORRUPT_KEY = (
        "corrupt_key",
        "error",
        "A value in Redis could not be read, and was set aside.",
        "kind key kept_as error",
    )
    SUMMARY_CUT = (
        "summary_cut",
        "warning",
        "Summaries were too large for their topic, and went out without the detail of their traces.",
        "sessions error",
    )
    TLS_FILES_RENEWED = "tls_files_renewed", "info", "Certificates had changed, and were read again.", "server"
    TLS_FILES_UNUSABLE = (
        "tls_files_unusable",
        "warning",
        "Certificates have changed and can't be used; those read before go on.",
        "error",
    )


def configure_logging(level: str, style: str = "auto", stream: TextIO | None = None) -> None:
    """Send all logs of this process to `stream` (standard error) as `text` or `json`; `auto` is text on a terminal.

    `level` is debug, info, warning or error; libraries are heard from warning upwards, from info at debug.
    """
    out = stream if stream is not None else sys.stderr
    text = style == "text" or (style == "auto" and out.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    # Tracebacks are one field in JSON; the text renderer prints them by itself.
    rendering: list[Processor] = (
        [structlog.dev.ConsoleRenderer(colors=out.isatty())]
        if text
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(), structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    handler.addFilter(Repeats())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO if level == "debug" else logging.WARNING)
    logging.getLogger(_NAME).setLevel(level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,  # loggers made before this call must follow it
    )


_NAME: Final = "aggregator"


class Repeats(logging.Filter):
    """Holds back what libraries repeat: one line per place in their code and interval.

    While brokers are away aiokafka complains ten times a second; what is being waited for says our own `retrying`.
    """

    INTERVAL_S: Final = 30.0

    def __init__(self) -> None:
        super().__init__()
        self._last_s: dict[tuple[str, int], float] = {}  # by place: bounded by the code there is

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name == _NAME:
            return True
        place = (record.pathname, record.lineno)
        last_s = self._last_s.get(place)
        if last_s is not None and record.created - last_s < self.INTERVAL_S:
            return False
        self._last_s[place] = record.created
        return True


def get_logger(**fields: object) -> Log:
    """A logger that puts these fields on each of its lines, as in `get_logger(stage=Stage.DECODE)`."""
    return structlog.stdlib.get_logger(_NAME, **fields)


class RejectLog:
    """Says why records are rejected without flooding the log: one line per reason and interval.

    A line that was held back is counted, and the next line of that reason carries the count as `suppressed`.
    Reasons come from the core's closed set, so memory is bounded.
    """

    INTERVAL_S: Final = 10.0

    def __init__(self, log: Log, monotonic_s: Callable[[], float]) -> None:
        self._log = log
        self._monotonic_s = monotonic_s
        self._last_s: dict[str, float] = {}
        self._suppressed: dict[str, int] = {}

    def reject(self, reason: str, *, topic: str, partition: int, offset: int, detail: str, partial: bool) -> None:
        """Log one rejected record, or count it where its reason was logged a moment ago."""
        now_s = self._monotonic_s()
        last_s = self._last_s.get(reason)
        if last_s is not None and now_s - last_s < self.INTERVAL_S:
            self._suppressed[reason] = self._suppressed.get(reason, 0) + 1
            return
        self._last_s[reason] = now_s
        self._log.warning(
            Event.RECORD_REJECTED,
            reason=reason,
            topic=topic,
            partition=partition,
            offset=offset,
            detail=detail,
            partial=partial,
            suppressed=self._suppressed.pop(reason, 0),
        )

    def flush(self) -> None:
        """Tell what was held back and is not yet told; call it when stopping."""
        for reason, count in self._suppressed.items():
            self._log.warning(Event.RECORD_REJECTED, reason=reason, suppressed=count)
        self._suppressed.clear()
