"""`python -m deploy.generate HELM`: write every file that follows from others."""

from __future__ import annotations

import sys
from pathlib import Path

from deploy.generate.everything import DEPLOY, first, second


def main() -> None:
    """Write what the chart is made of, then what is rendered from the chart."""
    _write(first())
    _write(second(Path(sys.argv[1])))


def _write(made: dict[str, str]) -> None:
    for path, text in made.items():
        place = DEPLOY / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


if __name__ == "__main__":
    main()
