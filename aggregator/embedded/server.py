"""What the embedded broker and the embedded Valkey have in common: a child that serves one port of 127.0.0.1."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from aggregator.embedded.process import LOCALHOST, ChildProcess, NotAnsweringError, free_port, wait_until_answering

_PORT_ATTEMPTS: Final = 5


class EmbeddedServer:
    """A server of its own on 127.0.0.1, from `async with` until its end.

    `port` None takes a free one.  `log_dir` keeps the server's log; without it the log is gone with the server.
    Entering raises `EmbeddedError` where the package is missing, and `NotAnsweringError` with the server's last log
    lines where it does not come up, as with a given port that is taken.
    """

    start_timeout_s: float = 20.0  # a cold disk has to read the program first

    def __init__(self, *, port: int | None = None, log_dir: Path | None = None) -> None:
        self._wanted_port = port
        self._log_dir = log_dir
        self._own_dir: tempfile.TemporaryDirectory[str] | None = None
        self._child: ChildProcess | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """Where it listens; 0 before it is entered."""
        return self._port

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{LOCALHOST}:{self._port}"

    @property
    def pid(self) -> int:
        """Its process id; 0 while it does not run."""
        return self._child.pid if self._child else 0

    @property
    def child(self) -> ChildProcess:
        """Its process; there is none before it is entered and after it is stopped."""
        assert self._child is not None  # noqa: S101 - narrows the type
        return self._child

    async def __aenter__(self) -> Self:
        try:
            await self._start()
            await self.prepare()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """End the server; what it held is gone with it.  May be repeated."""
        if self._child is not None:
            await self._child.stop()
            self._child = None
        if self._own_dir is not None:
            self._own_dir.cleanup()
            self._own_dir = None

    def launch(self, port: int, log_dir: Path) -> ChildProcess:
        """Start the program on that port, with its log in that directory."""
        raise NotImplementedError

    async def answers(self, child: ChildProcess, port: int) -> bool:
        """Whether this very child answers on the port, and not somebody else's server."""
        raise NotImplementedError

    async def prepare(self) -> None:
        """What is left to do once it answers."""

    async def _start(self) -> None:
        for attempt in range(_PORT_ATTEMPTS):
            self._port = free_port() if self._wanted_port is None else self._wanted_port
            self._child = child = self.launch(self._port, self._directory())
            try:
                answers = partial(self.answers, child, self._port)
                await wait_until_answering(child, answers, timeout_s=self.start_timeout_s)
            except NotAnsweringError:
                # It ended at once: perhaps somebody was quicker to take the port, and another one is free.
                if self._wanted_port is not None or child.exit_code() is None or attempt == _PORT_ATTEMPTS - 1:
                    raise
                await child.stop()
            else:
                return

    def _directory(self) -> Path:
        if self._log_dir is not None:
            return self._log_dir
        if self._own_dir is None:
            self._own_dir = tempfile.TemporaryDirectory(prefix="session-aggregator-")
        return Path(self._own_dir.name)
