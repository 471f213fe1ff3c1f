"""Copies of the package to measure: one interpreted, one with a compiled core, never in the source tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
_NEEDED: Final = ("setup.py", "pyproject.toml", "README.md", "LICENSE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """A copy of the package; `core` is what the running program says of itself."""

    core: str
    directory: Path

    def environment(self) -> dict[str, str]:
        """What a process needs to run this copy; it must be started in `directory`."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AGGREGATOR_")}
        return kept | {"PYTHONPATH": os.pathsep.join((str(self.directory), str(ROOT)))}


def builds(directory: Path) -> list[Build]:
    """Copy the package twice below `directory` and compile the second; what is there already is taken as it is."""
    return [
        Build(core=core, directory=_copy(directory / core, compiled=core == "compiled"))
        for core in ("interpreted", "compiled")
    ]


def _copy(directory: Path, *, compiled: bool) -> Path:
    if directory.is_dir():
        return directory
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    fresh = directory.with_name(f"{directory.name}.{os.getpid()}")
    shutil.copytree(ROOT / "aggregator", fresh / "aggregator", ignore=ignored)
    for name in _NEEDED:
        shutil.copy(ROOT / name, fresh)
    if compiled:
        subprocess.run(
            [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"],
            cwd=fresh,
            env=os.environ | {"SESSION_AGGREGATOR_COMPILE": "require"},
            stdout=subprocess.DEVNULL,
            check=True,
        )
    fresh.rename(directory)
    return directory
