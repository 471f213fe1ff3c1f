"""Other versions of this program: copies of the package, changed as a release that changes the state would change it.

`LATER` writes trace states and sessions in a format of its own and reads today's as well.  `BETWEEN` reads both and
writes today's: the release that comes before it, as docs/upgrade.md has them.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import aggregator

LATER_FORMAT: Final = 5

_SCRIPTS: Final = "adapters/redis/lua"


class Change(NamedTuple):
    """What replaces a text, which must stand exactly once in that file."""

    path: str
    old: str
    new: str


_READS_BOTH: Final = (
    Change("core/state.py", "if data and data[0] != _FORMAT and", "if data and data[0] not in (4, 5) and"),
    Change(
        "core/state.py", "    if reader.varint() != _FORMAT:\n", "    if (number := reader.varint()) not in (4, 5):\n"
    ),
    Change(
        "core/state.py",
        "    state.truncated = reader.varint() == 1\n",
        "    state.truncated = reader.varint() == 1\n    if number == 5:\n        assert reader.take(3) == b'new'\n",
    ),
    *(
        Change(f"{_SCRIPTS}/{name}.lua", "assert(#state == ENDED,", "assert(#state == ENDED or state[ENDED + 1] == 7,")
        for name in ("session_put", "session_claim", "session_settle")
    ),
)
_WRITES_LATER: Final = (
    Change("core/state.py", "_FORMAT: Final = 4", f"_FORMAT: Final = {LATER_FORMAT}"),
    Change(
        "core/state.py",
        "    out.append(u8(1 if state.truncated else 0))\n",
        "    out.append(u8(1 if state.truncated else 0))\n    out.write(b'new')\n",
    ),
    *(
        Change(
            f"{_SCRIPTS}/{name}.lua",
            "format('[%d,%d,%d,%d,%d,%d,%d,%d,%s,%s]'",
            "format('[%d,%d,%d,%d,%d,%d,%d,%d,%s,%s,7]'",
        )
        for name in ("session_put", "session_claim", "session_settle")
    ),
)
BETWEEN: Final = _READS_BOTH
LATER: Final = (*_READS_BOTH, *_WRITES_LATER)


def made(changes: Sequence[Change], folder: Path) -> dict[str, str]:
    """Write that version into `folder`; the environment in which `python -m aggregator` is it."""
    package = folder / "aggregator"
    # Without what was compiled, which would hide the changed source.
    shutil.copytree(Path(aggregator.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for change in changes:
        text = (package / change.path).read_text(encoding="utf-8")
        assert text.count(change.old) == 1, f"{change.path} has changed: {change.old!r} is not there once"
        (package / change.path).write_text(text.replace(change.old, change.new), encoding="utf-8")
    return {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}  # or the checkout would come first


def format_of(state: bytes) -> int:
    """The format of a trace state as it lies in Redis, behind its stamp."""
    found = re.match(rb"\S+ (.)", state, re.DOTALL)
    assert found
    return found[1][0]
