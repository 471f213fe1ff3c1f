"""How the demo shows sessions: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from decimal import Decimal
from types import TracebackType
from typing import Final, Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from aggregator.embedded.ledger import Figures, sum_of
from aggregator.embedded.watch import Shown

_PLAIN_EVERY_S: Final = 5.0
_ROWS_BESIDE_TABLE: Final = 8  # room for its frame and a few summaries


class Screen(Protocol):
    """Where the demo writes while it runs, from `with` until its end."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None: ...

    def say(self, line: str) -> None:
        """One line of text."""

    def summary(self, summary: Shown) -> None:
        """A session was closed."""

    def sessions(self, opened: Collection[Shown]) -> None:
        """The sessions that are open now; called again and again."""


def screen_for_stdout() -> Screen:
    """The one that fits what stdout is."""
    console = Console()
    return TableScreen(console) if console.is_terminal else LineScreen()


class LineScreen:
    """One line per summary, and now and then one about the open sessions."""

    def __init__(self, *, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._said_at = monotonic_s()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        return None

    def say(self, line: str) -> None:
        """Print it."""
        print(line, flush=True)

    def summary(self, summary: Shown) -> None:
        """Print its figures."""
        self.say(summary_line(summary))

    def sessions(self, opened: Collection[Shown]) -> None:
        """Print how many there are and what they come to, every few seconds."""
        if self._monotonic_s() - self._said_at < _PLAIN_EVERY_S:
            return
        self._said_at = self._monotonic_s()
        figures = sum_of({shown.ref: shown.figures for shown in opened})
        cost = sum((shown.cost_usd for shown in opened), Decimal())
        self.say(f"open    {counted(len(opened), 'session')}: {figures_text(figures, cost)}")


class TableScreen:
    """A table of the open sessions that is drawn anew, with the summaries scrolling by above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._live.update("", refresh=True)
        self._live.__exit__(None, None, None)

    def say(self, line: str) -> None:
        """Print it above the table."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def summary(self, summary: Shown) -> None:
        """Print its figures above the table."""
        self._console.print(Text(summary_line(summary), style="green"))

    def sessions(self, opened: Collection[Shown]) -> None:
        """Draw the table, the youngest session last; those that find no room are counted in its title."""
        room = max(3, self._console.height - _ROWS_BESIDE_TABLE)
        rows = sorted(opened, key=lambda shown: (shown.opened_at, shown.ref))[-room:]
        hidden = len(opened) - len(rows)
        table = Table(title=f"open sessions: {len(opened)}" + (f" ({hidden} not shown)" if hidden else ""))
        for name in ("project", "session", "user", "status"):
            table.add_column(name, no_wrap=True)
        for name in ("duration", "traces", "tokens", "cost", "errors"):
            table.add_column(name, justify="right", no_wrap=True)
        for shown in rows:
            figures = shown.figures
            table.add_row(
                Text(shown.ref.project),
                Text(shown.ref.session_id),
                Text(shown.user_id),
                shown.status,
                _seconds(shown.duration_ms),
                str(figures.traces),
                f"{figures.tokens:,}",
                _dollars(shown.cost_usd),
                Text(str(figures.errors), style="red" if figures.errors else ""),
            )
        self._live.update(table, refresh=True)


def summary_line(summary: Shown) -> str:
    """One line about a closed session."""
    name = f"{summary.ref.project}/{summary.ref.session_id}"
    again = f" (revision {summary.revision})" if summary.revision > 1 else ""
    user = f", user {summary.user_id}" if summary.user_id else ""
    text = figures_text(summary.figures, summary.cost_usd)
    return f"closed  {name}{again}: {_seconds(summary.duration_ms)}, {text}{user}"


def figures_text(figures: Figures, cost_usd: Decimal) -> str:
    """Figures as people read them."""
    parts = (
        counted(figures.traces, "trace"),
        counted(figures.spans, "span"),
        counted(figures.tokens, "token"),
        _dollars(cost_usd),
        counted(figures.errors, "error"),
    )
    return ", ".join(parts)


def counted(number: int, noun: str) -> str:
    """`1 span`, `2 spans`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _seconds(duration_ms: float | None) -> str:
    return "?" if duration_ms is None else f"{duration_ms / 1000:.1f} s"


def _dollars(cost_usd: Decimal) -> str:
    return f"${cost_usd:.4f}"
