"""Documents show code that runs and results that were measured."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from aggregator.settings import variables
from aggregator.telemetry import Event
from tests.docs import events_page, settings_page
from tests.docs.generated import (
    CONFIGURATION,
    CONSUME,
    EVENTS,
    INSTRUMENT,
    README,
    REFERENCES,
    all_regions,
    coverage,
    references,
    regions,
    with_code,
    with_table,
)
from tests.interop import environments, results
from tests.interop.catalogue import FOLDER, producers

DOCUMENTS = (INSTRUMENT, CONSUME)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_code_blocks_are_what_is_run(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert text == with_code(text), "make docs"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_block_of_a_programming_language_comes_from_a_file(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert len(re.findall(r"^```(?:python|js|ts|sql)", text, re.MULTILINE)) == len(
        re.findall(r"^<!-- (?:producers|consumers)/", text, re.MULTILINE)
    )


def test_every_region_is_shown_once() -> None:
    text = "".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    shown = re.findall(r"^<!-- ((?:producers|consumers)/\S+) -->", text, re.MULTILINE)
    assert sorted(shown) == sorted(all_regions())


def test_marks_of_the_stubs_are_not_shown() -> None:
    shown = regions(FOLDER / "openinference_openai.py")
    assert "[[" not in "".join(shown.values())
    assert shown["using-attributes"].startswith("with using_attributes(")


def test_the_skill_s_references_are_the_sections_of_the_guide() -> None:
    wanted = references(INSTRUMENT.read_text(encoding="utf-8"))
    assert {path.name: path.read_text(encoding="utf-8") for path in REFERENCES.iterdir()} == wanted, "make docs"
    for name in (
        "openinference-python.md",
        "langchain-and-langgraph.md",
        "vercel-ai-sdk.md",
        "traps.md",
        "check-it.md",
    ):
        assert len(wanted[name]) > 300


def test_every_piece_of_code_of_the_guide_is_in_the_skill_once() -> None:
    blocks = re.compile(r"^```(?:python|js)\n.*?^```", re.MULTILINE | re.DOTALL)
    shown = [block for path in REFERENCES.iterdir() for block in blocks.findall(path.read_text(encoding="utf-8"))]
    assert sorted(shown) == sorted(blocks.findall(INSTRUMENT.read_text(encoding="utf-8")))


def test_the_skill_says_what_each_reference_is_for() -> None:
    skill = (REFERENCES.parent / "SKILL.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\(references/([a-z-]+\.md)\)", skill)) == {path.name for path in REFERENCES.iterdir()}
    _, header, body = skill.split("---\n", 2)
    about = yaml.safe_load(header)
    assert about["name"] == REFERENCES.parent.name
    assert 100 < len(about["description"]) <= 1024  # what the format allows
    assert len(body.splitlines()) < 120


def test_the_coverage_table_is_that_of_the_last_interop_run() -> None:
    text = README.read_text(encoding="utf-8")
    assert text == with_table(text), "make docs"
    assert all(line in text for line in coverage(results.load()))


def test_the_last_interop_run_had_every_producer_as_it_is_pinned() -> None:
    found = {row.name: row.version for row in results.load()}
    assert found == {one.name: environments.version_of(one) for one in producers() if not one.awaits}, "make interop"


def test_the_settings_are_those_of_the_model() -> None:
    assert CONFIGURATION.read_text(encoding="utf-8") == settings_page.page(), "make docs"


def test_every_setting_says_what_it_means_and_shows_a_value() -> None:
    """A default is an example, and a secret has none."""
    rows = {
        row[0]: row[1:]
        for row in re.findall(r"^\| `(\w+)` " + 4 * r"\|(.*?)(?<!\\)" + r"\|$", settings_page.page(), re.MULTILINE)
    }
    assert rows.keys() == variables().keys()
    for name, (kind, default, meaning, example) in rows.items():
        assert kind.strip(), name
        assert meaning.strip().endswith("."), name
        assert default.strip() or example.strip() or "secret" in kind, name


def test_the_events_are_those_of_the_catalogue() -> None:
    assert EVENTS.read_text(encoding="utf-8") == events_page.page(), "make docs"


def logged() -> Iterator[tuple[Event, set[str], set[str], bool]]:
    """Each call that logs an event: its levels, its fields, and whether these are all of them."""
    for path in (Path(__file__).parents[2] / "aggregator").rglob("*.py"):
        code = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(code)) if "Event." in code else ():
            if not (isinstance(node, ast.Call) and node.args and ast.unparse(node.args[0]).startswith("Event.")):
                continue
            levels = set(re.findall(r"\.(debug|info|warning|error|exception)\b", ast.unparse(node.func)))
            fields = {keyword.arg for keyword in node.keywords if keyword.arg is not None}
            whole = len(fields) == len(node.keywords)
            yield Event[ast.unparse(node.args[0]).removeprefix("Event.")], levels, fields, whole


def test_what_is_logged_has_the_levels_and_fields_of_the_catalogue() -> None:
    levels: dict[Event, set[str]] = {event: set() for event in Event}
    fields: dict[Event, set[str]] = {event: set() for event in Event}
    calls = list(logged())
    for event, at, given, _ in calls:
        levels[event] |= at
        fields[event] |= given
        assert given <= set(event.fields), event
    assert levels == {event: set(event.levels) for event in Event}
    for event in Event:
        whole = all(known for one, _, _, known in calls if one is event)
        assert fields[event] == set(event.fields) or (not whole and fields[event] < set(event.fields)), event
