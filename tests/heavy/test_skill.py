"""The agent skill is installed as users install it: by the npm package `skills`, from the folder of this checkout."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
SKILLS: Final = "skills@1.5.18"  # the last one for Node 20
OWN: Final = ROOT / "skills" / "session-ids"

pytestmark = pytest.mark.timeout(600)  # the first time it is fetched


@pytest.fixture(scope="session")
def skills() -> Path:
    """The program, from npm."""
    directory = ROOT / ".cache" / SKILLS
    found = directory / "node_modules" / ".bin" / "skills"
    if not found.exists():
        subprocess.run(["npm", "install", "--silent", "--ignore-scripts", "--prefix", directory, SKILLS], check=True)
    return found


@pytest.mark.parametrize("agent", ["claude-code", "cursor", "codex"])
def test_an_agent_gets_the_skill_with_all_its_references(skills: Path, tmp_path: Path, agent: str) -> None:
    environ = {**os.environ, "DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "HOME": str(tmp_path / "home")}
    project = tmp_path / "project"
    project.mkdir()
    command = [str(skills), "add", str(ROOT / "skills"), "--copy", "--yes", "--agent", agent]
    done = subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "session-ids" in done.stdout
    (installed,) = [path.parent for path in project.rglob("SKILL.md")]
    assert installed.name == "session-ids"
    assert files_of(installed) == files_of(OWN)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
