"""Key names, and what is read back from them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from aggregator.adapters.redis.keys import Keys
from aggregator.core.errors import ConfigurationError, CorruptState
from aggregator.core.model import Partition, SessionRef

texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=80)


def test_names_are_those_of_the_design() -> None:
    keys = Keys()
    session = "agg:session:{de%20mo/s%2F%7B1%7D}"
    assert keys.session(SessionRef("de mo", "s/{1}")) == (session, f"{session}:traces", f"{session}:models")
    assert keys.trace(b"\xab" * 16) == "agg:trace:{" + "ab" * 16 + "}"
    assert (keys.due(7), keys.watermarks, keys.progress) == ("agg:due:7", "agg:watermarks", "agg:progress")
    assert keys.partition_field(Partition("otlp_spans", 3)) == "otlp_spans/3"


@given(project=texts, session_id=texts)
def test_a_session_has_one_slot_and_comes_back_from_the_index(project: str, session_id: str) -> None:
    keys, ref = Keys("p", closing_shards=64), SessionRef(project, session_id)
    assert len({key_slot(key.encode()) for key in keys.session(ref)}) == 1
    assert re.fullmatch(r"p:session:\{[^{}\s]+\}", keys.session(ref).session)
    assert keys.due_ref(3, keys.due_member(ref).encode()) == ref
    assert 0 <= keys.shard(ref) < 64


def test_the_shard_of_a_session_never_changes() -> None:
    keys = Keys(closing_shards=64)
    assert [keys.shard(SessionRef("demo", f"s-{number}")) for number in range(4)] == [16, 6, 60, 42]


@pytest.mark.parametrize("prefix", ["", "a{b", "}"])
def test_a_prefix_that_would_break_hash_tags_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match=r"redis\.key_prefix"):
        Keys(prefix)


@pytest.mark.parametrize("member", [b"no-slash", b"a/b/c", b"\xff/a"])
def test_an_index_entry_of_another_make_is_named(member: bytes) -> None:
    with pytest.raises(CorruptState, match="agg:due:3"):
        Keys().due_ref(3, member)
