"""The statements of docs/consume.md in chDB, ClickHouse as a Python package; but the table that reads from Kafka."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest

from tests.consume.documents import last, topic

ROOT: Final = Path(__file__).parents[2]
STATEMENTS: Final = Path(__file__).parent / "consumers" / "clickhouse.sql"
CHDB: Final = "chdb-core==26.9.0"
PROGRAM: Final = """
import json, sys
from chdb.session import Session
*definitions, question, erasure, _ = sys.argv[1].split(";")
clickhouse = Session()
clickhouse.query("CREATE DATABASE consume")
clickhouse.query("USE consume")
for statement in definitions:
    if "ENGINE = Kafka" in statement:  # which chDB can't start
        statement = "CREATE TABLE session_summaries (value String) ENGINE = Null"
    clickhouse.query(statement)
values = sys.stdin.read().splitlines()
for start in range(0, len(values), 100):
    clickhouse.query("INSERT INTO session_summaries FORMAT JSONAsString " + " ".join(values[start : start + 100]))

def ask(sql):
    rows = clickhouse.query(sql.strip(), "JSONEachRow").bytes().decode().splitlines()
    found = [json.loads(row) for row in rows]
    print(json.dumps(found))
    return found

ask("SELECT * FROM sessions FINAL")
dearest = ask(question)[0]["session_id"]
clickhouse.query(erasure.replace("chat-1", dearest))
ask("SELECT session_id FROM sessions FINAL WHERE project = 'shop'")
"""

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]  # the first time it is fetched


@pytest.fixture(scope="session")
def chdb() -> Path:
    """Where it is installed: it takes half a gigabyte, so it is not among the packages that everybody installs."""
    folder = ROOT / ".cache" / CHDB
    if not folder.is_dir():
        command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable, "--no-deps"]
        subprocess.run([*command, "--target", folder, CHDB], check=True)
    return folder


def test_the_table_says_what_the_last_summaries_say(chdb: Path) -> None:
    records = topic(sessions=200, seed=4)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, STATEMENTS.read_text(encoding="utf-8")],
        env={**os.environ, "PYTHONPATH": str(chdb)},
        input=b"\n".join(record.value for record in records),
        stdout=subprocess.PIPE,
        check=True,
    )
    rows, dearest, left = map(json.loads, done.stdout.splitlines())
    wanted = last(records)
    assert {(row["project"], row["session_id"]): json.loads(row["summary"]) for row in rows} == wanted
    for row in rows:
        assert_columns(row, wanted[row["project"], row["session_id"]])
    shop = [one for one in wanted.values() if one["project"] == "shop" and one["trace_count"]]
    shop.sort(key=lambda one: float(one["cost_usd"]), reverse=True)
    assert [row["session_id"] for row in dearest] == [one["session_id"] for one in shop[:10]]
    there = {row["session_id"] for row in rows if row["project"] == "shop"}
    assert {row["session_id"] for row in left} == there - {shop[0]["session_id"]}


def assert_columns(row: dict[str, Any], document: dict[str, Any]) -> None:
    for name in ("user_id", "revision", "trace_count", "error_count"):
        assert str(row[name]) == str(document[name]), name  # ClickHouse writes 64 bits in quotes
    assert int(row["total_tokens"]) == document["tokens"]["total"]
    assert float(row["cost_usd"]) == float(document["cost_usd"])
    for name in ("opened_at", "started_at", "ended_at"):
        written = None if row[name] is None else datetime.fromisoformat(f"{row[name]}Z")
        assert written == (None if document[name] is None else datetime.fromisoformat(document[name])), name
