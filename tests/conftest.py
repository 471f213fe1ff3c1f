"""What every test shares: servers, hypothesis profiles, and the line that says what ran on what."""

from __future__ import annotations

import os
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


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Count which servers tests really get."""
    server = yield
    ran_on.note(fixturedef.argname, server, request)
    return server


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say in one line which servers the tests ran on."""
    terminalreporter.write_line(ran_on.line(config))
