"""Which outside servers the tests really ran on, for the one line at the end of a run."""

from __future__ import annotations

from collections import defaultdict

import pytest

_USED = pytest.StashKey[dict[str, set[str]]]()


def note(request: pytest.FixtureRequest, server: str) -> None:
    """Say that the test which asked for this fixture runs on `server`, e.g. `Apache Kafka 4.1.1`."""
    if _USED not in request.config.stash:
        nothing_yet: dict[str, set[str]] = defaultdict(set)
        request.config.stash[_USED] = nothing_yet
    request.config.stash[_USED][server].add(request.node.nodeid)


def line(config: pytest.Config) -> str:
    """`ran on: 41 tests Apache Kafka 4.1.1, 57 Redis 7.0.15`, counting each test once per server."""
    used = config.stash.get(_USED, {})
    if not used:
        return "ran on: no server"
    counts = [
        f"{len(tests)}{' tests' if not index else ''} {name}"
        for index, (name, tests) in enumerate(sorted(used.items()))
    ]
    return "ran on: " + ", ".join(counts)
