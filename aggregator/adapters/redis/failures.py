"""What Redis says when it fails, as errors that say what to do about it."""

from __future__ import annotations

import re
from typing import Final, Protocol

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    ClusterCrossSlotError,
    ClusterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from aggregator.adapters.tls import tls_failure, tls_words
from aggregator.core.errors import (
    AggregatorError,
    CorruptState,
    FatalError,
    OtherVersion,
    StoreRefused,
    StoreUnavailable,
    causes,
)

# Kinds of error reply that tell of a state which passes, and how those begin for which redis-py has no kind; within a
# script's reply they are only text.
_PASSING_KINDS: Final = (
    AskError,
    ClusterCrossSlotError,
    ClusterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    TryAgainError,
)
_PASSING: Final = (
    "ASK", "BUSY", "CLUSTERDOWN", "CROSSSLOT", "FAILOVER", "LOADING", "MASTERDOWN", "MISCONF", "MOVED", "NOREPLICAS",
    "OOM", "READONLY", "TRYAGAIN", "UNBLOCKED",
)  # fmt: skip
_PASSING_WORDS: Final = ("non local key", "the same slot", "cluster is down", "killed by user")
_OTHER_VERSION: Final = "another version has written"  # the session scripts and set_aside.lua
_NOT_ALLOWED_IN_SCRIPT: Final = ("ACL failure in script", "The user executing the script can't")  # Redis 7.2, 7.0
_REDIRECTS: Final = (b"MOVED", b"ASK", b"TRYAGAIN", b"non local key", b"same slot")


def is_redirect(text: bytes) -> bool:
    """Whether an item failed because its keys are, at least in part, on another node of the Cluster."""
    return any(word in text[:200] for word in _REDIRECTS)


class Peer(Protocol):
    """A server, or the way to it, and as whom we speak to it; both for messages."""

    @property
    def address(self) -> str:
        """host:port."""

    @property
    def user(self) -> str:
        """The name in its ACL."""


def translated(
    error: BaseException, peer: Peer, key: str = "", *, doing: str = "", in_script: bool = False
) -> AggregatorError:
    """The error to raise instead; what Redis said stays in its text.

    `doing` is the script or the command.  An error of one item (`in_script`) that names neither a passing state nor
    an ACL comes from a stored value that the script could not use.
    """
    if isinstance(error, AggregatorError):
        return error
    said, address = str(error) or type(error).__name__, peer.address
    if isinstance(error, NoPermissionError) or said.startswith(_NOT_ALLOWED_IN_SCRIPT):
        return not_allowed(peer, said, key, doing)
    refused = _not_let_in(error, peer)
    if refused is not None:
        return refused
    if not isinstance(error, ResponseError) or _passes(error, said):
        return StoreUnavailable(f"Redis at {address}: {said}")
    if "WRONGTYPE" in said or in_script:
        where = f" or a key that belongs to it: {said}" if key else f": {said}"
        if _OTHER_VERSION in said:
            return OtherVersion(f"{key} in Redis at {address}")
        return CorruptState(f"Redis at {address} holds something else than this program wrote in {key}{where}")
    what = f" {doing}" if doing else ""
    return FatalError(f"Redis at {address} refuses{what}: {said}")


def not_allowed(peer: Peer, said: str, key: str, doing: str) -> StoreRefused:
    """A command, or a key, is missing in the ACL of our user."""
    on = f" on {_pattern(key)}" if key else ""
    return StoreRefused(
        f"Redis at {peer.address} does not allow user {peer.user} {doing or 'a command'}{on}: {said.rstrip('.')}; "
        "add it to the ACL, as deploy/redis/users.acl has it"
    )


def _not_let_in(error: BaseException, peer: Peer) -> StoreRefused | None:
    """TLS or the log-in has failed, which redis-py wraps into what also stands for a server that is away."""
    for cause in causes(error):
        if isinstance(cause, AuthenticationError | AuthorizationError):
            return StoreRefused(
                f"Redis at {peer.address} does not let user {peer.user} in: {str(cause).rstrip('.')}; check the user "
                "and password in AGGREGATOR_REDIS__URL, or AGGREGATOR_REDIS__USERNAME and __PASSWORD or __PASSWORD_FILE"
            )
        if isinstance(cause, NoPermissionError):  # of what redis-py asks a Cluster by itself
            return not_allowed(peer, str(cause), "", "CLUSTER SLOTS and COMMAND")
    failure = tls_failure(error)
    if failure is not None:
        return StoreRefused(f"no TLS connection to Redis at {peer.address}: {tls_words(failure, 'redis')}")
    return None


def _pattern(key: str) -> str:
    """A key as an ACL would name it: with neither ids, which are nobody's business in a log, nor numbers."""
    head, braced, _ = key.partition("{")
    return f"{head}{{*}}" if braced else re.sub(r":\d+$", ":*", key)


def _passes(error: ResponseError, said: str) -> bool:
    return (
        isinstance(error, _PASSING_KINDS) or said.startswith(_PASSING) or any(word in said for word in _PASSING_WORDS)
    )
