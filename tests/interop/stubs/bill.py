"""What the APIs of one run charged, by session: the truth that sessions are compared with."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self

SESSION: Final = re.compile(r"\[\[(s-[a-z0-9-]+)\]\]|\bsk-(s-[a-z0-9-]+)")
"""How a stub knows whose request it is: the last `[[s-ada]]` of its body, which is of the latest turn, else its key."""


class Charge(NamedTuple):
    """The figures of one answer; prompt includes what was cached, completion includes reasoning."""

    prompt: int = 0
    completion: int = 0
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0
    embedding: int = 0


@dataclass
class SessionBill:
    """Sums by the model that answered: `calls` and the fields of `Charge`.

    `untold` is the part of `models` whose usage the API did not tell, since it was not asked to.
    """

    models: dict[str, Counter[str]] = field(default_factory=dict)
    untold: dict[str, Counter[str]] = field(default_factory=dict)
    errors: int = 0


class Bill:
    """Filled by the stubs of one run; every answer costs other figures than those before, so that mix-ups show."""

    def __init__(self) -> None:
        self.sessions: dict[str, SessionBill] = {}
        self.strays: list[str] = []
        self._answers = 0
        self._random = random.Random(0)

    def session_of(self, *texts: str) -> str:
        """The session that the first of these texts names last; a request of nobody is a stray, which fails the run."""
        for text in texts:
            if found := SESSION.findall(text):
                marked, key = found[-1]
                return str(marked or key)
        self.strays.append(" ".join(texts)[:500])
        return "s-nobody"

    def charge(
        self,
        session: str,
        model: str,
        *,
        cache_read: bool = True,
        cache_write: bool = False,
        reasoning: bool = True,
        told: bool = True,
    ) -> Charge:
        """Charge one generation; the switches say which details the API knows, and whether it tells the usage."""
        n = self._next()
        charge = Charge(
            prompt=1000 * n + self._random.randrange(1000),
            completion=100 * n + self._random.randrange(100),
            cache_read=cache_read * 64 * n,
            cache_write=cache_write * 32 * n,
            reasoning=reasoning * (8 * n + 1),
        )
        return self._add(session, model, charge, told=told)

    def charge_embedding(self, session: str, model: str) -> Charge:
        """Charge one request for embeddings."""
        return self._add(session, model, Charge(embedding=10 * self._next() + self._random.randrange(10)), told=True)

    def refuse(self, session: str) -> None:
        """Note an error that the API answered with; it costs nothing."""
        self._of(session).errors += 1

    def _next(self) -> int:
        self._answers += 1
        return self._answers

    def _of(self, session: str) -> SessionBill:
        return self.sessions.setdefault(session, SessionBill())

    def _add(self, session: str, model: str, charge: Charge, *, told: bool) -> Charge:
        bill = self._of(session)
        for part in [bill.models] if told else [bill.models, bill.untold]:
            part.setdefault(model, Counter()).update({"calls": 1, **charge._asdict()})
        return charge

    def to_json(self) -> dict[str, Any]:
        """As plain values, without zeros."""
        return {
            session: {
                "models": {model: _nonzero(sums) for model, sums in sorted(bill.models.items())},
                "untold": {model: _nonzero(sums) for model, sums in sorted(bill.untold.items())},
                "errors": bill.errors,
            }
            for session, bill in sorted(self.sessions.items())
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """The bill that `to_json` wrote."""
        bill = cls()
        for session, kept in document.items():
            bill.sessions[session] = SessionBill(
                models={model: Counter(sums) for model, sums in kept["models"].items()},
                untold={model: Counter(sums) for model, sums in kept["untold"].items()},
                errors=kept["errors"],
            )
        return bill


def _nonzero(sums: Counter[str]) -> dict[str, int]:
    return {name: value for name, value in sums.items() if value}
