"""What can go wrong, as types that say what to do about it.

    AggregatorError
    |-- RecordError          dead-letter the record, go on with the next
    |   `-- UndecodableRecord
    |-- SummaryTooLarge      publish the session's summary without the detail of its traces
    |-- TransientError       retry with back-off: the outside system will come back
    |   |-- StoreUnavailable     Redis
    |   |   `-- StoreRefused         it does not let us in, or not do this; somebody mends that while we wait
    |   `-- BrokerUnavailable    Kafka
    |       `-- BrokerRefused        likewise
    `-- FatalError           stop the process with one clear message
        |-- ConfigurationError   a setting is wrong (exit code 2)
        |-- TooManyDeadLetters   a topic that holds something else than spans
        |-- OtherVersion         state in Redis that another version of this program has written
        `-- CorruptState         a value in Redis that this program did not write, where it can't be set aside

Adapters translate foreign exceptions into these once, at their edge, `from` their cause.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence


class AggregatorError(Exception):
    """The root; nothing raises it as such."""


class RecordError(AggregatorError):
    """One record can't be used; `reason` is a label value from a closed set, `detail` is for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class UndecodableRecord(RecordError):
    """The bytes are no OTLP traces data; goes to the dead-letter topic whole."""


class SummaryTooLarge(AggregatorError):
    """The summary topic refuses a summary of this size.

    `refs` are the sessions (project, id) whose summaries were refused; all others were acknowledged.
    """

    def __init__(self, refs: Sequence[tuple[str, str]], detail: str) -> None:
        super().__init__(detail)
        self.refs = refs


class TransientError(AggregatorError):
    """An outside system does not answer as it should; the same call may succeed later."""


class StoreUnavailable(TransientError):
    """Redis is away, slow, read-only, loading or out of memory."""


class BrokerUnavailable(TransientError):
    """Kafka is away or has no leader for what was asked."""


class StoreRefused(StoreUnavailable):
    """Redis refuses a certificate, a log-in or an operation; the text says which server, whom, and what is missing.

    It passes when somebody mends the server, the ACL or the file, which needs no restart: files are read again.
    """


class BrokerRefused(BrokerUnavailable):
    """Kafka refuses us likewise."""


class FatalError(AggregatorError):
    """Going on would do harm; the process says why and ends."""


class ConfigurationError(FatalError):
    """One or more settings are wrong; the text lists all of them with their remedies."""


class TooManyDeadLetters(FatalError):
    """So many undecodable records came in a row that the topic is probably not ours."""


class OtherVersion(FatalError):
    """State in Redis was written by a version of this program whose state this one can't read.

    It stays as it is and nothing is committed, so the version that wrote it goes on where it was.
    """

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} was written by another version of this program, which this one can't read; it stays as it is: "
            "run that version again, or see docs/upgrade.md"
        )


class CorruptState(FatalError):
    """A value in Redis can't be read back; the text names its key.

    `adapters/redis` sets such values aside where it can, and only what it can't ends the process.
    """


def causes(error: BaseException) -> Iterator[BaseException]:
    """A foreign error and what led to it; ends at one of ours, which is what was being dealt with when it came."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, AggregatorError):
        yield found
        found = found.__cause__ or found.__context__
