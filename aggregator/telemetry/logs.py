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
    """The name of each event; its fields stand beside it."""

    WORKER_STARTED = "worker_started"  # version, core, settings
    WORKER_READY = "worker_ready"
    WORKER_STOPPING = "worker_stopping"  # reason
    WORKER_STOPPED = "worker_stopped"  # seconds
    GRACE_EXCEEDED = "grace_exceeded"  # grace_s
    CLOSE_UNFINISHED = "close_unfinished"  # error: a server was not told that we go
    TASK_DIED = "task_died"  # task, error
    HTTP_LISTENING = "http_listening"  # host, port

    RETRYING = "retrying"  # operation, error
    RECOVERED = "recovered"  # operation

    PARTITIONS_ASSIGNED = "partitions_assigned"  # partitions
    PARTITIONS_REVOKED = "partitions_revoked"  # partitions
    REVOKED_UNFINISHED = "revoked_unfinished"  # partitions, unfinished
    PARTITION_STARTED = "partition_started"  # topic, partition, offset, why, replay_records: to be read again
    REPLAYED = "replayed"  # topic, partition, offset, why, records: all from there on have been read again
    TOPIC_CREATED = "topic_created"  # topic, partitions
    TOPIC_RECREATED = "topic_recreated"  # topic, partition, offset, end_offset
    RECORDS_LOST = "records_lost"  # topic, partition, offset, records: retention took them before they were read
    RECORDS_UNREADABLE = "records_unreadable"  # topic, partition, offset: some from there on can't be unpacked
    COMMIT_PASSED_OVER = "commit_passed_over"  # partitions, error
    GROUP_NOT_LEFT = "group_not_left"  # seconds
    PLAIN_PRODUCER = "plain_producer"  # error
    DEAD_LETTER_CUT = "dead_letter_cut"  # topic, partition, offset, bytes

    REDIS_CONNECTED = "redis_connected"  # version, cluster
    CORRUPT_KEY = "corrupt_key"  # kind, key, kept_as, error: a value that could not be read was set aside
    CLOCK_CORRECTED = "clock_corrected"  # seconds: to be added to this machine's clock to have that of Redis
    STATE_LOST = "state_lost"  # topic, partition, expected, found

    SUMMARY_CUT = "summary_cut"  # sessions, error: published without the detail of their traces
    RECORD_REJECTED = "record_rejected"  # topic, partition, offset, reason, detail, partial, suppressed


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
