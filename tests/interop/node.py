"""The environments of JavaScript producers: npm's workspaces under `environments/js`, installed once into the cache.

They share one lock file, written by `npm install --package-lock-only` there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

_ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = Path(__file__).parent / "environments" / "js"
NEEDS: Final = ("node", "npm")
_INSTALL_TIMEOUT_S: Final = 600


def command_of(group: str, script: Path) -> list[str]:
    """Runs the script with the packages of that workspace."""
    folder = _installed() / group
    # Node looks for packages beside the script's own file, so it must lie there, and what it imports as well.
    for source in script.parent.glob("*.mjs"):
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as copy:
            copy.write(source.read_bytes())
        Path(copy.name).replace(folder / source.name)
    return ["node", str(folder / script.name)]


def version_of(group: str, package: str) -> str:
    """The version of a package, as locked for that workspace."""
    locked: dict[str, Any] = json.loads((FOLDER / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    own = f"{group}/node_modules/{package}"
    version: str = locked[own if own in locked else f"node_modules/{package}"]["version"]
    return version


def _installed() -> Path:
    """The workspaces with their packages, which are installed if they are not there yet."""
    kept = [FOLDER / ".npmrc", *sorted(FOLDER.rglob("package*.json"))]
    made_of = hashlib.sha256(b"".join(path.read_bytes() for path in kept)).hexdigest()[:12]
    folder = _ROOT / ".cache" / "interop" / f"js-{made_of}"
    if not folder.is_dir():
        fresh = folder.with_name(f"{folder.name}.{os.getpid()}")  # a run that is cut short leaves nothing half filled
        try:
            for path in kept:
                copy = fresh / path.relative_to(FOLDER)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copy)
            _install(fresh)
            if not folder.is_dir():
                fresh.rename(folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return folder


def _install(folder: Path) -> None:
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
