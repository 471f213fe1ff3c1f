"""`python -m deploy.generate HELM`: write every file that follows from others."""

from __future__ import annotations

import sys
from pathlib import Path

from deploy.generate.everything import DEPLOY, first, second


def main() -> None:
    """Write what the chart is made of, then what is rendered from the chart."""
    for step in (first, lambda: second(Path(sys.argv[1]))):
        for path, text in step().items():
            place = DEPLOY / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)


if __name__ == "__main__":
    main()
