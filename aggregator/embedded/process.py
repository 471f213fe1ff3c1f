"""Child processes of the demo and of tests: started, watched until they answer, stopped by their pid.

No child outlives its parent, however that ends: beside each child stands a shell that waits for the parent's end of
a pipe to close and then kills the child.  (Linux could do it with PR_SET_PDEATHSIG; the pipe works on macOS too.)
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import Final

LOCALHOST: Final = "127.0.0.1"

# Below those that a system gives to outgoing connections and to servers that take any: one of them would be taken by
# the next connection while its server is being started again.
_PORTS: Final = range(15_000, 32_000)
_FIRST: Final = secrets.randbelow(len(_PORTS))  # so that processes side by side keep apart
_next_ports: Final[Iterator[int]] = cycle((*_PORTS[_FIRST:], *_PORTS[:_FIRST]))

_POLL_S: Final = 0.02
_STOP_GRACE_S: Final = 5.0

# Reading a line means that the child was stopped as planned; end of file means that the parent is gone.
_WATCHDOG: Final = 'trap "" INT TERM HUP; read -r _ || kill -9 "$0"'


class EmbeddedError(RuntimeError):
    """Something embedded can't run here; the text says what to do."""


class NotAnsweringError(EmbeddedError):
    """A child ended, or did not answer in time; the text ends with its last log lines."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago, and that this process has not been given before.

    Another process may take it before it is used, hence `EmbeddedServer` tries again with another one.
    """
    for _ in _PORTS:
        port = next(_next_ports)
        with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((LOCALHOST, port))
            return port
    raise EmbeddedError(f"no port of {LOCALHOST} from {_PORTS.start} to {_PORTS.stop - 1} can be had")


class ChildProcess:
    """One child process with its output in a log file.

    It is bound to no event loop, so that a fixture of one loop may start what another stops.
    `environment` replaces the inherited one where given.  The child gets a session of its own: Ctrl-C reaches the
    parent alone, which stops its children in the right order.
    """

    def __init__(
        self, name: str, argv: Sequence[str], *, log_path: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log_path = log_path
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the program is one of ours, the arguments are no shell's
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=None if environment is None else dict(environment),
                start_new_session=True,
            )
        self._watchdog = subprocess.Popen(  # noqa: S603 - a constant script, its only argument is a pid
            ["/bin/sh", "-c", _WATCHDOG, str(self.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """How the child ended (a signal is negative), None while it runs."""
        return self._process.poll()

    def log_tail(self, lines: int = 15) -> str:
        """The last lines that the child wrote."""
        with suppress(OSError):
            return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])
        return ""

    def log_end(self) -> str:
        """The end of an error's text: where the log is and what it ends with."""
        return f"; the end of its log {self.log_path}:\n{self.log_tail() or '(empty)'}"

    async def stop(self, *, grace_s: float = _STOP_GRACE_S) -> int:
        """End the child with SIGTERM, with SIGKILL after `grace_s`; returns its exit code.  May be repeated."""
        try:
            if self._process.poll() is None:
                self._process.terminate()
                with suppress(TimeoutError):
                    await self._ended(grace_s)
        finally:
            if self._process.poll() is None:
                self._process.kill()
            code = self._process.wait()
            self._dismiss_watchdog()
        return code

    async def _ended(self, timeout_s: float) -> None:
        async with asyncio.timeout(timeout_s):
            while self._process.poll() is None:  # noqa: ASYNC110 - a process sets no event
                await asyncio.sleep(_POLL_S)

    def _dismiss_watchdog(self) -> None:
        pipe = self._watchdog.stdin
        if pipe is not None and not pipe.closed:
            with suppress(BrokenPipeError):
                pipe.write(b"stopped\n")
                pipe.close()
        self._watchdog.wait()


async def wait_until_answering(
    child: ChildProcess, answers: Callable[[], Awaitable[bool]], *, timeout_s: float
) -> None:
    """Ask until `answers` says yes; raise `NotAnsweringError` once the child has ended or the time is over."""
    deadline = time.monotonic() + timeout_s
    while not await answers():
        code = child.exit_code()
        if code is not None:
            raise NotAnsweringError(f"{child.name} ended with exit code {code}{child.log_end()}")
        if time.monotonic() > deadline:
            raise NotAnsweringError(f"{child.name} did not answer within {timeout_s:g} s{child.log_end()}")
        await asyncio.sleep(_POLL_S)


async def stop_within(seconds: float, stopping: Coroutine[object, object, object]) -> None:
    """Give a client so long to stop, whose server may be gone; what goes wrong meanwhile is of no interest."""
    task = asyncio.ensure_future(stopping)
    done, _ = await asyncio.wait((task,), timeout=seconds)
    if not done:
        task.cancel()
        await asyncio.wait((task,), timeout=1)
    elif not task.cancelled():
        task.exception()  # so that it does not count as never looked at
