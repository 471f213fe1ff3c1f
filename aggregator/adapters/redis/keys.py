"""Every Redis key: its name, type, life and owner.

| key                                   | type   | life                                           | written by         |
|---------------------------------------|--------|------------------------------------------------|--------------------|
| `agg:session:{<project>/<id>}`        | hash   | none while open or closing, else `retention`   | session_*.lua      |
| `agg:session:{<project>/<id>}:traces` | hash   | as its session; `retention` without one (with  | session_*.lua      |
|                                       |        | only tombstones)                               |                    |
| `agg:session:{<project>/<id>}:models` | hash   | as its session                                 | session_*.lua      |
| `agg:erased:{<tag>}:<hash>`           | string | given when a session is erased; says just that | session_erase.lua  |
| `agg:trace:{<trace id hex>}`          | string | given with each write, renewed by it; "erased" | trace_store.lua    |
|                                       |        | where its session was                          |                    |
| `agg:due:<shard>`                     | zset   | an entry goes when its session has settled     | schedule.py        |
| `agg:watermarks`                      | hash   | stays: one field per partition                 | progress_write.lua |
| `agg:progress`                        | hash   | stays: one field per partition                 | progress_write.lua |
| `agg:progress:<n>`                    | hash   | stays: one field per partition; on a Cluster   | as above           |
| `agg:corrupt:<any of the others>`     | any    | `retention`: what could not be read            | set_aside.lua      |
| `agg:index:<project>:<order>`         | zset   | an entry goes with its session; the key expires| index_write.lua    |
| `agg:user:{<project>/<user id>}`      | zset   | likewise                                       | index_write.lua    |
| `agg:indexed:<shard>`                 | zset   | likewise                                       | index_write.lua    |
| `agg:projects`                        | zset   | likewise                                       | index_write.lua    |

`agg` is the prefix.  Project, session and user id are percent-encoded, so that neither `/`, braces nor anything
unprintable of theirs is in a key.  All keys of one session, and none of another, share a hash tag.
`agg:erased:...` names its session by a hash alone; its tag is a number in the same slot.
The life of the last four is renewed with each write, and whoever owns a shard writes its sessions anew every few
minutes: such a key outlives the sessions in it by an hour or so.
"""

from __future__ import annotations

from binascii import crc32
from functools import cache
from hashlib import sha256
from itertools import count
from typing import Final, NamedTuple

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from aggregator.core.errors import ConfigurationError, CorruptState
from aggregator.core.model import Partition, SessionRef
from aggregator.core.naming import decode_ref, encode_ref, percent_decode, percent_encode

DEFAULT_PREFIX: Final = "agg"
_WITNESSES: Final = 16
REMEMBERED: Final = 16_384
"""Sessions whose keys are kept: some 8 MB."""


@cache
def _tags() -> list[str]:
    """For each slot of a Cluster a number that, as a hash tag, is in it; takes 0.1 s, once."""
    found: dict[int, str] = {}
    for number in count():
        tag = str(number)
        found.setdefault(key_slot(tag.encode()), tag)
        if len(found) == REDIS_CLUSTER_HASH_SLOTS:
            break
    return [found[slot] for slot in range(REDIS_CLUSTER_HASH_SLOTS)]


class SessionKeys(NamedTuple):
    """The keys of one session, in the order in which the scripts take them."""

    session: str
    traces: str
    models: str


