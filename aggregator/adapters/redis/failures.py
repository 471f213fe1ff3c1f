"""What Redis says when it fails, as errors that say what to do about it."""

from __future__ import annotations

from typing import Final

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

from aggregator.core.errors import (
    AggregatorError,
    ConfigurationError,
    CorruptState,
    FatalError,
    OtherVersion,
    StoreUnavailable,
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
_REDIRECTS: Final = (b"MOVED", b"ASK", b"TRYAGAIN", b"non local key", b"same slot")


def is_redirect(text: bytes) -> bool:
    """Whether an item failed because its keys are, at least in part, on another node of the Cluster."""
    return any(word in text[:200] for word in _REDIRECTS)


def translated(
    error: BaseException, address: str, key: str = "", *, script: str = "", in_script: bool = False
) -> AggregatorError:
    """The error to raise instead; what Redis said stays in its text, and `address` says which server did.

    An error of one item (`in_script`) that names no passing state comes from a stored value that the script could not
    use.
    """
    if isinstance(error, AggregatorError):
        return error
    said = str(error) or type(error).__name__
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError):
        return ConfigurationError(
            f"AGGREGATOR_REDIS__URL: Redis at {address} refuses us: {said}; check its user and password"
        )
    if not isinstance(error, ResponseError) or _passes(error, said):
        return StoreUnavailable(f"Redis at {address}: {said}")
    if "WRONGTYPE" in said or in_script:
        where = f" or a key that belongs to it: {said}" if key else f": {said}"
        if _OTHER_VERSION in said:
            return OtherVersion(f"{key} in Redis at {address}")
        return CorruptState(f"Redis at {address} holds something else than this program wrote in {key}{where}")
    what = f" {script}.lua" if script else ""
    return FatalError(f"Redis at {address} refuses{what}: {said}")


def _passes(error: ResponseError, said: str) -> bool:
    return (
        isinstance(error, _PASSING_KINDS) or said.startswith(_PASSING) or any(word in said for word in _PASSING_WORDS)
    )
