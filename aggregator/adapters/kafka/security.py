"""TLS and log-in, as aiokafka wants them; files are read again for each new connection."""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from aiokafka.abc import AbstractTokenProvider
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection, OAuthAuthenticator
from aiokafka.errors import AuthenticationFailedError, SaslAuthenticationFailed

from aggregator.adapters.tls import RenewedContext, TlsFiles, hear_late_refusal, read_secret
from aggregator.settings import KafkaSettings, variable

OAUTHBEARER: Final = "OAUTHBEARER"
_TLS: Final = ("SSL", "SASL_SSL")
_SASL: Final = ("SASL_PLAINTEXT", "SASL_SSL")
_SYSTEMS_OWN: Final = TlsFiles(group="kafka")
_PASSWORD_FILE: Final = variable("kafka", "sasl_password_file")
_TOKEN_FILE: Final = variable("kafka", "sasl_token_file")


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """How brokers are spoken to, in Kafka's own words; files are PEM, secrets stay out of the representation.

    `sasl_password_file` holds the password instead of `sasl_password`, and `sasl_token_file` the token that
    OAUTHBEARER sends.  Both and those of `tls` are read again for each new connection.
    """

    protocol: str = "PLAINTEXT"
    sasl_mechanism: str = "PLAIN"
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)
    sasl_password_file: Path | None = None
    sasl_token_file: Path | None = None
    tls: TlsFiles = _SYSTEMS_OWN

    @classmethod
    def of(cls, kafka: KafkaSettings) -> Self:
        """What the settings say."""
        return cls(
            protocol=kafka.security_protocol,
            sasl_mechanism=kafka.sasl_mechanism,
            sasl_username=kafka.sasl_username,
            sasl_password=kafka.sasl_password.get_secret_value() if kafka.sasl_password else None,
            sasl_password_file=kafka.sasl_password_file,
            sasl_token_file=kafka.sasl_token_file,
            tls=TlsFiles.of("kafka", kafka),
        )

    @property
    def principal(self) -> str:
        """As whom brokers know us, as far as that can be told from here."""
        if self.protocol in _SASL and self.sasl_mechanism == OAUTHBEARER:
            return f"User:{_subject(self.sasl_token_file)}"
        if self.protocol in _SASL:
            return f"User:{self.sasl_username}"
        if self.protocol in _TLS and self.tls.cert_file is not None:
            return f"the client certificate {self.tls.cert_file}"
        return "User:ANONYMOUS"

    def client_arguments(self) -> dict[str, Any]:
        """Keyword arguments for any of aiokafka's clients; raises `ConfigurationError` for files it can't use.

        Call `renew_password` with what was made of them.
        """
        arguments: dict[str, Any] = {"security_protocol": self.protocol}
        if self.protocol in _TLS:
            arguments["ssl_context"] = RenewedContext(self.tls)
        if self.protocol in _SASL:
            arguments["sasl_mechanism"] = self.sasl_mechanism
            if self.sasl_mechanism == OAUTHBEARER:
                arguments["sasl_oauth_token_provider"] = _TokenFile(self.sasl_token_file)
            else:
                arguments["sasl_plain_username"] = self.sasl_username
                # A client with neither would not be made; where there is a file, `renew_password` puts it in its place.
                arguments["sasl_plain_password"] = self.sasl_password or ""
        return arguments

    def renew_password(self, client: Any) -> None:
        """Let aiokafka's inner client read the password from its file whenever it connects."""
        path = self.sasl_password_file
        if path is not None and self.protocol in _SASL:
            client.__class__ = _RenewingClient
            client._read_password = lambda: _read(path, _PASSWORD_FILE)  # noqa: SLF001

    async def try_connection(self, host: str, port: int, *, timeout_s: float) -> None:
        """Connect and log in once; raises what aiokafka otherwise only writes to the log: its errors and OSErrors."""
        arguments = self.client_arguments()
        if self.sasl_password_file is not None and "sasl_plain_password" in arguments:
            arguments["sasl_plain_password"] = _read(self.sasl_password_file, _PASSWORD_FILE)
        if "ssl_context" in arguments:
            reader, writer = await asyncio.open_connection(host, port, ssl=arguments["ssl_context"])
            try:
                await hear_late_refusal(reader)
            finally:
                writer.close()
        connection = _Connection(host, port, request_timeout_ms=int(timeout_s * 1000), **arguments)
        await connection.connect()
        await connection.close()


class _Connection(AIOKafkaConnection):  # type: ignore[misc]  # aiokafka is untyped
    """One that notices that its token is refused."""

    def authenticator_oauth(self) -> OAuthAuthenticator:
        return _OAuthAuthenticator(sasl_oauth_token_provider=self._sasl_oauth_token_provider)


class _OAuthAuthenticator(OAuthAuthenticator):  # type: ignore[misc]  # aiokafka is untyped
    """aiokafka takes any answer for a yes; a broker that refuses says why (RFC 7628), where it else says nothing."""

    async def step(self, payload: bytes | None) -> tuple[bytes, bool] | None:
        if payload:
            raise SaslAuthenticationFailed(f"the token is refused: {payload.decode(errors='replace')[:200]}")
        sent: tuple[bytes, bool] | None = await super().step(payload)
        return sent


class _RenewingClient(AIOKafkaClient):  # type: ignore[misc]  # aiokafka is untyped
    """aiokafka's inner client, which asks itself for the password at each connection."""

    _read_password: Callable[[], str]

    @property
    def _sasl_plain_password(self) -> str:
        return self._read_password()


class _TokenFile(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka is untyped
    """The token as its file holds it now; whoever issues it replaces the file before the token expires."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    async def token(self) -> str:
        return _read(self._path, _TOKEN_FILE)


def _read(path: Path | None, setting: str) -> str:
    try:
        return read_secret(path or Path())
    except (OSError, ValueError) as error:  # aiokafka lets only its own errors and OSErrors pass for a failed log-in
        raise AuthenticationFailedError(f"{setting}: {path} can't be read: {error}") from error


def _subject(path: Path | None) -> str:
    """Whom a token is about, by its claim `sub`; not checked, since it is only for messages."""
    try:
        claims: object = json.loads(urlsafe_b64decode(read_secret(path or Path()).split(".")[1] + "=="))
        return str(claims["sub"]) if isinstance(claims, Mapping) else "?"
    except (OSError, ValueError, IndexError, KeyError):
        return f"(of the token in {path})"
