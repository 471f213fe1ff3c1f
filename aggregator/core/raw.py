"""What the decoders collect from the wire before it is interpreted, and what they remember between records."""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

UNUSABLE: Final = ()
"""The value of an attribute that is there with a type nothing is read from: bytes, array, key-value list."""


class Resource:
    """What is kept of a resource; `wrong` is what is wrong with its session id, which is not in `session_id` then.

    `own` says that its spans are what a worker has traced of itself.
    """

    def __init__(self, service: str, project: str, session_id: str, wrong: str, own: bool) -> None:
        self.own: bool = own
        self.service: str = service
        self.project: str = project
        self.session_id: str = session_id
        self.wrong: str = wrong


class Scope:
    """The instrumentation scope: its name, whether it writes attributes as JSON text, and how it writes figures.

    `cache_apart`, `providers`, `rest_is_completion` and `zero_is_no_cost` are as in `conventions.ScopeHabit`.
    """

    def __init__(
        self,
        name: str,
        *,
        json_text: bool,
        cache_apart: bool = False,
        providers: tuple[str, ...] = (),
        rest_is_completion: bool = False,
        zero_is_no_cost: bool = False,
    ) -> None:
        self.name: str = name
        self.json_text: bool = json_text
        self.cache_apart: bool = cache_apart
        self.providers: tuple[str, ...] = providers
        self.rest_is_completion: bool = rest_is_completion
        self.zero_is_no_cost: bool = zero_is_no_cost


class Cache:
    """Strings, resources and scopes that came before, by their bytes; its users keep it bounded.

    `ids` maps the texts of attributes to the session and user ids that they were found to be.
    """

    def __init__(self) -> None:
        self.strings: dict[bytes, str] = {}
        self.ids: dict[str, str] = {}
        self.resources: dict[bytes, Resource] = {}
        self.scopes: dict[bytes, Scope] = {}


class RawSpan:
    """One span as read from the wire, used again for the next.

    `values` holds, per code, a str, int, float or bool, `UNUSABLE`, or None where the attribute is absent or null.
    `messages` says whether an attribute with the prefix `HAZARD_MESSAGES` is there.  Times are in nanoseconds,
    at most 2**63 - 1.  `index` counts the spans of the record from 0.
    """

    def __init__(self, code_count: int, resource: Resource, scope: Scope) -> None:
        self.values: list[object] = [None] * code_count
        self.touched: list[int] = []
        self.touched_count: i64 = 0
        self.roles: i64 = 0
        self.messages: bool = False
        self.trace_id: bytes = b""
        self.span_id: bytes = b""
        self.parent_id: bytes = b""
        self.name: str = ""
        self.start_ns: i64 = 0
        self.end_ns: i64 = 0
        self.error: bool = False
        self.resource: Resource = resource
        self.scope: Scope = scope
        self.index: i64 = -1

    def put(self, code: i64, value: object, roles: i64) -> None:
        """Note the value of a code and what the code is for; of a code that comes twice the last value counts."""
        self.values[code] = value
        if self.touched_count < len(self.touched):  # the list keeps its length: growing it anew costs more
            self.touched[self.touched_count] = code
        else:
            self.touched.append(code)
        self.touched_count += 1
        self.roles |= roles

    def begin(self) -> None:
        """Forget the last span; resource and scope stay."""
        for i in range(self.touched_count):
            self.values[self.touched[i]] = None
        self.touched_count = 0
        self.roles = 0
        self.messages = False
        self.trace_id = b""
        self.span_id = b""
        self.parent_id = b""
        self.name = ""
        self.start_ns = 0
        self.end_ns = 0
        self.error = False
        self.index += 1
