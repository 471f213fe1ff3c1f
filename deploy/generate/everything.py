"""Every file that follows from others, as path below `deploy/` -> text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from deploy.generate import dashboards, kustomize, slo, values_schema

DEPLOY: Final = Path(__file__).parents[1]
CHART: Final = "helm/session-aggregator"


def first() -> dict[str, str]:
    """What follows from code and from hand-written files: the chart is made of it."""
    rules = {"alerts.yaml": (DEPLOY / "prometheus/rules/alerts.yaml").read_text(), "slo.yaml": slo.rules()}
    made = {f"{CHART}/values.schema.json": _json(values_schema.schema())}
    made["prometheus/rules/slo.yaml"] = rules["slo.yaml"]
    boards = {f"{board.uid}.json": dashboards.dashboard(board) for board in dashboards.BOARDS}
    made |= {f"grafana/{name}": text for name, text in boards.items()}
    # A chart can only hold what lies in its own folder.
    made |= {f"{CHART}/files/prometheus/{name}": text for name, text in rules.items()}
    made |= {f"{CHART}/files/grafana/{name}": text for name, text in boards.items()}
    return made


def second(helm: Path) -> dict[str, str]:
    """What is rendered from the chart."""
    return {f"kustomize/{path}": text for path, text in kustomize.files(helm, DEPLOY / CHART).items()}


def _json(content: Any) -> str:
    return json.dumps(content, indent=2) + "\n"
