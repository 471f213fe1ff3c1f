"""Documents show code that runs and results that were measured."""

from __future__ import annotations

import re

import yaml

from tests.docs.generated import (
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


def test_code_blocks_are_what_the_producers_run() -> None:
    text = INSTRUMENT.read_text(encoding="utf-8")
    assert text == with_code(text), "make docs"


def test_every_block_of_a_programming_language_comes_from_a_producer() -> None:
    text = INSTRUMENT.read_text(encoding="utf-8")
    assert len(re.findall(r"^```(?:python|js|ts)", text, re.MULTILINE)) == len(
        re.findall(r"^<!-- producers/", text, re.MULTILINE)
    )


def test_every_region_is_shown_once() -> None:
    shown = re.findall(r"^<!-- producers/(\S+) -->", INSTRUMENT.read_text(encoding="utf-8"), re.MULTILINE)
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
