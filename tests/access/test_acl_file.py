"""The rights that are shipped are those that the scripts need."""

from __future__ import annotations

import re
from pathlib import Path

from aggregator.adapters.redis import scripts
from tests.access.redis_with_acls import WORKER, rules

LUA = Path(scripts.__file__).parent / "lua"


def test_the_worker_may_call_what_its_scripts_call() -> None:
    called = {name for file in LUA.glob("*.lua") for name in re.findall(r"call\('(\w+)'", file.read_text())}
    assert len(called) > 15
    assert {name.lower() for name in called} <= {rule.removeprefix("+") for rule in rules(WORKER)}
