"""Who may see what.

Without tokens and without a user header everybody who reaches the server sees everything, so it then serves only the
machine that it runs on.  A token is compared in constant time, and is only ever sent in a header or a cookie.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Sequence
from hashlib import sha256
from typing import Final, NamedTuple

from starlette.requests import HTTPConnection

from aggregator.core.errors import ConfigurationError
from aggregator.settings import WebSettings

COOKIE: Final = "session_aggregator_token"
_SHORTEST_TOKEN: Final = 16
_LOCAL_NAMES: Final = ("localhost", "127.0.0.1", "::1")


class Viewer(NamedTuple):
    """Somebody who may look; `projects` None: all of them."""

    name: str
    projects: tuple[str, ...] | None

    def may_see(self, project: str) -> bool:
        """Whether this project is one of theirs."""
        return self.projects is None or project in self.projects


class _Token(NamedTuple):
    digest: bytes
    projects: tuple[str, ...] | None


class Access:
    """Decides who somebody is."""

    def __init__(self, settings: WebSettings, *, host_from: str = "AGGREGATOR_WEB__HOST") -> None:
        """Raises `ConfigurationError` where strangers could look; `host_from` is where the host was set."""
        self._tokens: Final = _tokens(settings.tokens.get_secret_value() if settings.tokens else "")
        self._user_header: Final = settings.user_header
        self.open: Final = not self._tokens and self._user_header is None
        self.takes_tokens: Final = bool(self._tokens)
        if self.open and not is_loopback(settings.host):
            raise ConfigurationError(
                f"{host_from}: {settings.host} can be reached from elsewhere; set AGGREGATOR_WEB__TOKENS, or "
                "AGGREGATOR_WEB__USER_HEADER behind a proxy that logs users in, or leave it at 127.0.0.1"
            )

    def viewer(self, connection: HTTPConnection) -> Viewer | None:
        """Whoever sent this; None for a stranger."""
        if self.open:
            # A page of elsewhere could have its own name resolved to this machine, and then read what we answer.
            return Viewer("local", None) if _host_name(connection) in _LOCAL_NAMES else None
        if self._user_header is not None and (name := connection.headers.get(self._user_header)):
            return Viewer(name, None)
        scheme, _, given = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = connection.cookies.get(COOKIE, "")
        return self.bearer(given.strip())

    def bearer(self, given: str) -> Viewer | None:
        """Whoever has this token."""
        digest = sha256(given.encode()).digest()
        found = None
        for token in self._tokens:  # all of them, whichever it is
            if hmac.compare_digest(digest, token.digest):
                found = Viewer("token", token.projects)
        return found


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host_name(connection: HTTPConnection) -> str:
    host = connection.headers.get("host", "")
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0].lower()


def _tokens(text: str) -> Sequence[_Token]:
    tokens = []
    for part in filter(None, map(str.strip, text.split(","))):
        token, has_projects, projects = part.partition("=")
        if len(token) < _SHORTEST_TOKEN:
            raise ConfigurationError(
                f"AGGREGATOR_WEB__TOKENS: a token is shorter than {_SHORTEST_TOKEN} characters; make one with "
                "python3 -c 'import secrets; print(secrets.token_urlsafe(24))'"
            )
        names = tuple(filter(None, projects.split("|")))
        if has_projects and not names:
            raise ConfigurationError("AGGREGATOR_WEB__TOKENS: behind a token's = there are projects, parted by |")
        tokens.append(_Token(sha256(token.encode()).digest(), names if has_projects else None))
    return tokens
