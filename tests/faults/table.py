"""The table of a long run: what each fault came to, over all runs that held it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Final

from tests.faults.catalogue import FAULTS
from tests.faults.outcome import Outcome
from tests.faults.scenes import SCENES

_HEAD: Final = (
    "| fault | what the user sees | alone | mixed | recovery alone | longest mixed | sessions | spans lost | "
    "counted twice | summaries missing | needless summaries |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


class Tally:
    """Adds up outcomes by the faults that led to them."""

    def __init__(self) -> None:
        self._whole = Outcome()
        self._faults = 0
        self._runs: Counter[bool] = Counter()  # by whether there was one fault alone
        self._runs_of: Counter[tuple[str, bool]] = Counter()
        self._outcomes: defaultdict[str, Outcome] = defaultdict(Outcome)
        self._recovery_s: Counter[tuple[str, bool]] = Counter()

    def add(self, names: Collection[str], found: Outcome, *, alone: bool) -> None:
        """One run with faults of these names, each as often as it was done."""
        self._whole.add(found)
        self._faults += len(names)
        self._runs[alone] += 1
        for name in set(names):
            self._outcomes[name].add(found)
            self._runs_of[name, alone] += 1
            took_s = found.recovery_s.get(name, 0.0)
            self._recovery_s[name, alone] = max(took_s, self._recovery_s[name, alone])  # type: ignore[assignment]

    def table(self) -> str:
        """Markdown: a sentence with the totals, and a row per fault."""
        whole = self._whole
        totals = (
            f"{self._runs[True]} faults alone and {self._runs[False]} mixed schedules, {self._faults} faults in all, "
            f"{whole.spans} spans, {whole.sessions} sessions; "
            f"{whole.lost} spans lost, {whole.twice} counted twice, {whole.missing} summaries missing."
        )
        rows = [self._row(one.name, one.sees) for one in FAULTS.values() if one.name in self._outcomes]
        rows += [self._row(one.name, one.sees) for one in SCENES.values() if one.name in self._outcomes]
        return "\n".join([totals, "", _HEAD, *rows, ""])

    def _row(self, name: str, sees: str) -> str:
        found = self._outcomes[name]
        runs = [self._runs_of[name, alone] for alone in (True, False)]
        times = [
            f"{self._recovery_s[name, alone]:.1f} s" if self._runs_of[name, alone] else "–" for alone in (True, False)
        ]
        figures = (found.sessions, found.lost, found.twice, found.missing, found.needless)
        return f"| {' | '.join(map(str, (name, sees, *runs, *times, *figures)))} |"


def enter(file: Path, name: str, table: str) -> None:
    """Put the table between its marks in a document."""
    begin, end = f"<!-- {name} -->\n", "<!-- end -->"
    head, found, rest = file.read_text(encoding="utf-8").partition(begin)
    if not found:
        raise ValueError(f"{file} has no {begin.strip()}")
    file.write_text(f"{head}{begin}{table}{end}{rest.partition(end)[2]}", encoding="utf-8")
