"""Small disks that can be full: a tmpfs of its own for a broker's data, which takes the right to mount."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

_MIB: Final = 1 << 20
_ROOM_BYTES: Final = 256 * _MIB


def _mount(*arguments: str) -> str:
    """What `mount` says against it; empty where it is done."""
    try:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True, timeout=30, check=False)
    except OSError as error:
        return str(error)
    return "" if done.returncode == 0 else f"{done.stdout}{done.stderr}".strip() or f"exit code {done.returncode}"


@cache
def disks() -> bool:
    """Whether disks can be made here; if not, that is said once, loudly."""
    with tempfile.TemporaryDirectory(prefix="faults-disk-") as name:
        problem = _mount("-t", "tmpfs", "-o", "size=1m", "faults", name)
        if not problem:
            subprocess.run(["umount", name], check=True, timeout=30)
            return True
    print(f"LEFT OUT: no broker's disk is filled, since nothing may be mounted here: {problem}", file=sys.stderr)
    return False


class Disk:
    """One of them, mounted on a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        if problem := _mount("-t", "tmpfs", "-o", f"size={_ROOM_BYTES}", "faults", str(directory)):
            raise RuntimeError(f"{directory}: {problem}")

    def fill(self) -> None:
        """Shrink it to what it holds: whatever needs another page finds no space left on the device."""
        for _ in range(100):  # it may grow between the question and the answer
            found = os.statvfs(self._directory)
            problem = self._resize((found.f_blocks - found.f_bfree) * found.f_frsize)
            if not problem:
                return
        raise RuntimeError(f"{self._directory} can't be filled: {problem}")

    def make_room(self) -> None:
        """Let it be as large as it was."""
        if problem := self._resize(_ROOM_BYTES):
            raise RuntimeError(f"{self._directory}: {problem}")

    def _resize(self, size: int) -> str:
        return _mount("-o", f"remount,size={size}", str(self._directory))

    def unmount(self) -> None:
        """Take it away, with all that it holds; whoever writes there has ended."""
        subprocess.run(["umount", "--lazy", str(self._directory)], check=True, timeout=30)
