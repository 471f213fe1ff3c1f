"""The producers' own environments: pinned packages, installed once into the checkout's cache.

`environments/<group>.in` says what a group's producers import, `<group>.txt` is what `make interop-pins` made of it.
A group is what gets along in one environment.  Those of JavaScript are `js/<workspace>`, see `node`.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.interop import node
from tests.interop.catalogue import Producer
from tests.interop.required import require

_ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = Path(__file__).parent / "environments"


def command_of(producer: Producer) -> list[str]:
    """Runs the producer in its environment, which is installed if it is not there yet."""
    if workspace := _workspace_of(producer):
        require(f"the producer {producer.name}", *node.NEEDS)
        return node.command_of(workspace, producer.script)
    return [str(python_of(producer.environment)), "-W", "ignore", str(producer.script)]


def _workspace_of(producer: Producer) -> str:
    """Of a JavaScript producer the npm workspace; empty for others."""
    return producer.environment.removeprefix("js/") if producer.environment.startswith("js/") else ""


def python_of(group: str) -> Path:
    """The interpreter of that group's environment, which is installed if it is not there yet."""
    requirements = FOLDER / f"{group}.txt"
    made_of = f"{platform.python_version()} {platform.machine()} {requirements.read_text(encoding='utf-8')}"
    folder = _ROOT / ".cache" / "interop" / f"{group}-{hashlib.sha256(made_of.encode()).hexdigest()[:12]}"
    if not folder.is_dir():
        fresh = folder.with_name(f"{folder.name}.{os.getpid()}")  # a run that is cut short leaves nothing half filled
        try:
            _uv("venv", "--quiet", "--relocatable", "--python", sys.executable, str(fresh))
            _uv(
                "pip",
                "install",
                "--quiet",
                "--compile-bytecode",
                "--python",
                str(fresh / "bin" / "python"),
                "-r",
                str(requirements),
            )
            if not folder.is_dir():
                fresh.rename(folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return folder / "bin" / "python"


def version_of(producer: Producer) -> str:
    """The version of the producer's package, as pinned."""
    if workspace := _workspace_of(producer):
        return node.version_of(workspace, producer.package)
    pins = (FOLDER / f"{producer.environment}.txt").read_text(encoding="utf-8")
    found = re.search(rf"^{re.escape(producer.package)}==(\S+)", pins, re.MULTILINE)
    assert found, f"{producer.package} is not pinned for the environment {producer.environment}"
    return found[1]


def _uv(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "uv", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"uv {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
