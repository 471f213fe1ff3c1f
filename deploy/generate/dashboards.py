"""Grafana's dashboards, `deploy/grafana/*.json`, from the tables of `boards_pipeline` and `boards_servers`."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders.common import VizLegendOptions
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh

from deploy.generate.boards_pipeline import OVERVIEW, SESSIONS
from deploy.generate.boards_servers import KAFKA, REDIS
from deploy.generate.panels import Board, Panel

_HEIGHT: Final = 7
_WIDTH: Final = 24
_SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")

BOARDS: Final = (OVERVIEW, SESSIONS, REDIS, KAFKA)


def _own(text: str) -> str:
    return text.replace("{}", '{job="$job"}').replace("{,", '{job="$job",').replace("[RATE]", "[$__rate_interval]")


def dashboard(board: Board) -> str:
    """The JSON that Grafana takes."""
    made = (
        Dashboard(board.title)
        .uid(board.uid)
        .description(board.says)
        .tags(["session-aggregator"])
        .refresh("30s")
        .time("now-3h", "now")
        .readonly()
        .with_variable(DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(
            QueryVariable("job")
            .label("Job")
            .datasource(_SOURCE)
            .query(f"label_values({board.finds}, job)")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        )
    )
    for title, panels in board.rows:
        made = made.with_row(Row(title))
        for panel in panels:
            made = made.with_panel(_built(panel, width=_WIDTH // max(2, min(4, len(panels)))))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def _built(panel: Panel, *, width: int) -> Stat | TimeSeries:
    made: Stat | TimeSeries
    if panel.single:
        made = Stat()
    else:
        legend = VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
        made = TimeSeries().min(0).fill_opacity(10).legend(legend.show_legend(True))
    made = made.title(panel.title).description(panel.says).datasource(_SOURCE).unit(panel.unit)
    made = made.height(_HEIGHT).span(width)
    for number, (legend_format, query) in enumerate(panel.queries):
        target = Dataquery().ref_id(chr(ord("A") + number)).expr(_own(query)).legend_format(legend_format)
        made = made.with_target(target.instant() if panel.single else target)
    return made
