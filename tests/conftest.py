"""What every test shares: servers, hypothesis profiles, and the line that says what ran on what."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

from tests import ran_on

_SERVERS = ("redis_servers", "kafka_servers")
pytest_plugins = [f"tests.{name}" for name in _SERVERS if Path(__file__).with_name(f"{name}.py").exists()]

# A deadline per example would make a busy machine a failing test; pytest-timeout bounds each test as a whole.
# Derandomised by default, so that whoever runs the tests sees what the author saw; CI looks further each time.
hypothesis.settings.register_profile("default", deadline=None, derandomize=True, max_examples=100)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=False, max_examples=400, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say in one line which servers the tests ran on."""
    terminalreporter.write_line(ran_on.line(config))
