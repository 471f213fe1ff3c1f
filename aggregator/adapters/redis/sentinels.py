"""The way to a single server that Sentinels watch: they are asked for the master at every new connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.sentinel import Sentinel

from aggregator.adapters.redis.access import user_of
from aggregator.adapters.redis.failures import translated
from aggregator.adapters.redis.wire import FOREIGN, closed_is_lost
from aggregator.core.errors import StoreRefused, StoreUnavailable

SCHEMES: Final = ("redis+sentinel", "rediss+sentinel")
_PORT: Final = 26379
_TLS: Final = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs")
_OPTIONS: Final = ("sentinel_username", "sentinel_password", *_TLS)


def guarded(url: str, shared: dict[str, Any]) -> tuple[Redis, Sentinel]:
    """Clients for `redis+sentinel://user:password@host:26379,host2:26379/mymaster/0`; nothing is connected yet.

    User and password are those of the servers; `?sentinel_username=…&sentinel_password=…` are the Sentinels' own.
    With `rediss+sentinel` both are spoken to over TLS.  `shared` are further arguments of the servers' connections.
    Raises ValueError for a URL that looks otherwise.
    """
    parts = urlsplit(url)
    name, _, database = parts.path.strip("/").partition("/")
    options = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    if parts.scheme not in SCHEMES or not name or not set(options) <= set(_OPTIONS):
        raise ValueError("not a URL of Sentinels")
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, found, password = credentials.partition(":")
    login: dict[str, Any] = {"username": unquote(username) or None, "password": unquote(password) if found else None}
    tls: dict[str, Any] = {"ssl": True} if parts.scheme == "rediss+sentinel" else {}
    tls |= {key: value for key, value in options.items() if key in _TLS}
    timeouts = {key: value for key, value in shared.items() if key.startswith("socket_")}
    own = {key: options.get(f"sentinel_{key}") for key in ("username", "password")}
    sentinel = Sentinel(_addresses(hosts), sentinel_kwargs={**timeouts, **tls, **own, "protocol": 2})  # type: ignore[no-untyped-call]
    # A connection that was cut by a failover is made anew to the new master; what it takes is told as a failure.
    client: Redis = sentinel.master_for(unquote(name), db=int(database or 0), **login, **tls, **shared)
    return client, sentinel


def addresses(sentinel: Sentinel) -> str:
    """The Sentinels, for people."""
    found = [client.connection_pool.connection_kwargs for client in sentinel.sentinels]
    return ",".join(f"{one['host']}:{one['port']}" for one in found)


class _Asked(NamedTuple):
    """One Sentinel, for messages."""

    address: str
    user: str


async def why_no_master(sentinel: Sentinel, address: str) -> StoreUnavailable:
    """Ask each Sentinel once more: redis-py keeps of its failures only that there were some."""
    said = []
    for client in sentinel.sentinels:
        settings = client.connection_pool.connection_kwargs
        place = f"{settings['host']}:{settings['port']} (a Sentinel, whose log-in is sentinel_username and _password)"
        try:
            with closed_is_lost():
                await client.sentinel_masters()
        except FOREIGN as error:
            found = translated(error, _Asked(place, user_of(settings)))
            if isinstance(found, StoreRefused):
                return found
            said.append(str(found))
    return StoreUnavailable(f"Redis at {address}: {'; '.join(said) or 'no Sentinel names a master that is up'}")


def _addresses(hosts: str) -> Sequence[tuple[str, int]]:
    found = []
    for host in hosts.split(","):
        one = urlsplit(f"//{host}")
        if not one.hostname:
            raise ValueError("a Sentinel without a host")
        found.append((one.hostname, one.port or _PORT))
    return found
