"""Kafka's errors in this program's words."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from aiokafka import errors as kafka

from aggregator.adapters.tls import tls_failure, tls_words
from aggregator.core.errors import BrokerRefused, BrokerUnavailable, ConfigurationError, FatalError

_NOT_ALLOWED: Final = (
    kafka.TopicAuthorizationFailedError,
    kafka.GroupAuthorizationFailedError,
    kafka.ClusterAuthorizationFailedError,
    kafka.TransactionalIdAuthorizationFailed,
)
_NOT_LET_IN: Final = (
    kafka.SaslAuthenticationFailed,
    kafka.AuthenticationFailedError,
    kafka.AuthenticationMethodNotSupported,
    kafka.UnsupportedSaslMechanismError,
)
_WRONG_SETTING: Final = (
    kafka.InvalidSessionTimeoutError,
    kafka.InvalidGroupIdError,
    kafka.InconsistentGroupProtocolError,
    kafka.InvalidTopicError,
)
_WILL_NOT_PASS: Final = (
    kafka.MessageSizeTooLargeError,
    kafka.RecordTooLargeError,
    kafka.UnsupportedCodecError,
    kafka.UnsupportedVersionError,
    kafka.ConsumerStoppedError,
    kafka.IllegalArgumentError,
    kafka.InvalidProducerEpoch,
    kafka.ProducerFenced,
)


class Peer(NamedTuple):
    """Who speaks to whom, for messages: addresses of brokers, us as ACLs name us, and the operation that we are at
    (`Read`, `Write` or `Describe`).
    """

    brokers: str
    principal: str = "User:ANONYMOUS"
    operation: str = "Read"
    group: str = ""

    def not_allowed(self, doing: str, error: kafka.KafkaError) -> BrokerRefused:
        """An ACL is missing; names which one."""
        match error:
            case kafka.TopicAuthorizationFailedError():
                what = f"{self.operation} on topic {_names(error, 'of this request')}"
            case kafka.GroupAuthorizationFailedError():
                what = f"Read on group {self.group or _names(error, 'of this request')}"
            case _:
                what = f"what it asks for on the cluster ({type(error).__name__})"
        return BrokerRefused(
            f"{doing}: Kafka at {self.brokers} does not allow {self.principal} {what}; add the ACL, as "
            "deploy/kafka/acls.sh does"
        )

    def not_let_in(self, doing: str, error: BaseException) -> BrokerRefused | None:
        """The certificate or the log-in is refused, by either side; None for an error of any other kind."""
        failure = tls_failure(error)
        if failure is not None:
            return BrokerRefused(
                f"{doing}: no TLS connection to Kafka at {self.brokers} as {self.principal}: "
                f"{tls_words(failure, 'kafka')}"
            )
        if isinstance(error, _NOT_LET_IN):
            said = _without_address(error)
            return BrokerRefused(
                f"{doing}: Kafka at {self.brokers} does not let {self.principal} in: {said}; check "
                "AGGREGATOR_KAFKA__SASL_MECHANISM and the other AGGREGATOR_KAFKA__SASL_* settings"
            )
        return None


@contextmanager
def translated(doing: str, peer: Peer) -> Iterator[None]:
    """Raise what goes wrong inside as one of our errors; `doing` starts its sentence, as in "committing offsets"."""
    try:
        yield
    except _NOT_ALLOWED as error:
        raise peer.not_allowed(doing, error) from error
    except _WRONG_SETTING as error:
        raise ConfigurationError(
            f"{doing}: Kafka refuses it ({error}); check AGGREGATOR_KAFKA__GROUP_ID, __SESSION_TIMEOUT_MS and topic "
            "names; members of one group must run versions with the same assignment protocol"
        ) from error
    except _WILL_NOT_PASS as error:
        raise FatalError(f"{doing}: {error}") from error
    except (kafka.KafkaError, OSError) as error:  # a TimeoutError is an OSError
        refused = peer.not_let_in(doing, error)
        raise refused or BrokerUnavailable(f"{doing}: {str(error) or type(error).__name__}") from error
    except RuntimeError as error:
        if "the handler is closed" not in str(error):
            raise
        # uvloop on a transport that was closed a moment ago (its issue 506), where asyncio would drop the bytes.
        raise BrokerUnavailable(f"{doing}: the connection was closed") from error


def _names(error: kafka.KafkaError, otherwise: str) -> str:
    """What the error is about: aiokafka gives one name, or a set of them."""
    about = error.args[0] if error.args else None
    if isinstance(about, str):
        return about
    return ", ".join(sorted(map(str, about))) if isinstance(about, Collection) and about else otherwise


def _without_address(error: BaseException) -> str:
    """What the broker said; where it said nothing aiokafka tells the connection's address in memory instead."""
    said = error.args[0] if error.args else None
    return said if isinstance(said, str) and said else type(error).__name__
