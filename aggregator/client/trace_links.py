"""Links to where a trace is looked at in detail: Jaeger, Tempo, Phoenix, Langfuse, Arize AX, Grafana.

The template is the operator's, what is put into it the senders': scheme and host must be fixed by the template, and
every value is percent-encoded, so that no id can lead elsewhere.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, urlsplit

from aggregator.client.models import Session, Trace, to_ms
from aggregator.core.errors import ConfigurationError

_PLACE: Final = re.compile(r"\{([^{}]*)\}")
NAMES: Final = ("trace_id", "session_id", "project", "user_id", "started_ms", "ended_ms")


class TraceLinks:
    """Makes them; without a template there are none."""

    def __init__(self, template: str | None) -> None:
        """Raises `ConfigurationError` for a template that can't be used."""
        self._template: Final = template
        if template is None:
            return
        parts = urlsplit(template)
        unknown = [name for name in _PLACE.findall(template) if name not in NAMES]
        if parts.scheme not in ("http", "https") or not parts.hostname or "{" in parts.netloc:
            raise ConfigurationError(
                "AGGREGATOR_WEB__TRACE_URL: must begin with http:// or https:// and a host that is fixed, as in "
                "https://jaeger.example/trace/{trace_id}"
            )
        if unknown:
            raise ConfigurationError(
                f"AGGREGATOR_WEB__TRACE_URL: {{{unknown[0]}}} is none of {', '.join(f'{{{name}}}' for name in NAMES)}"
            )

    def of(self, session: Session, trace: Trace) -> str | None:
        """The link of one trace."""
        if self._template is None:
            return None
        values = {
            "trace_id": trace.trace_id,
            "session_id": session.session_id,
            "project": session.project,
            "user_id": session.user_id or "",
            "started_ms": str(to_ms(trace.started_at)) if trace.started_at else "",
            "ended_ms": str(to_ms(trace.ended_at) + 1) if trace.ended_at else "",
        }
        return _PLACE.sub(lambda found: quote(values[found[1]], safe=""), self._template)
