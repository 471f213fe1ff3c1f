"""What the demo's traffic truly sent, kept apart from anything the worker computes, and the comparison of the two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from aggregator.core.model import SessionRef


class Figures(NamedTuple):
    """What one session, or all of them, came to; tokens include those read from a cache and those of reasoning."""

    traces: int = 0
    spans: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    embedding_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens

    def plus(self, other: Figures) -> Figures:
        """The sums, figure by figure."""
        return Figures(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


@dataclass(slots=True)
class Ledger:
    """The true figures of every session, entered by whoever simulates the calls, as a provider would bill them."""

    sessions: dict[SessionRef, Figures] = field(default_factory=dict)
    users: dict[SessionRef, str] = field(default_factory=dict)

    def enter(self, ref: SessionRef, figures: Figures) -> None:
        """Add figures to a session."""
        self.sessions[ref] = self.sessions.get(ref, Figures()).plus(figures)

    def total(self) -> Figures:
        """The sum over all sessions."""
        return sum_of(self.sessions)


def sum_of(sessions: Mapping[SessionRef, Figures]) -> Figures:
    """The sum over some sessions."""
    total = Figures()
    for figures in sessions.values():
        total = total.plus(figures)
    return total


def differences(sent: Mapping[SessionRef, Figures], seen: Mapping[SessionRef, Figures]) -> list[str]:
    """One line per session that was sent and is not seen as it was sent; other sessions are not looked at."""
    lines = []
    for ref, figures in sent.items():
        found = seen.get(ref)
        if found is None:
            lines.append(f"{ref.project}/{ref.session_id}: missing")
        elif found != figures:
            pairs = zip(Figures._fields, figures, found, strict=True)
            wrong = ", ".join(f"{name} {had} sent, {got} seen" for name, had, got in pairs if had != got)
            lines.append(f"{ref.project}/{ref.session_id}: {wrong}")
    return lines
