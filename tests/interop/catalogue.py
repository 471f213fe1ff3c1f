"""The producers: a script and, beside it, what must be known to run it and to judge what comes of it.

Adding a producer is adding `producers/<name>.py` (or `.mjs`) and `producers/<name>.toml`; see `Producer`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Self

import pytest

from tests.interop.differences import Difference

FOLDER: Final = Path(__file__).parent / "producers"


@dataclass(frozen=True, kw_only=True)
class Producer:
    """One row of the coverage table.

    `package` is the one whose version is shown, as pinned for `environment`; `apis` are keys of `stubs.APIS`.
    `session`, `user` and `remarks` are cells of the table.  `lacks` names the token details that its spans do not
    tell, `models` maps models that answered to the names that its spans give them, `variables` are further ones of
    its process.  `awaits` says which change of the core its figures wait for; until then its tests must fail.
    """

    name: str
    title: str
    package: str
    environment: str
    apis: tuple[str, ...]
    session: str
    user: str
    remarks: str = ""
    lacks: tuple[str, ...] = ()
    models: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()
    awaits: str = ""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a producer's TOML file; a key that is not known is an error."""
        kept: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
        kept["differences"] = tuple(Difference(**one) for one in kept.get("differences", ()))
        for name in ("apis", "lacks"):
            kept[name] = tuple(kept.get(name, ()))
        return cls(name=path.stem, **kept)

    @property
    def script(self) -> Path:
        """The application."""
        (found,) = (path for path in FOLDER.glob(f"{self.name}.*") if path.suffix in (".py", ".mjs"))
        return found


def producers() -> list[Producer]:
    """All there are, by name."""
    return [Producer.load(path) for path in sorted(FOLDER.glob("*.toml"))]


def each_producer(*, held_to_the_bill: bool) -> pytest.MarkDecorator:
    """Runs a test for every producer; where it is `held_to_the_bill`, what awaits a change must fail until then."""

    def marks(producer: Producer) -> list[pytest.MarkDecorator]:
        if not (held_to_the_bill and producer.awaits):
            return []
        return [pytest.mark.xfail(reason=producer.awaits, strict=True, raises=AssertionError)]

    return pytest.mark.parametrize(
        "producer", [pytest.param(one, id=one.name, marks=marks(one)) for one in producers()]
    )
