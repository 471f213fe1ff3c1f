"""The tables of docs/capacity.md follow from its table of measured figures, by the rules that it gives."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

TEXT: Final = (Path(__file__).parents[2] / "docs/capacity.md").read_text(encoding="utf-8")
BUSY: Final = 0.6
SPANS_A_SESSION: Final = 40
DAY_S: Final = 86_400
IDLE_S: Final = 1_800
SHARD_BYTES: Final = 50e9
INDEXES_KB: Final = 1.0
_UNITS: Final = {"M": 1e6, "G": 1e9, "GB": 1e9, "TB": 1e12}


def table(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    section = TEXT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+) \|$", section, re.MULTILINE)
    return [row.split(" | ") for row in rows[1:]]


def number(cell: str) -> float:
    """`2.1 TB`, `100 000`, `216 M`."""
    found = re.fullmatch(r"([\d. ]+?)(?: (M|G|GB|TB))?", cell)
    assert found, cell
    return float(found[1].replace(" ", "")) * _UNITS.get(found[2] or "", 1)


FIGURES: Final = {row[0]: [number(cell) for cell in row[1:]] for row in table("What it costs")}
WORKER_US, REDIS_US, WORKER_CLOSE_US, REDIS_CLOSE_US, SESSION_KB, SMALL_KB = (
    values[0] for values in list(FIGURES.values())[:6]
)


@pytest.mark.parametrize("row", table("How much of what"), ids=lambda row: row[0])
def test_what_a_load_needs_follows(row: Sequence[str]) -> None:
    spans, workers, partitions, shards, spans_a_day, sessions_a_day, day_bytes, hour_bytes, by_memory = map(number, row)
    assert workers == math.ceil(spans * (WORKER_US + WORKER_CLOSE_US / SPANS_A_SESSION) / 1e6 / BUSY)
    assert partitions == max(3, 2 * workers)
    assert shards == math.ceil(spans * (REDIS_US + REDIS_CLOSE_US / SPANS_A_SESSION) / 1e6 / BUSY)
    assert spans_a_day == pytest.approx(spans * DAY_S, rel=0.05)
    assert sessions_a_day == pytest.approx(spans * DAY_S / SPANS_A_SESSION, rel=0.05)
    for retention_s, said in ((DAY_S, day_bytes), (3_600, hour_bytes)):
        kept = spans / SPANS_A_SESSION * (retention_s + IDLE_S)
        assert said == pytest.approx(kept * SESSION_KB * 1e3, rel=0.05)
    assert by_memory == math.ceil(kept * SESSION_KB * 1e3 / SHARD_BYTES)


def test_what_one_worker_and_one_redis_do_follows() -> None:
    """As the text has them, in round figures."""
    worker, redis = (
        1e6 * BUSY / (span_us + close_us / SPANS_A_SESSION)
        for span_us, close_us in ((WORKER_US, WORKER_CLOSE_US), (REDIS_US, REDIS_CLOSE_US))
    )
    assert f"a worker does {round(worker, -3):,.0f} spans/s".replace(",", " ") in TEXT
    assert f"some {round(redis, -3):,.0f} spans a second by CPU".replace(",", " ") in TEXT
    assert f"(at some {round(redis, -3):,.0f} spans/s)".replace(",", " ") in TEXT


def test_the_table_of_costs_is_the_benchmark_s() -> None:
    bench = (Path(__file__).parents[2] / "bench/README.md").read_text(encoding="utf-8")

    def measured(row: str) -> list[float]:
        (found,) = re.findall(rf"^\| {re.escape(row)} \| (.+) \| (.+) \|$", bench, re.MULTILINE)
        return [float(cell.replace(" ", "")) for cell in found]

    rows = list(FIGURES.values())
    assert rows[0] == [round(value, 1) for value in measured("**whole worker, µs/span**")]
    assert rows[1] == pytest.approx(measured("**its Redis, µs/span**"), abs=0.051)
    assert rows[2] == measured("closing a backlog, worker, µs/session")
    assert rows[3] == measured("closing a backlog, Redis, µs/session")
    sessions = measured("Redis, bytes/session with all of it")
    assert rows[4] == pytest.approx([size / 1e3 + INDEXES_KB for size in sessions], abs=0.1)


@pytest.mark.parametrize("row", table("`maxmemory` for a million sessions"), ids=lambda row: row[0])
def test_maxmemory_follows(row: Sequence[str]) -> None:
    sessions, *said = map(number, row)
    for found, kilobytes in zip(said, (SMALL_KB, SESSION_KB, 4 * SESSION_KB), strict=True):
        assert found == pytest.approx(sessions * kilobytes * 1e3 * 1.25, rel=0.11)


def test_the_chart_asks_for_what_the_text_says() -> None:
    values = (Path(__file__).parents[2] / "deploy/helm/session-aggregator/values.yaml").read_text(encoding="utf-8")
    for asked in ("cpu: 500m", "memory: 256Mi", "memory: 512Mi"):
        assert asked in values
    assert FIGURES["worker, MB of memory, a million open sessions"][0] < 256
