"""Hands over to the command line: `python -m aggregator COMMAND`."""

from __future__ import annotations

from aggregator.cli import app


def main() -> None:
    """Entry point of `session-aggregator`."""
    app(prog_name="session-aggregator")


if __name__ == "__main__":
    main()
