"""What the checks of `deploy/` share; `make deploy-check` runs them, `make test` does not (see pyproject.toml)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.deploy import image as images


class Image(NamedTuple):
    """The built image: what it says of itself, and its files as a container has them."""

    configuration: Mapping[str, Any]
    size_bytes: int
    files: Path

    @property
    def environment(self) -> dict[str, str]:
        """What every process in it starts with."""
        return dict(line.partition("=")[::2] for line in self.configuration["Env"])


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    """The image, built by buildah from the Dockerfile."""
    if missing := images.needed():
        pytest.fail(f"the image can't be built: apt-get install {' '.join(missing)}", pytrace=False)
    described = images.build()
    container, files = images.mounted()
    try:
        used = sum(path.lstat().st_size for path in files.rglob("*") if path.is_file() and not path.is_symlink())
        yield Image(described["Docker"]["config"], used, files)
    finally:
        images.unmount(container)
