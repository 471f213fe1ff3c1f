"""What is generated: code blocks, the README's coverage table, settings, events, the skill's references.

`make docs` writes them; a test fails where they are not what would be written.
A code block under `<!-- producers/<file>#<region> -->` shows the lines of that producer between `docs: begin <region>`
and the next `docs: end`, less the marks by which the stubs tell sessions apart; `consumers/` is the same.
Each section of docs/instrument.md is a reference of the skill as well.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.docs import events_page, settings_page
from tests.interop import results
from tests.interop.catalogue import FOLDER, producers
from tests.interop.results import Row

ROOT: Final = Path(__file__).parents[2]
INSTRUMENT: Final = ROOT / "docs" / "instrument.md"
CONSUME: Final = ROOT / "docs" / "consume.md"
FOLDERS: Final = {"producers": FOLDER, "consumers": ROOT / "tests" / "consume" / "consumers"}
README: Final = ROOT / "README.md"
CONFIGURATION: Final = ROOT / "docs" / "configuration.md"
EVENTS: Final = ROOT / "docs" / "events.md"
REFERENCES: Final = ROOT / "skills" / "session-ids" / "references"

_BLOCK: Final = re.compile(
    r"^(<!-- (producers|consumers)/(\S+)#(\S+) -->)\n(?:```\w*\n.*?^```\n)?", re.MULTILINE | re.DOTALL
)
_REGION: Final = re.compile(
    r"^ *(?:#|//|--) docs: begin (\S+)\n(.*?)^ *(?:#|//|--) docs: end$", re.MULTILINE | re.DOTALL
)
_MARK: Final = re.compile(r" ?\[\[s-[a-z0-9-]+\]\]")
_TABLE: Final = re.compile(r"(<!-- coverage: begin -->\n).*?(<!-- coverage: end -->)", re.DOTALL)
_LANGUAGES: Final = {".py": "python", ".mjs": "js", ".sql": "sql"}


def regions(path: Path) -> dict[str, str]:
    """The marked lines of a file, by region, as documents show them."""
    found = {}
    for name, lines in _REGION.findall(path.read_text(encoding="utf-8")):
        shown = "\n".join(line for line in lines.splitlines() if "docs: " not in line)
        shown = re.sub(r"  # (?:noqa|type: ignore).*", "", _MARK.sub("", shown))
        assert name not in found, f"{path.name} has two regions {name}"
        found[name] = textwrap.dedent(shown).strip("\n")
    return found


def all_regions() -> set[str]:
    """Every region that there is, as `<folder>/<file>#<region>`."""
    files = [(kind, path) for kind, folder in FOLDERS.items() for path in folder.iterdir()]
    return {f"{kind}/{path.name}#{name}" for kind, path in files if path.suffix in _LANGUAGES for name in regions(path)}


def with_code(text: str) -> str:
    """The text with its code blocks as they should be."""

    def block(found: re.Match[str]) -> str:
        path = FOLDERS[found[2]] / found[3]
        return f"{found[1]}\n```{_LANGUAGES[path.suffix]}\n{regions(path)[found[4]]}\n```\n"

    return _BLOCK.sub(block, text)


def references(text: str) -> dict[str, str]:
    """The skill's references by file name: each section of docs/instrument.md by itself."""
    found: dict[str, str] = {}
    above = ""
    for level, title, body in _sections(text):
        name = f"{re.sub('[^a-z0-9]+', '-', title.lower()).strip('-')}.md"
        above = above if level == "###" else f"[{title}]({name})"
        goes_on = f"This goes on from {above}.\n\n" if level == "###" else ""
        code = re.sub(r"^<!-- producers/.*\n", "", body, flags=re.MULTILINE).strip()
        found[name] = f"<!-- Made of docs/instrument.md by `make docs`. -->\n\n# {title}\n\n{goes_on}{code}\n"
    return found


def _sections(text: str) -> list[tuple[str, str, str]]:
    """Level, title and body of each section; a line of code is no heading."""
    found: list[tuple[str, str, str]] = []
    in_code = False
    for line in text.splitlines(keepends=True):
        in_code ^= line.startswith("```")
        if not in_code and (heading := re.fullmatch(r"(###?) (.+)\n", line)):
            found.append((heading[1], heading[2], ""))
        elif found:
            level, title, body = found[-1]
            found[-1] = (level, title, body + line)
    return found


def with_table(text: str) -> str:
    """The text with its coverage table as it should be."""
    table = "\n".join(coverage(results.load()))
    return _TABLE.sub(lambda found: f"{found[1]}\n{table}\n\n{found[2]}", text)


def coverage(rows: Sequence[Row]) -> list[str]:
    """The coverage table in Markdown: what was measured, beside what producers' own files say."""
    lines = ["| producer | tested with | session | user | tokens | cost | remarks |", "|---|---|---|---|---|---|---|"]
    measured = {row.name: row for row in rows}
    for producer in sorted(producers(), key=lambda one: one.title.casefold()):
        if row := measured.get(producer.name):
            tested = f"`{row.package}` {row.version}"
            cells = [producer.title, tested, producer.session, producer.user, _tokens(row), row.cost, producer.remarks]
            lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    return lines


def _tokens(row: Row) -> str:
    if not row.ours:
        return "none"
    return "as billed, but see remarks" if row.reasons else "as billed"


if __name__ == "__main__":
    for document in (INSTRUMENT, CONSUME):
        document.write_text(with_code(document.read_text(encoding="utf-8")), encoding="utf-8")
    REFERENCES.mkdir(exist_ok=True)
    for path in REFERENCES.iterdir():
        path.unlink()
    for file, reference in references(INSTRUMENT.read_text(encoding="utf-8")).items():
        (REFERENCES / file).write_text(reference, encoding="utf-8")
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
    CONFIGURATION.write_text(settings_page.page(), encoding="utf-8")
    EVENTS.write_text(events_page.page(), encoding="utf-8")
