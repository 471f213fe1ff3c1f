"""Compiles `aggregator/core` with mypyc where a wheel is built; everything else stands in pyproject.toml.

An editable install stays interpreted, so that an edit shows at once; `make compile` compiles in place.
SESSION_AGGREGATOR_COMPILE: `auto` (the default: without a working C compiler the wheel holds plain Python, with the
same results), `require` (fail instead) or `off`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

ROOT = Path(__file__).resolve().parent
WISH = os.environ.get("SESSION_AGGREGATOR_COMPILE", "auto")
BUILDS = {"bdist_wheel", "build", "build_ext", "install"}
# Generated code calls into this shared library; the dots put it into the package.
LIBRARY = "aggregator.core.native"


def core_extensions() -> list[Any]:
    """The compiled core; nothing where this run builds nothing or is told not to."""
    if WISH == "off" or not BUILDS & set(sys.argv):
        return []
    from mypyc.build import mypycify

    sources = sorted(path.relative_to(ROOT) for path in (ROOT / "aggregator/core").glob("*.py"))
    # Without the project's own configuration: what the build needs is code, the verdict on types is `make check`'s.
    options = ["--config-file=", "--ignore-missing-imports"]
    return mypycify([*options, *(str(path) for path in sources if path.stem != "__init__")], group_name=LIBRARY)


class BuildCore(build_ext):
    """Builds all of the core or nothing of it: half of it would not import."""

    def run(self) -> None:
        try:
            super().run()
        except (BaseError, CCompilerError) as error:
            if WISH == "require":
                raise
            self.warn(f"aggregator.core is not compiled and will run interpreted, some ten times slower: {error}")
            for extension in self.extensions:
                Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
            self.extensions = []


os.chdir(ROOT)  # mypyc writes beside, and names modules from, the current directory
setup(ext_modules=core_extensions(), cmdclass={"build_ext": BuildCore})
