"""docs/upgrade.md says which formats this version reads and writes, and what it says when it meets another."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from aggregator.core.errors import OtherVersion
from aggregator.core.state import TraceState, encode_state
from aggregator.telemetry import package_version

ROOT: Final = Path(__file__).parents[2]
TEXT: Final = (ROOT / "docs/upgrade.md").read_text(encoding="utf-8")
ROWS: Final = [row.split(" | ") for row in re.findall(r"^\| (\S+ \| .+) \|$", TEXT, re.MULTILINE)][1:]


def test_the_last_row_is_this_version() -> None:
    _, _, trace, _, session, summary = ROWS[-1]
    assert int(trace) == encode_state(TraceState(b"x" * 16))[0]
    written: set[int] = set()
    for name in ("session_put", "session_claim", "session_settle"):
        text = (ROOT / f"aggregator/adapters/redis/lua/{name}.lua").read_text(encoding="utf-8")
        written |= {place.count("%") for place in re.findall(r"format\('\[([%d,s]+)\]'", text)}
    assert written == {int(session)}
    assert summary == "`session-summary/1`"


def test_the_first_row_is_the_first_release() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert ROWS[0][0] == re.findall(r"^## \[([\d.]+)\]", changelog, re.MULTILINE)[-1]
    assert package_version() in {row[0] for row in ROWS}


def test_what_it_says_is_what_is_shown() -> None:
    (shown,) = re.findall(r"^```\n(.+)\n```$", TEXT, re.MULTILINE)
    assert shown == str(OtherVersion(shown.partition(" was written by")[0]))
