"""Kafka's errors in this program's words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from aiokafka import errors as kafka

from aggregator.core.errors import BrokerUnavailable, ConfigurationError, FatalError

_REFUSED: Final = (
    kafka.TopicAuthorizationFailedError,
    kafka.GroupAuthorizationFailedError,
    kafka.ClusterAuthorizationFailedError,
    kafka.TransactionalIdAuthorizationFailed,
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


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise what goes wrong inside as one of our errors; `doing` starts its sentence, as in "committing offsets"."""
    try:
        yield
    except _REFUSED as error:
        raise ConfigurationError(
            f"{doing}: Kafka refuses it ({error}); check the ACLs and the AGGREGATOR_KAFKA__SASL_* settings"
        ) from error
    except _WRONG_SETTING as error:
        raise ConfigurationError(
            f"{doing}: Kafka refuses it ({error}); check AGGREGATOR_KAFKA__GROUP_ID, __SESSION_TIMEOUT_MS and topic "
            "names; members of one group must run versions with the same assignment protocol"
        ) from error
    except _WILL_NOT_PASS as error:
        raise FatalError(f"{doing}: {error}") from error
    except (kafka.KafkaError, OSError) as error:  # a TimeoutError is an OSError
        raise BrokerUnavailable(f"{doing}: {error or type(error).__name__}") from error
    except RuntimeError as error:
        if "the handler is closed" not in str(error):
            raise
        # uvloop on a transport that was closed a moment ago (its issue 506), where asyncio would drop the bytes.
        raise BrokerUnavailable(f"{doing}: the connection was closed") from error
