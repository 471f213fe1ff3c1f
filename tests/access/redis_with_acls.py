"""Redis with TLS and the users of deploy/redis/users.acl."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from aggregator.embedded.process import free_port
from tests.certificates import Authority
from tests.redis_servers import Cluster, RedisServer

ROOT: Final = Path(__file__).parents[2]
WORKER: Final = "sessions"
VIEWER: Final = "viewer"


def rules(user: str) -> list[str]:
    """What deploy/redis/users.acl says of a user, without the name."""
    lines = (ROOT / "deploy/redis/users.acl").read_text().splitlines()
    (found,) = [line.split()[2:] for line in lines if line.split()[:2] == ["user", user]]
    return found


def allow(place: RedisServer | Cluster, user: str, password: str, *more: str) -> None:
    """Make the user as it is shipped, with a password; `more` rules come last, as in `-hset`."""
    for node in place.nodes if isinstance(place, Cluster) else [place]:
        with node.client() as client:
            client.execute_command("ACL", "SETUSER", user, "reset", *rules(user), "on", f">{password}", *more)


def tls_options(authority: Authority, port: int, *, ask: bool = False) -> tuple[str, ...]:
    """What has a server speak TLS on that port, and ask for a client certificate if wanted."""
    chain, key, _ = authority.issue(f"redis-{port}", "localhost", "127.0.0.1")
    return (
        *("--tls-port", str(port), "--tls-cert-file", str(chain), "--tls-key-file", str(key)),
        *("--tls-ca-cert-file", str(authority.file), "--tls-auth-clients", "yes" if ask else "no"),
    )


class TlsRedis(RedisServer):
    """A server with a TLS port; its plain port is for tests to look with."""

    def __init__(self, program: str, authority: Authority, *, ask: bool = False) -> None:
        self.tls_port = free_port()
        self.authority = authority
        super().__init__(program, *tls_options(authority, self.tls_port, ask=ask))

    @property
    def tls_url(self) -> str:
        return f"rediss://localhost:{self.tls_port}/0"

    def show(self, chain: Path, key: Path) -> None:
        """Show another certificate from now on."""
        with self.client() as client:
            client.config_set("tls-cert-file", str(chain), "tls-key-file", str(key))

    def hang_up(self) -> None:
        """End all connections but that of this call."""
        with self.client() as client:
            plain: Any = client
            plain.client_kill_filter(_type="normal", skipme=True)
