"""TLS whose files are read again when they have changed, so that certificates rotate without a restart."""

from __future__ import annotations

import asyncio
import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from aggregator.core.errors import ConfigurationError, causes
from aggregator.settings import KafkaSettings, RedisSettings
from aggregator.telemetry import Event, get_logger

log = get_logger()

_LATE_REFUSAL_S: Final = 0.2
_NO_TLS: Final = ("wrong version number", "record layer failure", "packet length too long")


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """What a client's TLS is made of; files are PEM, without `ca_file` the system's authorities are trusted.

    `group` is that of the settings that name them, `kafka` or `redis`, for messages.
    """

    group: str
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    key_password: str | None = field(default=None, repr=False)
    check_hostname: bool = True

    @classmethod
    def of(cls, group: str, settings: KafkaSettings | RedisSettings) -> Self:
        """What the settings of that group say."""
        password = settings.ssl_key_password
        return cls(
            group=group,
            ca_file=settings.ssl_ca_file,
            cert_file=settings.ssl_cert_file,
            key_file=settings.ssl_key_file,
            key_password=password.get_secret_value() if password else None,
            check_hostname=settings.ssl_check_hostname,
        )

    def context(self) -> ssl.SSLContext:
        """A context of the files as they are now; raises `ConfigurationError` for files it can't use."""
        prefix = f"AGGREGATOR_{self.group.upper()}__SSL"
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:  # an SSLError is one
            raise ConfigurationError(f"{prefix}_CA_FILE: {self.ca_file} can't be used: {error}") from error
        context.check_hostname = self.check_hostname
        if self.cert_file is not None:
            try:
                # Without a password OpenSSL would ask for one on the terminal.
                context.load_cert_chain(self.cert_file, self.key_file, self.key_password or "")
            except OSError as error:
                raise ConfigurationError(
                    f"{prefix}_CERT_FILE, __SSL_KEY_FILE, __SSL_KEY_PASSWORD: {self.cert_file} can't be used: {error}"
                ) from error
        return context

    def stamp(self) -> tuple[object, ...]:
        """Changes when one of the files has been written or replaced; None stands for one that is not there."""
        return tuple(_stamp(path) for path in (self.ca_file, self.cert_file, self.key_file) if path is not None)


class RenewedContext(ssl.SSLContext):
    """A context that hands each new connection to one of the files as they are then.

    Event loops ask a context for nothing but `wrap_bio`, once a connection.  OpenSSL can add to what a context trusts
    and not take away, so changed files make a new context.  While they can't be used (they are being replaced one
    after the other) the last one that could goes on, and the log says so once for each change.
    """

    _files: TlsFiles
    _current: ssl.SSLContext
    _stamp: tuple[object, ...]

    def __new__(cls, files: TlsFiles) -> RenewedContext:
        self = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        self._files, self._stamp = files, files.stamp()
        self._current = files.context()
        return self

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        """See `SSLContext.wrap_bio`."""
        self._renew()
        return self._current.wrap_bio(*arguments, **named)

    def _renew(self) -> None:
        stamp = self._files.stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp  # taken before the files are read: a change in between is seen the next time
        try:
            self._current = self._files.context()
        except ConfigurationError as error:
            log.warning(Event.TLS_FILES_UNUSABLE, error=str(error))
        else:
            log.info(Event.TLS_FILES_RENEWED, server=self._files.group)


def read_secret(path: Path) -> str:
    """The first line of a file that holds a password or a token; raises OSError and, where it is empty, ValueError."""
    text = path.read_text(encoding="utf-8").partition("\n")[0].strip()
    if not text:
        raise ValueError(f"{path} is empty")
    return text


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - of what a link leads to, which is what an orchestrator replaces
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


async def hear_late_refusal(stream: asyncio.StreamReader) -> None:
    """Raise what the server says of our certificate, if it does so at once and we say nothing meanwhile.

    In TLS 1.3 a server looks at the client's certificate after the client takes the handshake for done.  A first
    command that crosses its refusal has the connection reset, and why is lost.  So whoever has been cut off right
    after a handshake connects once more and waits.
    """
    await asyncio.sleep(_LATE_REFUSAL_S)
    error = stream.exception()
    if error is not None:
        raise error


def tls_failure(error: BaseException) -> ssl.SSLError | None:
    """What TLS had to say among the causes of an error."""
    return next((cause for cause in causes(error) if isinstance(cause, ssl.SSLError)), None)


def tls_words(error: ssl.SSLError, group: str) -> str:
    """A failure of TLS in words that say whose fault it may be, and which setting to look at."""
    prefix = f"AGGREGATOR_{group.upper()}__SSL"
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message.rstrip(".")
        return f"its certificate is not trusted here ({why}); check {prefix}_CA_FILE and the address"
    said = (error.reason or str(error)).lower().replace("_", " ")
    if any(words in said for words in _NO_TLS):
        return f"it speaks no TLS on this port ({said})"
    return f"it ended the TLS handshake ({said}); check {prefix}_CERT_FILE and {prefix}_KEY_FILE"
