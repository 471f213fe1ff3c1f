"""A real PostgreSQL for tests, on loopback, with its data in a directory that goes with it.

Debian's package is used where it is installed; with REQUIRE_SERVERS=1 a missing one is an error.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from aggregator.embedded.process import free_port

START_TIMEOUT_S: Final = 30.0
_SETTINGS: Final = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}


def _programs() -> Path | None:
    """The directory of the newest PostgreSQL's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if found:
        return found[-1]
    on_path = shutil.which("postgres")
    return Path(on_path).resolve().parent if on_path else None


class PostgreSQL:
    """One server process; it refuses to run as root, and then runs as `postgres`."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._as: dict[str, Any] = {}
        self._directory = Path(tempfile.mkdtemp(prefix="postgresql-test-"))
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(self._directory, user.pw_uid, user.pw_gid)
        self.port = free_port()
        self._run("initdb", "--no-sync", "--auth=trust", "--username=test", "--encoding=UTF8", "--locale=C.UTF-8")
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://test@127.0.0.1:{self.port}/postgres"

    @property
    def version(self) -> str:
        with psycopg.connect(self.url) as database:
            return f"PostgreSQL {database.info.parameter_status('server_version')}".partition(" (")[0]

    def start(self) -> None:
        """Start, or start again on the same port and data."""
        settings = [f"--{name}={value}" for name, value in {**_SETTINGS, "port": self.port}.items()]
        self._process = subprocess.Popen(
            [self._programs / "postgres", "-D", self._directory / "data", *settings],
            cwd=self._directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self._as,
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL in {self._directory} did not start: {self._process.poll()}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), "-D", str(self._directory / "data"), *arguments]
        done = subprocess.run(command, cwd=self._directory, capture_output=True, text=True, check=False, **self._as)
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stdout}{done.stderr}")

    def stop(self) -> None:
        """Cut all connections and end it."""
        self._run("pg_ctl", "stop", "--mode=fast")
        self._process.wait()

    def remove(self) -> None:
        """Stop for good."""
        if self._process.poll() is None:
            self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)


@pytest.fixture(scope="session")
def _postgresql() -> Iterator[PostgreSQL]:
    programs = _programs()
    if programs is None:
        if os.environ.get("REQUIRE_SERVERS") == "1":
            pytest.fail("REQUIRE_SERVERS=1 asks for PostgreSQL: apt-get install postgresql", pytrace=False)
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    server = PostgreSQL(programs)
    yield server
    server.remove()


@pytest.fixture
def postgresql(_postgresql: PostgreSQL) -> PostgreSQL:
    """A server without any table."""
    with psycopg.connect(_postgresql.url) as database:
        database.execute("DROP SCHEMA public CASCADE")
        database.execute("CREATE SCHEMA public")
    return _postgresql
