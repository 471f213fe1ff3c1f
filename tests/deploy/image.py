"""The image, really built, without a container engine: buildah on a Debian that debootstrap made.

The base image can't be pulled where only package registries are reached; what `debian:trixie-slim` is made of can.
"""

from __future__ import annotations

import json
import os
import shutil
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.deploy.programs import CACHE, ROOT, run

NAME: Final = "localhost/session-aggregator:test"
BASE: Final = "docker.io/library/debian:trixie-slim"
_STORE: Final = CACHE / "containers"
# As `debian:trixie-slim` leaves them out.
_NOT_IN_SLIM: Final = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var/lib/apt/lists")


def buildah(*arguments: str | Path, seconds: float = 900) -> str:
    """Run buildah in a store of its own."""
    own = {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs"}  # overlays can't be laid over an overlay
    command: list[str | Path] = ["buildah", "--root", _STORE / "root", "--runroot", _STORE / "run", *arguments]
    return run(command, seconds=seconds, env=os.environ | own, cwd=ROOT)


def needed() -> list[str]:
    """The Debian packages that this machine lacks for it."""
    return [name for name in ("buildah", "debootstrap") if shutil.which(name) is None]


def build() -> Mapping[str, Any]:
    """Build the image and return what it says of itself."""
    if BASE not in buildah("images", "--format", "{{.Name}}:{{.Tag}}").split():
        _make_base()
    arguments: list[str | Path] = ["bud", "--pull-never", "--format", "docker", "--layers", "--tag", NAME]
    for identity, path in _secrets().items():
        arguments += ["--secret", f"id={identity},src={path}"]
    buildah(*arguments, ROOT)
    described: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", NAME))
    return described


def _make_base() -> None:
    folder = CACHE / "debian-trixie"
    if not folder.is_dir():
        fresh = folder.with_name(f"debian-trixie.{os.getpid()}")
        fresh.parent.mkdir(parents=True, exist_ok=True)
        run(["debootstrap", "--variant=minbase", "trixie", fresh], seconds=900)
        for path in _NOT_IN_SLIM:
            for entry in (fresh / path).iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        fresh.rename(folder)
    container = buildah("from", "scratch").strip()
    buildah("add", "--quiet", container, folder, "/")
    buildah("config", "--cmd", "bash", container)
    buildah("commit", "--rm", "--quiet", container, BASE)


def _secrets() -> dict[str, Path]:
    """How this machine reaches its registries: its own authorities, and pip's configuration where there is one."""
    found: dict[str, Path] = {}
    authorities = ssl.get_default_verify_paths().cafile
    if authorities:
        found["ca_certificates"] = Path(authorities)
    for path in (Path("/etc/pip.conf"), Path.home() / ".config/pip/pip.conf"):
        if path.is_file():
            found["pip_conf"] = path
    for path in (Path("/etc/uv/uv.toml"), Path.home() / ".config/uv/uv.toml"):
        if path.is_file():
            found["uv_toml"] = path
    return found


def mounted() -> tuple[str, Path]:
    """A container made from the image, and where its files are; `unmount` ends it."""
    container = buildah("from", "--pull-never", NAME).strip()
    return container, Path(buildah("mount", container).strip())


def unmount(container: str) -> None:
    """Remove a container."""
    buildah("umount", container)
    buildah("rm", container)


def command_in(files: Path, environment: Mapping[str, str], *arguments: str) -> list[str]:
    """The command line that runs something in the image as Kubernetes' `restricted` would have it.

    Read-only root file system, user 65532 with no other group, no capability and no way to get one.
    """
    script = (
        'mount --bind "$1" "$1" && mount -o remount,bind,ro,nosuid,nodev "$1" && mount --rbind /dev "$1/dev" && '
        'mount -t proc proc "$1/proc" && exec chroot "$@"'
    )
    user = "--reuid=65532 --regid=65532 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all"
    values = [f"{name}={value}" for name, value in environment.items()]
    inside = ["/usr/bin/setpriv", *user.split(), "/usr/bin/env", "-i", *values, *arguments]
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(files), *inside]


def said_in(files: Path, environment: Mapping[str, str], arguments: Sequence[str]) -> str:
    """What a command in the image prints; it must succeed."""
    return run(command_in(files, environment, *arguments), seconds=60)
