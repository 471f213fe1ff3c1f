"""How sessions are named where names must fit: Redis keys, keys of Kafka records, summary ids.

Project and session id are percent-encoded byte by byte (UTF-8, upper-case hex); ASCII letters, digits and `-_.~:@`
stay.  So an encoded part never holds `/`, `{`, `}` or a blank: it can stand in a hash tag, and `<project>/<session_id>`
has exactly one slash.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, unquote

from aggregator.core.model import SessionRef

_KEPT: Final = ":@"  # beside letters, digits and "_.-~", which `quote` never touches
_plain = re.compile(r"[A-Za-z0-9\-_.~:@]*").fullmatch


def percent_encode(text: str) -> str:
    """Encode one part; a text that needs nothing comes back as it is."""
    if _plain(text) is not None:
        return text
    return quote(text, safe=_KEPT)


def percent_decode(text: str) -> str:
    """Undo `percent_encode`; raises ValueError where the bytes are not UTF-8."""
    return unquote(text, errors="strict")


def encode_ref(ref: SessionRef) -> str:
    """`<project>/<session_id>`, each percent-encoded."""
    return f"{percent_encode(ref.project)}/{percent_encode(ref.session_id)}"


def decode_ref(text: str) -> SessionRef:
    """Undo `encode_ref`; raises ValueError where there is not exactly one slash or the bytes are not UTF-8."""
    project, slash, session_id = text.partition("/")
    if not slash or "/" in session_id:
        raise ValueError(f"not <project>/<session_id>: {text!r}")
    return SessionRef(percent_decode(project), percent_decode(session_id))
