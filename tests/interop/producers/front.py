"""How the first service of producers with two reaches the second one, which it starts."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from pathlib import Path

from opentelemetry import propagate


class Backend:
    """The process of `backend.py`."""

    def __init__(self, *options: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("backend.py")), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ
            | {"OTEL_RESOURCE_ATTRIBUTES": os.environ["OTEL_RESOURCE_ATTRIBUTES"].replace("=shop,", "=backend,")},
        )
        assert self._process.stdout is not None
        self._url = f"http://127.0.0.1:{int(self._process.stdout.readline())}/ask"

    def ask(self, question: str) -> None:
        """Ask it in the current trace."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        headers: dict[str, str] = {}
        propagate.inject(headers)
        request = urllib.request.Request(self._url, question.encode(), headers)
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60).close()

    def stop(self) -> None:
        """Let it export what it has and end."""
        self._process.communicate(timeout=60)
        assert self._process.returncode == 0
