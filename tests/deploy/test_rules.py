"""Alerts and objectives: each fires when it should, not when it shouldn't, and leads to a section of the runbook."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.deploy.programs import ROOT, run

RULES: Final = sorted((ROOT / "deploy/prometheus/rules").glob("*.yaml"))
TESTS: Final = sorted((ROOT / "deploy/prometheus/tests").glob("*.yaml"))
RUNBOOK: Final = ROOT / "docs/runbook.md"
QUESTIONS: Final = ("What it means", "What users see", "How to look", "What to do", "When it is over")

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(autouse=True, scope="module")
def promtool() -> None:
    """Debian's Prometheus brings it."""
    if shutil.which("promtool") is None:
        pytest.fail("promtool is missing: apt-get install prometheus", pytrace=False)


def loaded(paths: list[Path]) -> Iterator[dict[str, Any]]:
    for path in paths:
        yield yaml.safe_load(path.read_text())


def alerts() -> dict[str, dict[str, Any]]:
    rules = [rule for file in loaded(RULES) for group in file["groups"] for rule in group["rules"]]
    return {rule["alert"]: rule for rule in rules if "alert" in rule}


def sections() -> dict[str, str]:
    """Anchor -> text of each section of the runbook."""
    parts = re.split(r"^## (.+)$", RUNBOOK.read_text(), flags=re.MULTILINE)[1:]
    anchors = [re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in parts[::2]]
    return dict(zip(anchors, parts[1::2], strict=True))


def test_prometheus_takes_the_rules() -> None:
    run(["promtool", "check", "rules", "--lint-fatal", *RULES])


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_the_rules_do_what_their_tests_say(path: Path) -> None:
    run(["promtool", "test", "rules", path])


def test_each_alert_is_seen_firing_and_not_firing() -> None:
    cases = [case for file in loaded(TESTS) for test in file["tests"] for case in test["alert_rule_test"]]
    fires = {case["alertname"] for case in cases if case["exp_alerts"]}
    rests = {case["alertname"] for case in cases if not case["exp_alerts"]}
    assert fires == rests == alerts().keys()


def test_each_alert_leads_to_a_section_that_answers_all_questions() -> None:
    found = sections()
    for name, rule in alerts().items():
        path, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert ROOT / path == RUNBOOK
        assert anchor in found, f"{name}: the runbook has no section {anchor}"
        missing = [question for question in QUESTIONS if f"**{question}:**" not in found[anchor]]
        assert not missing, f"{anchor} does not say: {missing}"
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_no_section_is_left_over() -> None:
    linked = {rule["annotations"]["runbook"].partition("#")[2] for rule in alerts().values()}
    answering = {anchor for anchor, text in sections().items() if "**What it means:**" in text}
    assert answering == linked
