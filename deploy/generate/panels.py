"""What dashboards are described with.

In PromQL `{}` stands for the selector of the chosen job and `[RATE]` for Grafana's window for rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Panel(NamedTuple):
    """One panel: what it answers, its queries as (legend, PromQL), and the unit of its values."""

    title: str
    unit: str
    queries: Sequence[tuple[str, str]]
    says: str = ""
    single: bool = False


class Board(NamedTuple):
    """One dashboard: rows of panels; `finds` is a metric that only its targets have."""

    uid: str
    title: str
    says: str
    finds: str
    rows: Sequence[tuple[str, Sequence[Panel]]]


def quantiles(histogram: str, by: str = "") -> list[tuple[str, str]]:
    labels = f"le,{by}" if by else "le"
    return [
        (
            f"{{{{{by}}}}} {share * 100:g} %" if by else f"{share * 100:g} %",
            f"histogram_quantile({share}, sum by ({labels}) (rate({histogram}_bucket{{}}[RATE])))",
        )
        for share in (0.5, 0.99)
    ]
