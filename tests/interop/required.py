"""Programs that a run needs: where one is missing the test is skipped, unless REQUIRE_SERVERS=1 makes that an error."""

from __future__ import annotations

import os
import shutil

import pytest


def require(what: str, *programs: str) -> None:
    """End the test, saying `what` it is that needs these programs, unless all of them are on the PATH."""
    missing = [program for program in programs if shutil.which(program) is None]
    if not missing:
        return
    reason = f"{what} needs {' and '.join(missing)} on the PATH"
    if os.environ.get("REQUIRE_SERVERS") == "1":
        pytest.fail(f"REQUIRE_SERVERS=1, but {reason}", pytrace=False)
    pytest.skip(reason)
