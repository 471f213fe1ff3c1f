"""The service's objectives as recording rules and multi-window burn-rate alerts, `deploy/prometheus/rules/slo.yaml`.

An objective is met over 30 days.  An alert fires where a long window shows that much of the month's budget is being
spent, and a short one that it still is (Google's SRE Workbook, chapter 5, "Multiwindow, Multi-Burn-Rate Alerts").
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import yaml


class Objective(NamedTuple):
    """A share of events that are to be good; `bad` and `all` are rates over `$window`."""

    name: str
    says: str
    target: float
    bad: str
    total: str
    runbook: str


class Burn(NamedTuple):
    """A speed at which the budget is spent, and how long it is watched."""

    severity: str
    long: str
    short: str
    speed: float
    hold: str


def _slower(histogram: str, bound: str) -> str:
    return f'(sum(rate({histogram}_count[$window])) - sum(rate({histogram}_bucket{{le="{bound}"}}[$window])))'


OBJECTIVES: Final = (
    Objective(
        name="freshness",
        says="99 % of records are visible in Redis within 5 s of their log time",
        target=0.99,
        bad=_slower("aggregator_end_to_end_seconds", "5.0"),
        total="sum(rate(aggregator_end_to_end_seconds_count[$window]))",
        runbook="docs/runbook.md#slo-freshness",
    ),
    Objective(
        name="closing_delay",
        says="99 % of summaries are published within 15 s of their session's falling due",
        target=0.99,
        bad=_slower("aggregator_close_delay_seconds", "15.0"),
        total="sum(rate(aggregator_close_delay_seconds_count[$window]))",
        runbook="docs/runbook.md#slo-closing-delay",
    ),
    Objective(
        name="loss",
        says="99.9 % of records are used whole",
        target=0.999,
        bad='sum(rate(aggregator_records_total{outcome!="applied"}[$window]))',
        total="sum(rate(aggregator_records_total[$window]))",
        runbook="docs/runbook.md#slo-loss",
    ),
)
BURNS: Final = (
    Burn("page", "1h", "5m", 14.4, "2m"),  # 2 % of the month in an hour
    Burn("page", "6h", "30m", 6, "15m"),  # 5 % in six hours
    Burn("ticket", "3d", "6h", 1, "1h"),  # 10 % in three days
)
WINDOWS: Final = ("5m", "30m", "1h", "6h", "3d")
_HEAD: Final = "# Made by `make deploy-files` from deploy/generate/slo.py; edit that.\n"


def rules() -> str:
    """The rule file."""
    records = [_record(objective, window) for objective in OBJECTIVES for window in WINDOWS]
    alerts = [_alert(objective, burn) for objective in OBJECTIVES for burn in BURNS]
    groups = [
        {"name": "session-aggregator-slo-records", "rules": records},
        {"name": "session-aggregator-slo", "rules": alerts},
    ]
    return _HEAD + yaml.safe_dump({"groups": groups}, sort_keys=False, width=120)


def _recorded(objective: Objective, window: str) -> str:
    return f"session_aggregator:{objective.name}_errors:ratio_rate{window}"


def _record(objective: Objective, window: str) -> dict[str, Any]:
    # Without events there is no ratio: NaN compares with nothing, so no alert fires.
    ratio = f"{objective.bad} / {objective.total}".replace("$window", window)
    return {"record": _recorded(objective, window), "expr": ratio}


def _alert(objective: Objective, burn: Burn) -> dict[str, Any]:
    limit = f"{burn.speed:g} * {1 - objective.target:.4g}"
    words = "".join(part.capitalize() for part in objective.name.split("_"))
    return {
        "alert": f"SessionAggregator{words}Burn{burn.long}",
        "expr": f"{_recorded(objective, burn.long)} > {limit} and {_recorded(objective, burn.short)} > {limit}",
        "for": burn.hold,
        "labels": {"severity": burn.severity, "slo": objective.name},
        "annotations": {
            "summary": f"The objective is being missed: {objective.says}",
            "description": f"{{{{ $value | humanizePercentage }}}} of the last {burn.long} were not good.",
            "runbook": objective.runbook,
        },
    }
