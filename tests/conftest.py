"""What every test shares: servers, hypothesis profiles, and the line that says what ran on what."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from typing import Any

import hypothesis
import pytest

from tests import ran_on

pytest_plugins = ["tests.redis_servers", "tests.kafka_servers", "tests.postgresql_server"]

# A deadline per example would make a busy machine a failing test; pytest-timeout bounds each test as a whole.
# Derandomised by default, so that whoever runs the tests, CI as well, sees what the author saw.  To look further each
# time: make test ARGS=tests/core with HYPOTHESIS_PROFILE=wide in the environment.
hypothesis.settings.register_profile("default", deadline=None, derandomize=True, max_examples=100)
hypothesis.settings.register_profile("wide", deadline=None, derandomize=False, max_examples=400, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# A shell that runs the tests in the background lets them ignore Ctrl-C, and all that they start would as well.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Count which servers tests really get."""
    server = yield
    ran_on.note(fixturedef.argname, server, request)
    return server


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In one of several processes that share the tests: tell the first one which servers they got."""
    if (told := getattr(session.config, "workeroutput", None)) is not None:
        ran_on.tell(session.config, told)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what such a process tells; one that died has told nothing."""
    ran_on.take(node.config, getattr(node, "workeroutput", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say in one line which servers the tests ran on."""
    terminalreporter.write_line(ran_on.line(config))