class Keys:
    """Makes key names, and reads back those that carry something."""

    def __init__(self, prefix: str = DEFAULT_PREFIX, *, closing_shards: int = 64) -> None:
        """`closing_shards` is how many parts the deadline index has; all workers must agree on it."""
        if not prefix or "{" in prefix or "}" in prefix:
            raise ConfigurationError(
                f"redis.key_prefix is {prefix!r}: it must not be empty nor hold braces, which mark hash tags"
            )
        self.prefix: Final = prefix
        self.closing_shards: Final = closing_shards
        self.watermarks: Final = f"{prefix}:watermarks"
        self.progress: Final = f"{prefix}:progress"
        self.projects: Final = f"{prefix}:projects"
        self._session_head: Final = f"{prefix}:session:{{"
        self._trace_head: Final = f"{prefix}:trace:{{"
        self._due_head: Final = f"{prefix}:due:"
        self._index_head: Final = f"{prefix}:index:"
        self._user_head: Final = f"{prefix}:user:{{"
        self._indexed_head: Final = f"{prefix}:indexed:"
        self._sessions: dict[SessionRef, SessionKeys] = {}  # as they were made; emptied when it is full

    def session(self, ref: SessionRef) -> SessionKeys:
        """The three keys of a session."""
        keys = self._sessions.get(ref)
        if keys is None:
            session = f"{self._session_head}{encode_ref(ref)}}}"
            keys = SessionKeys(session, f"{session}:traces", f"{session}:models")
            if len(self._sessions) >= REMEMBERED:
                self._sessions.clear()
            self._sessions[ref] = keys
        return keys

    def erased(self, session_key: str) -> str:
        """The key that says of a session, by its key, that it has been erased; in its slot, without its name."""
        data = session_key.encode()
        return f"{self.prefix}:erased:{{{_tags()[key_slot(data)]}}}:{sha256(data).hexdigest()[:32]}"

    def trace(self, trace_id: bytes) -> str:
        """The key of a trace state."""
        return f"{self._trace_head}{trace_id.hex()}}}"

    def corrupt(self, key: str) -> str:
        """Where a key goes whose value can't be read: on a Cluster into the same slot, so a key without tag is one."""
        if "{" in key:
            return f"{self.prefix}:corrupt{key.removeprefix(self.prefix)}"
        return f"{self.prefix}:corrupt:{{{key}}}"

    def due(self, shard: int) -> str:
        """The key of one shard of the deadline index."""
        return f"{self._due_head}{shard}"

    def due_member(self, ref: SessionRef) -> str:
        """A session as it stands in the deadline index."""
        return encode_ref(ref)

    def due_ref(self, shard: int, member: bytes) -> SessionRef:
        """The session of an entry of the deadline index; `CorruptState` where this program did not write it."""
        try:
            return decode_ref(member.decode())
        except ValueError as error:
            raise CorruptState(f"{self.due(shard)} holds {member!r}, which names no session: {error}") from error

    def shard(self, ref: SessionRef) -> int:
        """Which shard of the deadline index a session is in; the same in every process and version."""
        return self.shard_of(encode_ref(ref))

    def shard_of(self, encoded: str) -> int:
        """The same of a session's `encoded` name."""
        return crc32(encoded.encode()) % self.closing_shards

    def witnesses(self) -> tuple[str, ...]:
        """The keys of the witnesses of `progress`: one in each of `_WITNESSES` equal parts of the slots.

        A Cluster gives each master ranges of slots, so one with more than a part's slots in a row has a witness.
        """
        found: dict[int, str] = {}
        for number in count():
            key = f"{self.progress}:{number}"
            found.setdefault(key_slot(key.encode()) * _WITNESSES // REDIS_CLUSTER_HASH_SLOTS, key)
            if len(found) == _WITNESSES:
                break
        return tuple(found[part] for part in sorted(found))

    def partition_field(self, partition: Partition) -> str:
        """The field of a partition in `watermarks` and `progress`."""
        return f"{partition.topic}/{partition.number}"

    # the indexes

    def encoded(self, ref: SessionRef) -> str:
        """`<project>/<session id>` as in keys, which are remembered."""
        return self.session(ref).session[len(self._session_head) : -1]

    def index(self, project: str, order: str) -> str:
        """The key of one order of a project's sessions."""
        return self.encoded_index(percent_encode(project), order)

    def encoded_index(self, project: str, order: str) -> str:
        """The same for a project that is encoded already."""
        return f"{self._index_head}{project}:{order}"

    def user(self, project: str, user_id: str) -> str:
        """The key of one user's sessions."""
        return self.encoded_user(percent_encode(project), percent_encode(user_id))

    def encoded_user(self, project: str, user_id: str) -> str:
        """The same for what is encoded already."""
        return f"{self._user_head}{project}/{user_id}}}"

    def indexed(self, shard: int) -> str:
        """The key that says of one shard's sessions under which user they are in the indexes."""
        return f"{self._indexed_head}{shard}"

    def indexed_member(self, ref: SessionRef, user_id: str) -> str:
        """A session with the user under which it is in the indexes."""
        return f"{encode_ref(ref)}/{percent_encode(user_id)}"

    def indexed_ref(self, shard: int, member: bytes) -> tuple[SessionRef, str]:
        """Undo `indexed_member`; `CorruptState` where this program did not write it."""
        session, _, user_id = member.decode(errors="replace").rpartition("/")
        try:
            return decode_ref(session), percent_decode(user_id)
        except ValueError as error:
            raise CorruptState(f"{self.indexed(shard)} holds {member!r}, which names no session: {error}") from error

    def session_ref(self, key: bytes) -> SessionRef | None:
        """The session whose hash has this key; None for any other key."""
        text = key.decode(errors="replace")
        if not (text.startswith(self._session_head) and text.endswith("}")):
            return None
        try:
            return decode_ref(text[len(self._session_head) : -1])
        except ValueError:
            return None

    def index_place(self, key: bytes) -> tuple[str, str] | None:
        """Project and order of a key that `index` made; None for any other key."""
        text = key.decode(errors="replace")
        project, _, order = text[len(self._index_head) :].rpartition(":")
        if not (text.startswith(self._index_head) and project and order):
            return None
        return percent_decode(project), order

    def user_place(self, key: bytes) -> tuple[str, str] | None:
        """Project and user of a key that `user` made; None for any other key."""
        text = key.decode(errors="replace")
        project, slash, user_id = text[len(self._user_head) : -1].partition("/")
        if not (text.startswith(self._user_head) and text.endswith("}") and slash):
            return None
        return percent_decode(project), percent_decode(user_id)
