"""The option, and the table at the end of an interop run."""

from __future__ import annotations

import pytest

from tests.interop import results
from tests.interop.catalogue import producers

ROWS = pytest.StashKey[list[results.Row]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Known only where tests/interop is named on the command line, as `make interop` does."""
    parser.addoption("--recapture", action="store_true", help="keep the spans of this run in tests/interop/captured")


@pytest.fixture
def rows(request: pytest.FixtureRequest) -> list[results.Row]:
    """Where a run puts its row."""
    return request.config.stash.setdefault(ROWS, [])


@pytest.fixture
def recapture(request: pytest.FixtureRequest) -> bool:
    """Whether spans are to be kept."""
    return bool(request.config.getoption("--recapture", default=False))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table and keep the rows of what passed."""
    if ROWS not in config.stash:
        return
    rows: list[results.Row] = config.stash[ROWS]
    found = sorted(rows, key=lambda row: row.name)
    results.keep(found, [producer.name for producer in producers()])
    terminalreporter.section("interop")
    for line in results.table(found):
        terminalreporter.write_line(line)
