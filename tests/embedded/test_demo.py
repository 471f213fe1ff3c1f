"""The demo as a user sees it: a process that starts everything, shows it, compares, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

PROGRAM = "import asyncio, sys; from aggregator.embedded.demo import demo; sys.exit(asyncio.run(demo({})))"
TOTAL = re.compile(
    r"total   (?P<sent>\d+) sessions? sent \((?P<closed>\d+) closed, (?P<open>\d+) open\), (?P<traces>[\d,]+) traces, "
    r"(?P<spans>[\d,]+) spans, (?P<tokens>[\d,]+) tokens, \$[\d.]+, \d+ errors?; "
    r"(?P<others>\d+ sessions? of other applications; )?Redis and summaries equal what was sent"
)


@contextmanager
def running(arguments: str, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """The demo with its temporary files in `directory`; killed if it is still there in the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(directory)},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def read_until(process: subprocess.Popen[str], pattern: str) -> str:
    """What the demo prints up to a line with the pattern."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if re.search(pattern, line):
            return seen
    raise AssertionError(f"no {pattern!r} in:\n{seen}")


def send_own_span(endpoint: str) -> None:
    """What an application of the user's own sends."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces")))
    with provider.get_tracer("own").start_as_current_span("turn", attributes={"session.id": "mine"}):
        pass
    provider.shutdown()


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for listing in found for child in listing.read_text().split()]


def runs(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and " Z " not in status.read_text()


def test_fifteen_seconds_end_with_totals_that_agree(tmp_path: Path) -> None:
    with running("seconds=15, http_port=0", tmp_path) as demo:
        introduction = read_until(demo, "after their last activity")
        started = children(demo.pid)
        endpoint = re.search(r"OTEL_EXPORTER_OTLP_ENDPOINT=(http://127.0.0.1:\d+) ", introduction)
        assert endpoint
        send_own_span(endpoint[1])
        assert (
            introduction.count("http://", 0, introduction.index(f"{endpoint[1]} ")) == 1
        )  # the web view's comes first
        page = re.search(r"^See the sessions at (http://127.0.0.1:\d+/) ", introduction, re.MULTILINE)
        assert page
        seen = read_until(demo, "^open    ")
        while "id=mine" not in httpx.get(page[1], timeout=10).text:  # the first such line may still tell of no session
            seen += read_until(demo, "^open    ")
        out, err = demo.communicate(timeout=90)
    assert (demo.returncode, err) == (0, "")
    assert "redis-cli -p " in introduction
    *lines, last = (seen + out).splitlines()
    total = TOTAL.fullmatch(last)
    assert total, last
    assert int(total["closed"]) == int(total["sent"]) > 3
    assert total["others"] == "1 session of other applications; "
    assert any(line.startswith("closed  default/mine: ") for line in lines)
    assert sum(line.startswith("closed  ") for line in lines) >= int(total["closed"])
    assert not [pid for pid in started if runs(pid)]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_it_with_totals(tmp_path: Path, signal_number: signal.Signals) -> None:
    with running("seconds=None, http_port=0", tmp_path) as demo:
        read_until(demo, r"^open    [1-9]\d* sessions?")
        demo.send_signal(signal_number)
        out, err = demo.communicate(timeout=60)
    assert (demo.returncode, err) == (0, "")
    total = TOTAL.fullmatch(out.splitlines()[-1])
    assert total, out
    assert int(total["open"]) > 0
    assert list(tmp_path.iterdir()) == []


def test_a_taken_port_is_told_and_an_early_interruption_ends_it(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as collector,
        running(f"seconds=None, http_port={collector.getsockname()[1]}", tmp_path) as demo,
    ):
        introduction = read_until(demo, "after their last activity")
        demo.send_signal(signal.SIGINT)
        out, _ = demo.communicate(timeout=60)
    told = re.search(r"^Port (\d+) is taken .*; OTLP is received on (\d+) instead", introduction, re.MULTILINE)
    assert told
    assert f"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:{told[2]} " in introduction
    assert demo.returncode == 0
    assert out.splitlines()[-1] == "Stopped before the worker was ready."
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_dies_is_told_with_its_log(tmp_path: Path) -> None:
    with running("seconds=None, http_port=0", tmp_path) as demo:
        introduction = read_until(demo, r"^         log ")
        pid = re.search(r"python -m aggregator run, pid (\d+)", introduction)
        log = re.search(r"log (\S+)", introduction)
        assert pid
        assert log
        read_until(demo, r"^open    ")
        os.kill(int(pid[1]), signal.SIGKILL)
        _, err = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert f"the worker ended with exit code -9; the end of its log {log[1]}:\n" in err
    written = Path(log[1]).read_text().splitlines()
    assert written, "the worker says at least that it started"
    assert err.rstrip().endswith(written[-1].rstrip())


def test_without_its_packages_it_says_what_to_install(tmp_path: Path) -> None:
    program = "import sys; sys.modules['rich'] = sys.modules['rich.console'] = None\n" + PROGRAM.format("seconds=1")
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "pip install 'session-aggregator[demo]'" in ended.stderr
    assert list(tmp_path.iterdir()) == []
