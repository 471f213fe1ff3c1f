"""Whatever is asked of the API, the answer is one that its document tells of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.heavy.conftest import in_a_thread
from tests.redis_servers import RedisServer, redis_servers_available
from tests.web.shop import stock, web


@pytest.mark.timeout(900)
def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    """The stream of changes has no end and is left out; it is tested for itself."""
    server = RedisServer(next(iter(redis_servers_available().values())))
    try:
        in_a_thread(stock(server.url))
        with web(server.url) as at:
            ended = subprocess.run(
                [
                    *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{at}/api/v1/openapi.json"),
                    *(
                        "--exclude-path",
                        "/api/v1/changes",
                        "--max-examples",
                        "60",
                        "--seed",
                        "1",
                        "--no-color",
                        "--request-timeout",
                        "60",
                    ),
                ],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=800,
                check=False,
            )
    finally:
        server.remove()
    assert ended.returncode == 0, ended.stdout[-8000:] + ended.stderr[-2000:]
