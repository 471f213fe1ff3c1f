"""What whoever sends spans can put into ids and names."""

from __future__ import annotations

from typing import Final

from aggregator.core.model import SessionRef
from aggregator.ports import SessionPut
from tests.client.sessions import whole_put
from tests.contract.builders import T0_MS, T0_US
from tests.contract.conftest import Stores

ESCAPES: Final = "\x1b[2J\x1b]0;owned\x07\x9b31m"
BIDI: Final = "abc\u202egnp.exe\u2066"
MARKUP: Final = "[bold red]x[/] <script>alert(1)</script>"
FORMULA: Final = '=HYPERLINK("x","y")'
HOSTILE: Final = (ESCAPES, BIDI, MARKUP, FORMULA, "a\r\nb", "\t+1", "--help", "../../etc", "😀 ünï", "x" * 500)


async def put_hostile(stores: Stores) -> None:
    """A session with each of them as project, id, user, model, service and name of its trace."""
    for number, text in enumerate(HOSTILE):
        who = SessionRef(text[:100], text)
        trace = whole_put(
            number, name=text, users=[(T0_US, "ab" * 8, text)], models={text: [1, 1, 1, 0, 0, 1]}, services=[text]
        )
        await stores.sessions.put([SessionPut(who, [trace])])
        await stores.index.write([who], now_ms=T0_MS)
