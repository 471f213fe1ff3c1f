"""The Collector's configuration is one file: it is what it says of itself, and what the README shows of it."""

from __future__ import annotations

import re
from pathlib import Path

from aggregator.settings import load_settings

ROOT = Path(__file__).parents[2]
CONFIG = (ROOT / "deploy" / "collector" / "config.yaml").read_text(encoding="utf-8")
MANIFEST = (ROOT / "deploy" / "collector" / "builder.yaml").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
VARIABLE = re.compile(r"\$\{env:([A-Z_]+):-([^}]*)\}")
ROW = re.compile(r"^#   ([A-Z_]+) +(\S+)", re.MULTILINE)


def test_its_head_lists_every_variable_with_its_default() -> None:
    used: dict[str, set[str]] = {}
    for name, default in VARIABLE.findall(CONFIG):
        used.setdefault(name, set()).add(default)
    assert used == {name: {default} for name, default in ROW.findall(CONFIG)}


def test_every_variable_has_a_default() -> None:
    assert len(re.findall(r"\$\{env:", CONFIG)) == len(VARIABLE.findall(CONFIG))


def test_it_writes_to_the_topic_that_workers_read() -> None:
    assert load_settings({}).kafka.topics == (dict(VARIABLE.findall(CONFIG))["KAFKA_TRACES_TOPIC"],)


def test_the_manifest_has_its_components() -> None:
    for section in ("extensions", "receivers", "processors", "exporters"):
        for name in _names(section):
            module = f"/{name.replace('_', '')}({section.removesuffix('s')})? v"  # file_storage is filestorage alone
            assert re.search(module, MANIFEST), f"{section}: {name}"


def _names(section: str) -> list[str]:
    found = re.search(rf"^{section}:\n((?:  .*\n|\n)+)", CONFIG, re.MULTILINE)
    assert found, section
    names = re.findall(r"^  ([a-z_]+):", found[1], re.MULTILINE)
    assert names, section
    return names


def test_what_the_readme_shows_of_it_stands_in_it() -> None:
    section = README.partition("### From the Collector to Kafka\n")[2].partition("\n### ")[0]
    excerpts = re.findall(r"^```yaml\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert excerpts
    assert [excerpt for excerpt in excerpts if excerpt not in CONFIG] == []
