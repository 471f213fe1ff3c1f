"""What whoever sends spans can put into ids and names."""

from __future__ import annotations

from typing import Final

ESCAPES: Final = "\x1b[2J\x1b]0;owned\x07\x9b31m"
BIDI: Final = "abc\u202egnp.exe\u2066"
MARKUP: Final = "[bold red]x[/] <script>alert(1)</script>"
FORMULA: Final = '=HYPERLINK("x","y")'
HOSTILE: Final = (ESCAPES, BIDI, MARKUP, FORMULA, "a\r\nb", "\t+1", "--help", "../../etc", "😀 ünï", "x" * 500)
