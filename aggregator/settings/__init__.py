"""Every setting, read once from the environment, or from files in `AGGREGATOR_SECRETS_DIR`, into one frozen object.

A variable is `AGGREGATOR_<GROUP>__<FIELD>` and goes before a file of its name; an empty one counts as not set, lists
are comma-separated, durations are seconds unless the name says otherwise.  `load_settings` finds all problems before
it complains.
"""

from __future__ import annotations

from aggregator.settings.groups import (
    KafkaSettings,
    PricingSettings,
    RedisSettings,
    SessionSettings,
    Settings,
    WebSettings,
    variable,
    variables,
)
from aggregator.settings.load import SECRETS_DIR, load_settings
from aggregator.settings.types import OnStateLoss

__all__ = [
    "SECRETS_DIR",
    "KafkaSettings",
    "OnStateLoss",
    "PricingSettings",
    "RedisSettings",
    "SessionSettings",
    "Settings",
    "WebSettings",
    "load_settings",
    "variable",
    "variables",
]
