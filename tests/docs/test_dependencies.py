"""What the package imports is what it declares, and the reverse."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# Needed without being imported: aiokafka uses it for compressed records.
UNSEEN = {"cramjam"}
# Comes with another declared one, whose interface it is part of.
CARRIED = {
    "protobuf": "opentelemetry-proto",
    "pydantic-core": "pydantic",
    "googleapis-common-protos": "demo",
    "mcp-types": "mcp",
}


def names(requirements: Iterable[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower().replace("_", "-") for requirement in requirements}


def imported(paths: Iterable[Path]) -> set[str]:
    """The distributions of everything that these files import from outside."""
    modules: set[str] = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module)
    owners = packages_distributions()
    found: set[str] = set()
    for module in modules:
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names or top == "aggregator":
            continue
        # A name that several share (opentelemetry) is told apart by the file list of each; too much for this test.
        if len(set(owners[top])) == 1:
            found.add(owners[top][0].lower().replace("_", "-"))
    return found


def test_the_worker_s_imports_are_its_dependencies() -> None:
    worker = [
        path for path in (ROOT / "aggregator").rglob("*.py") if not {"assistants", "embedded", "web"} & set(path.parts)
    ]
    declared = names(PROJECT["dependencies"])
    used = imported(worker) - names(PROJECT["optional-dependencies"]["parquet"])
    assert used - CARRIED.keys() <= declared
    assert declared - used - UNSEEN <= {"opentelemetry-proto"}


def test_the_web_view_s_imports_are_its_extra() -> None:
    web = list((ROOT / "aggregator" / "web").glob("*.py"))
    extra = names(PROJECT["optional-dependencies"]["web"])
    used = imported(web) - CARRIED.keys()
    assert used <= names(PROJECT["dependencies"]) | extra
    assert extra <= used


def test_the_assistants_imports_are_their_extra_and_the_web_view_s() -> None:
    extras = PROJECT["optional-dependencies"]
    used = imported((ROOT / "aggregator" / "assistants").glob("*.py"))
    assert "mcp" in used
    assert used - CARRIED.keys() <= names([*PROJECT["dependencies"], *extras["mcp"], *extras["web"]])


def test_the_demo_s_imports_are_its_extra() -> None:
    demo = list((ROOT / "aggregator" / "embedded").glob("*.py"))
    declared = names([*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["demo"]])
    assert imported(demo) - CARRIED.keys() <= declared
