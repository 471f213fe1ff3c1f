"""Documents show code that runs and results that were measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.generated import CONSUME, INSTRUMENT, README, all_regions, coverage, regions, with_code, with_table
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


def test_the_coverage_table_is_that_of_the_last_interop_run() -> None:
    text = README.read_text(encoding="utf-8")
    assert text == with_table(text), "make docs"
    assert all(line in text for line in coverage(results.load()))


def test_the_last_interop_run_had_every_producer_as_it_is_pinned() -> None:
    found = {row.name: row.version for row in results.load()}
    assert found == {one.name: environments.version_of(one) for one in producers() if not one.awaits}, "make interop"
