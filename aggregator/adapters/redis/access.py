"""Who we are to Redis, and over which TLS; files are read again for each new connection."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from ssl import SSLContext
from typing import Any, Final, Protocol, Self
from urllib.parse import urlsplit

from redis.asyncio import RedisCluster
from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError

from aggregator.adapters.tls import RenewedContext, TlsFiles, hear_late_refusal, read_secret
from aggregator.settings import RedisSettings, variable

_SYSTEMS_OWN: Final = TlsFiles(group="redis")
_PASSWORD_FILE: Final = variable("redis", "password_file")
_CUT_OFF_S: Final = 2.0
"""A connection that has to be made anew this soon may have been refused."""


class _Makes(Protocol):
    """What makes connections: a pool, or a node of a Cluster."""

    connection_class: Any
    connection_kwargs: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What the settings say beside the URL."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    password_file: Path | None = None
    tls: TlsFiles = _SYSTEMS_OWN

    @classmethod
    def of(cls, redis: RedisSettings) -> Self:
        """What the settings say."""
        return cls(
            username=redis.username,
            password=redis.password.get_secret_value() if redis.password else None,
            password_file=redis.password_file,
            tls=TlsFiles.of("redis", redis),
        )

    def grant(self, url: str, *makers: _Makes, login: bool = True) -> None:
        """Have these connect with this log-in and this TLS; what is not given here stays as the URL has it.

        TLS options within the URL stay redis-py's business, which reads their files once.
        """
        parts = urlsplit(url)
        renewed = parts.scheme.startswith("rediss") and "ssl_" not in parts.query
        context = RenewedContext(self.tls) if renewed else None
        for maker in makers:
            maker.connection_class = _over(maker.connection_class, context, maker.connection_kwargs)
            if login:
                self._log_in(maker.connection_kwargs)

    def _log_in(self, arguments: dict[str, Any]) -> None:
        username = self.username or arguments.get("username")
        password = self.password or arguments.get("password")
        if self.username or self.password or self.password_file:
            arguments.update(username=None, password=None)
            arguments["credential_provider"] = Login(username, password, self.password_file)


class NodesToCome:
    """The nodes that a Cluster's client will yet hear of."""

    def __init__(self, client: RedisCluster) -> None:
        self.connection_kwargs: dict[str, Any] = client.connection_kwargs

    @property
    def connection_class(self) -> Any:
        """The kind of their connections, which redis-py keeps among their arguments."""
        return self.connection_kwargs["connection_class"]

    @connection_class.setter
    def connection_class(self, kind: Any) -> None:
        self.connection_kwargs["connection_class"] = kind


def user_of(arguments: Mapping[str, Any]) -> str:
    """As whom connections with these arguments log in."""
    login = arguments.get("credential_provider")
    return (login.username if isinstance(login, Login) else arguments.get("username")) or "default"


class Login(CredentialProvider):
    """User and password, the latter from a file if there is one."""

    def __init__(self, username: str | None, password: str | None, file: Path | None) -> None:
        self.username: Final = username
        self._password = password
        self._file = file

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """See redis-py."""
        password = self._password or ""
        if self._file is not None:
            try:
                password = read_secret(self._file)
            except (OSError, ValueError) as error:
                raise AuthenticationError(f"{_PASSWORD_FILE}: {self._file} can't be read: {error}") from error
        return (self.username, password) if self.username else (password,)


class _TlsConnection(Connection):
    """Over a context of ours; redis-py would read the files once for each of its connections."""

    def __init__(self, *, tls_context: SSLContext, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._tls_context = tls_context
        self._connected_s = float("-inf")

    async def _connect(self) -> None:
        await super()._connect()  # type: ignore[no-untyped-call]  # redis-py leaves it without types
        before_s, self._connected_s = self._connected_s, asyncio.get_running_loop().time()
        if self._connected_s - before_s >= _CUT_OFF_S or self._reader is None:
            return
        try:
            await hear_late_refusal(self._reader)
        except OSError:
            await self.disconnect(nowait=True)  # redis-py would wait for the end, which raises this once more
            raise

    def _connection_arguments(self) -> dict[str, Any]:
        return {**super()._connection_arguments(), "ssl": self._tls_context}


class _GuardedTlsConnection(_TlsConnection, SentinelManagedConnection):
    """The same to the master that Sentinels name."""


_RENEWED: Final = {SSLConnection: _TlsConnection, SentinelManagedSSLConnection: _GuardedTlsConnection}


def _over(kind: type, context: SSLContext | None, arguments: dict[str, Any]) -> type:
    """The kind of connection to make; changes its arguments."""
    renewed = _RENEWED.get(kind)
    if renewed is None or context is None:
        return kind
    for name in [name for name in arguments if name.startswith("ssl_")]:
        del arguments[name]
    arguments["tls_context"] = context
    return renewed
