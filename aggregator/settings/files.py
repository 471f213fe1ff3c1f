"""Settings from files, as orchestrators mount secrets: one value a file, named as its variable.

`<group>__<field>` or `<group>/<field>` below the directory, in any case, with or without `AGGREGATOR_` before it.
Names that begin with a dot are passed over: Kubernetes keeps its own links there.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from aggregator.settings.groups import DELIMITER, PREFIX

MOST_BYTES: Final = 65_536
"""No setting is longer; a file that is was mounted by mistake."""


class SettingFiles:
    """The values that were found, by variable; `problems` has a line for each file that could not be used.

    No line quotes what is in a file.
    """

    def __init__(self, variable: str, directory: str, known: Mapping[str, object]) -> None:
        """`variable` is what names the directory, `known` the variables that there are."""
        self.values: dict[str, str] = {}
        self.problems: list[str] = []
        self._known = known
        self._root = Path(directory)
        try:
            found = sorted(path for path in self._files(self._root) if path.is_file())
        except OSError as error:
            self.problems.append(
                f"{variable}: {error.filename} can't be listed: {error.strerror}; mount it, or unset it"
            )
            return
        for path in found:
            self._read(path)

    def _files(self, directory: Path) -> list[Path]:
        """Two levels, without what is hidden."""
        entries = [path for path in directory.iterdir() if not path.name.startswith(".")]
        if directory != self._root:
            return entries
        return [one for path in entries for one in (self._files(path) if path.is_dir() else [path])]

    def _read(self, path: Path) -> None:
        shown = DELIMITER.join(path.relative_to(self._root).parts)
        name = shown.upper() if shown.upper().startswith(PREFIX) else f"{PREFIX}{shown}".upper()
        if name not in self._known:
            near = get_close_matches(name, self._known, n=1, cutoff=0.75)
            hint = f"did you mean {near[0].removeprefix(PREFIX).lower()}?" if near else "remove it"
            self.problems.append(f"{path}: there is no such setting; {hint}")
        elif name in self.values:
            self.problems.append(f"{path}: there is another file for {name}; remove one of them")
        else:
            try:
                with path.open("rb") as file:
                    data = file.read(MOST_BYTES + 1)
                text = data.decode().strip()
            except (OSError, UnicodeDecodeError) as error:
                why = error.strerror if isinstance(error, OSError) else "not UTF-8"
                self.problems.append(f"{path}: can't be read: {why}; it must be a text file with the value of {name}")
                return
            if len(data) > MOST_BYTES:
                self.problems.append(f"{path}: is longer than {MOST_BYTES} bytes, too long for {name}; mount another")
            elif text:
                self.values[name] = text
