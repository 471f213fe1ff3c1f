"""The README names what there is, and all that there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from aggregator.settings import variables
from aggregator.telemetry import Metrics
from tests.docs import settings_page

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = (
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/assistants.md",
    "docs/configuration.md",
    "docs/events.md",
    "docs/instrument.md",
    "docs/security.md",
    "skills/session-ids/SKILL.md",
    "tests/interop/README.md",
)
VARIABLE = re.compile(r"AGGREGATOR_[A-Z0-9_]+")
ROW = re.compile(r"^\| `(AGGREGATOR_[A-Z0-9_]+)` \|([^|]*)\|", re.MULTILINE)

# What users were promised; a rename here breaks every deployment.
PROMISED = {
    "AGGREGATOR_KAFKA__BOOTSTRAP_SERVERS": "localhost:9092",
    "AGGREGATOR_KAFKA__TOPICS": "otlp_spans",
    "AGGREGATOR_KAFKA__GROUP_ID": "session-aggregator",
    "AGGREGATOR_KAFKA__SUMMARY_TOPIC": "session_summaries",
    "AGGREGATOR_KAFKA__DEAD_LETTER_TOPIC": "otlp_spans_dead_letter",
    "AGGREGATOR_REDIS__URL": "redis://localhost:6379/0",
    "AGGREGATOR_REDIS__KEY_PREFIX": "agg",
    "AGGREGATOR_SESSION__IDLE_TIMEOUT_S": "1800",
    "AGGREGATOR_SESSION__MAX_DURATION_S": "86400",
    "AGGREGATOR_SESSION__RETENTION_S": "86400",
    "AGGREGATOR_SESSION__LATE_TTL_S": "86400",
    "AGGREGATOR_SESSION__UNCLAIMED_TTL_S": "3600",
    "AGGREGATOR_SESSION__ALLOWED_SKEW_S": "10",
    "AGGREGATOR_SESSION__CLOSING_SHARDS": "64",
    "AGGREGATOR_SESSION__MAX_TRACE_SPANS": "10000",
    "AGGREGATOR_SESSION__MAX_SESSION_TRACES": "1000",
    "AGGREGATOR_REDIS__ON_STATE_LOSS": "rewind",
    "AGGREGATOR_KAFKA__DEAD_LETTER_MAX_CONSECUTIVE": "1000",
    "AGGREGATOR_SHUTDOWN__GRACE_S": "25",
    "AGGREGATOR_HTTP__HOST": "0.0.0.0",  # noqa: S104 - nothing is bound here
    "AGGREGATOR_HTTP__PORT": "9464",
    "AGGREGATOR_LOG__LEVEL": "info",
    "AGGREGATOR_LOG__FORMAT": "auto",
    "AGGREGATOR_PRICING__ENABLED": "true",
}


def default(name: str) -> str:
    """The default of a setting as one would write it into the environment."""
    return settings_page.default(*variables()[name])


def test_every_variable_that_is_named_exists() -> None:
    assert set(VARIABLE.findall(README)) <= variables().keys()


def test_the_table_has_the_defaults() -> None:
    table = {name: cell.strip().strip("`") for name, cell in ROW.findall(README)}
    assert table == {name: default(name) for name in table}
    assert len(table) > 10


def test_promised_settings_keep_their_names_and_defaults() -> None:
    assert {name: default(name) for name in PROMISED} == PROMISED


def test_every_metric_that_is_named_exists_and_every_own_one_is_named() -> None:
    registry = CollectorRegistry()
    Metrics(registry, monotonic_s=lambda: 0.0)
    suffixes = {"counter": "_total", "info": "_info"}
    exposed = {
        family.name + suffixes.get(family.type, "")
        for family in registry.collect()
        if family.name.startswith("aggregator_")
    }
    assert set(re.findall(r"`(aggregator_[a-z_]+)", README)) == exposed


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_between_documents_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", text):
        assert ((ROOT / name).parent / target).exists(), target


@pytest.mark.parametrize("name", DOCUMENTS)
def test_make_targets_that_are_named_exist(name: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", (ROOT / name).read_text(encoding="utf-8")))
    assert named <= targets


@pytest.mark.parametrize("name", DOCUMENTS)
def test_markdown_has_one_sentence_a_line(name: str) -> None:
    text = re.sub(r"^```.*?^```", "", (ROOT / name).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    prose = [re.sub(r"^\d\. ", "", line) for line in text.splitlines() if not line.startswith("|")]
    assert [line for line in prose if re.search(r"[.!?] [A-Z*`\[]", line)] == []
