"""The kinds of values that settings have: closed sets of words, lists, addresses, files, secrets."""

from __future__ import annotations

import re
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, Secret

from aggregator.core.conventions import SESSION_ID, USER_ID


class _Word(StrEnum):
    """One of a few words, in any case."""

    @classmethod
    def _missing_(cls, value: object) -> _Word | None:
        return next((word for word in cls if word.casefold() == str(value).casefold()), None)


class Encoding(_Word):
    """How record values are read."""

    AUTO = "auto"
    OTLP_PROTO = "otlp_proto"
    OTLP_JSON = "otlp_json"


class SecurityProtocol(_Word):
    """How brokers are spoken to, in Kafka's own words."""

    PLAINTEXT = "PLAINTEXT"
    SSL = "SSL"
    SASL_PLAINTEXT = "SASL_PLAINTEXT"
    SASL_SSL = "SASL_SSL"


class SaslMechanism(_Word):
    """The log-in mechanisms: with a user name and a password, or with a token."""

    PLAIN = "PLAIN"
    SCRAM_SHA_256 = "SCRAM-SHA-256"
    SCRAM_SHA_512 = "SCRAM-SHA-512"
    OAUTHBEARER = "OAUTHBEARER"


class OnStateLoss(_Word):
    """What to do when Redis holds no progress for a partition that the group had read."""

    REWIND = "rewind"
    CONTINUE = "continue"


class LogLevel(_Word):
    """The least severe log line that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(_Word):
    """How log lines look; `auto` is text on a terminal, else JSON."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"


class RedisUrl(Secret[str]):
    """A Redis URL whose password is shown as `***` everywhere but in `get_secret_value()`."""

    def _display(self) -> str:
        value = self.get_secret_value()
        head, found, rest = value.rpartition("@")
        scheme, _, credentials = head.partition("://")
        if "password=" in value:
            return f"{scheme if found else value.partition('://')[0]}://***"
        if not found or ":" not in credentials:
            return value
        return f"{scheme}://{credentials.partition(':')[0]}:***@{rest}"


def _parts(value: object) -> object:
    """Cut comma-separated text; blanks around the parts and empty parts go."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _checked(pattern: str, wanted: str) -> AfterValidator:
    """Refuse a text that does not match as a whole."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(f"must be {wanted}")
        return value

    return AfterValidator(check)


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"must be a regular expression: {error}") from error
    return value


_SENTINEL: Final = r"(\[[0-9A-Fa-f:.]+\]|[^\s:/,@\[\]]+)(:\d{1,5})?"
_SENTINEL_URL: Final = re.compile(
    rf"rediss?\+sentinel://([^\s/]*@)?{_SENTINEL}(,{_SENTINEL})*/[^\s/?#]+(/\d*)?(\?[^\s#]*)?"
)


def _redis_url(value: RedisUrl) -> RedisUrl:
    text = value.get_secret_value()
    try:
        if _SENTINEL_URL.fullmatch(text):
            return value
        parts = urlsplit(text)
        if parts.scheme in ("redis", "rediss") and parts.hostname and parts.port != 0:
            return value
        if parts.scheme == "unix" and parts.path:
            return value
    except ValueError:
        pass  # falls through to the same sentence; the text may hold a password and is not repeated
    raise ValueError(
        "must be redis://, rediss:// (TLS) or unix:// and an address, or "
        "redis+sentinel://host:26379,host2:26379/mymaster/0"
    )


def _file(value: Path) -> Path:
    try:
        with value.open("rb"):
            return value
    except OSError as error:
        raise ValueError(f"must be a readable file: {error.strerror}") from error


def _read_attributes(value: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what nothing is read from: ignoring it would do nothing, so it is a typing error."""
    known = (*SESSION_ID, *USER_ID)
    for name in value:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"that is {', '.join(known)}"
            raise ValueError(f"must be attributes that a session or user is read from ({name!r} is none; {hint})")
    return value


Topic = Annotated[str, _checked(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}", "a Kafka topic name (letters, digits, . _ -)")]
Server = Annotated[str, _checked(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/]+):\d{1,5}", "host:port")]
CommaSeparated = BeforeValidator(_parts)
Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], CommaSeparated]
IgnoredNames = Annotated[Names, AfterValidator(_read_attributes)]
FilePath = Annotated[Path, AfterValidator(_file)]
Seconds = Annotated[float, Field(gt=0, le=315_576_000, allow_inf_nan=False)]
RegularExpression = Annotated[str, Field(min_length=1), AfterValidator(_pattern)]
HttpUrl = Annotated[str, _checked(r"https?://[^\s/]+\S*", "a URL that begins with http:// or https://")]
RedisAddress = Annotated[RedisUrl, AfterValidator(_redis_url)]
KeyPrefix = Annotated[str, _checked(r"[A-Za-z0-9._~:@-]{1,64}", "1 to 64 of A-Z a-z 0-9 . _ ~ : @ -")]
