"""Holds the session indexes of a Redis against the session hashes, read directly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aggregator.adapters.redis.keys import Keys
from aggregator.core.model import SessionRef
from aggregator.core.naming import decode_ref, percent_encode
from aggregator.ports import IndexOrder
from tests.fake_index import Listed, expected_scores

Hashes = dict[SessionRef, dict[str, str]]


def session_hashes(client: Any, prefix: str = "agg") -> Hashes:
    """The public fields of every session hash."""
    found: Hashes = {}
    head = f"{prefix}:session:{{"
    names = [key.decode() for key in client.scan_iter(match=f"{head}*", count=1000)]
    names = [name for name in names if name.endswith("}")]
    for start in range(0, len(names), 1000):
        pipeline = client.pipeline(transaction=False)
        for name in names[start : start + 1000]:
            pipeline.hgetall(name)
        for name, stored in zip(names[start : start + 1000], pipeline.execute(), strict=True):
            fields = {field.decode(): value.decode() for field, value in stored.items() if not field.startswith(b"_")}
            found[decode_ref(name[len(head) : -1])] = fields
    return found


def assert_indexes_show_sessions(client: Any, keys: Keys, *, looked: bool = True, forgotten: bool = False) -> None:
    """Every session that has traces is in each index as it stands and under its user, and nothing else is.

    Not yet `looked` at: a session may also be under a former user, as long as its next look is still to come.
    `forgotten`: Redis may have lost under which user a session was before; lists pass over those.
    """
    hashes = session_hashes(client, keys.prefix)
    expected: dict[SessionRef, Listed] = {}
    for ref, fields in hashes.items():
        if (scores := expected_scores(fields)) is not None:
            expected[ref] = scores
    wanted: dict[str, dict[str, float]] = {}
    changed: dict[str, set[str]] = {}
    for ref, listed in expected.items():
        member = percent_encode(ref.session_id)
        for order, score in listed.items():
            wanted.setdefault(keys.index(ref.project, order), {})[member] = score
        changed.setdefault(keys.index(ref.project, IndexOrder.CHANGED), set()).add(member)
        if user := hashes[ref].get("user_id"):
            wanted.setdefault(keys.user(ref.project, user), {})[member] = listed[IndexOrder.RECENT]
    found = {
        key.decode(): {member.decode(): score for member, score in client.zrange(key, 0, -1, withscores=True)}
        for pattern in (f"{keys.prefix}:index:*", f"{keys.prefix}:user:*")
        for key in client.scan_iter(match=pattern, count=1000)
    }
    records = {
        member.decode() for shard in range(keys.closing_shards) for member in client.zrange(keys.indexed(shard), 0, -1)
    }
    entries = {keys.indexed_member(ref, hashes[ref].get("user_id", "")) for ref in expected}
    if not looked:
        former = records - entries
        for session, _, user in (record.rpartition("/") for record in former):
            project, _, member = session.partition("/")
            found.get(f"{keys.prefix}:user:{{{project}/{user}}}", {}).pop(member, None)
        found = {key: members for key, members in found.items() if members}
        records -= former
    if forgotten:
        found = _without_former(found, wanted, keys)
    _assert_same({key: set(found.pop(key, {})) for key in changed}, changed)
    _assert_same(found, wanted)
    _assert_same({"indexed": records}, {"indexed": entries})
    projects = {member.decode() for member in client.zrange(keys.projects, 0, -1)}
    assert {percent_encode(ref.project) for ref in expected} <= projects


def _without_former(
    found: Mapping[str, Mapping[str, float]], wanted: Mapping[str, object], keys: Keys
) -> dict[str, dict[str, float]]:
    """The indexes without what stands under a user whom its session does not show, or shows no longer."""
    right = dict[str, dict[str, float]]()
    for key, members in found.items():
        place = keys.user_place(key.encode())
        shown: Any = wanted.get(key, {})
        kept = {member: score for member, score in members.items() if place is None or member in shown}
        if kept:
            right[key] = kept
    return right


def _assert_same(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Equal key by key, or a sentence that fits on a screen."""
    for key in sorted({*found, *wanted}):
        there, right = found.get(key, {}), wanted.get(key, {})
        if there == right:
            continue
        if isinstance(there, set) or isinstance(right, set):
            raise AssertionError(  # noqa: TRY004
                f"{key}: too many {set(there) - set(right)}, missing {set(right) - set(there)}"
            )
        differing = {name: (there.get(name), right.get(name)) for name in {*there, *right}}
        raise AssertionError(f"{key}: { ({name: two for name, two in differing.items() if two[0] != two[1]}) }")
