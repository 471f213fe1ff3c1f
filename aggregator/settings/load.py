"""Reads the settings from the environment and from files, and tells all that is wrong with them at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from difflib import get_close_matches
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from aggregator.core.errors import ConfigurationError
from aggregator.settings.files import SettingFiles
from aggregator.settings.groups import PREFIX, Group, Settings, variable, variables
from aggregator.settings.rules import RULES

SECRETS_DIR: Final = "AGGREGATOR_SECRETS_DIR"

# Kubernetes puts these into every pod beside a Service named "aggregator"; they are no typing errors.
_SERVICE_LINK: Final = re.compile(r"AGGREGATOR_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP)(_\w+)?)?)")


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Read and check everything; raise one `ConfigurationError` that lists every problem with its remedy."""
    known = variables()
    problems = [_unknown(name, known) for name in sorted(environ) if _is_typo(name, known)]
    given: dict[str, dict[str, str]] = {group: {} for group in Settings.model_fields}
    directory = environ.get(SECRETS_DIR, "").strip()
    files = SettingFiles(SECRETS_DIR, directory, known) if directory else None
    problems += files.problems if files else []
    from_files = files.values if files else {}
    for name, (group, field) in known.items():
        if value := environ.get(name, "").strip() or from_files.get(name, ""):
            given[group][field] = value
    wrong: set[str] = set()
    groups: dict[str, Any] = {
        group: _read_group(group, values, problems, wrong, from_files.keys()) for group, values in given.items()
    }
    settings = Settings(**groups)
    problems += [rule.problem for rule in RULES if not wrong & set(rule.names) and rule.fails(settings)]
    if problems:
        raise ConfigurationError("\n".join(problems))
    return settings


def _is_typo(name: str, known: Mapping[str, object]) -> bool:
    return name.startswith(PREFIX) and name not in known and name != SECRETS_DIR and not _SERVICE_LINK.fullmatch(name)


def _unknown(name: str, known: Mapping[str, object]) -> str:
    near = get_close_matches(name, known, n=1, cutoff=0.75)
    return f"{name}: there is no such setting; " + (f"did you mean {near[0]}?" if near else "unset it")


def _read_group(
    group: str, values: dict[str, str], problems: list[str], wrong: set[str], from_files: Set[str]
) -> Group:
    """Read one group; fields that are wrong are reported, noted in `wrong` and stand at their default.

    Values of the variables `from_files` are not quoted, whatever they are of.
    """
    kind: type[Group] = type(Settings.model_fields[group].default)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        bad: dict[str, ErrorDetails] = {}
        for detail in error.errors(include_url=False, include_context=False):
            if detail["loc"][0] in values:  # else a default that could not be derived from a wrong one
                bad.setdefault(str(detail["loc"][0]), detail)
    for field, detail in bad.items():
        name = variable(group, field)
        wrong.add(name)
        text = detail["msg"].removeprefix("Value error, ")
        problems.append(
            f"{name}: {text[0].lower()}{text[1:]}{_shown(kind, field, values[field], hide=name in from_files)}"
        )
    return kind.model_validate({field: value for field, value in values.items() if field not in bad})


def _shown(kind: type[Group], field: str, value: str, *, hide: bool) -> str:
    """What was given and what would be the default, without giving a secret away."""
    info = kind.model_fields[field]
    secret = hide or "Secret" in str(info.annotation) or "RedisUrl" in str(info.annotation)
    default = info.get_default(call_default_factory=True, validated_data={})
    shown = ",".join(default) if isinstance(default, tuple) else default
    given = "" if secret else f", not {value!r}"
    return given + (f"; unset it for the default {shown}" if shown not in (None, "") else "; or unset it")
