"""The table of a long run: what each fault came to, over all schedules that held it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.faults.catalogue import FAULTS
from tests.faults.outcome import Outcome
from tests.faults.schedules import Schedule

_HEAD = (
    "| fault | what the user sees | schedules | longest recovery | sessions | spans lost | counted twice | "
    "summaries missing | needless summaries |\n|---|---|---|---|---|---|---|---|---|"
)


class Tally:
    """Adds up outcomes by the faults of their schedules."""

    def __init__(self) -> None:
        self._whole = Outcome()
        self._by_fault: dict[str, Outcome] = {}
        self._schedules: Counter[str] = Counter()
        self._runs = 0
        self._faults = 0

    def add(self, schedule: Schedule, found: Outcome) -> None:
        """One schedule that was carried out."""
        self._whole.add(found)
        self._runs += 1
        self._faults += len(schedule.faults)
        for name in {fault.name for _, fault in schedule.faults}:
            self._by_fault.setdefault(name, Outcome()).add(found)
            self._schedules[name] += 1

    def table(self) -> str:
        """Markdown: a sentence with the totals, and a row per fault."""
        whole = self._whole
        totals = (
            f"{self._runs} schedules, {self._faults} faults, {whole.spans} spans, {whole.sessions} sessions; "
            f"{whole.lost} spans lost, {whole.twice} counted twice, {whole.missing} summaries missing."
        )
        lines = [totals, "", _HEAD]
        for name in FAULTS:
            if (found := self._by_fault.get(name)) is not None:
                figures = (found.sessions, found.lost, found.twice, found.missing, found.needless)
                recovery_s = found.recovery_s.get(name, 0.0)
                cells = [name, FAULTS[name].sees, self._schedules[name], f"{recovery_s:.1f} s", *figures]
                lines.append(f"| {' | '.join(map(str, cells))} |")
        return "\n".join([*lines, ""])


def enter(file: Path, name: str, table: str) -> None:
    """Put the table between its marks in a document."""
    begin, end = f"<!-- {name} -->\n", "<!-- end -->"
    head, found, rest = file.read_text(encoding="utf-8").partition(begin)
    if not found:
        raise ValueError(f"{file} has no {begin.strip()}")
    file.write_text(f"{head}{begin}{table}{end}{rest.partition(end)[2]}", encoding="utf-8")
