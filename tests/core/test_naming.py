"""Encoded names are safe, reversible and as DESIGN section 6 spells them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.core.model import SessionRef
from aggregator.core.naming import decode_ref, encode_ref, percent_decode, percent_encode

texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("", ""),
        ("aZ09-_.~:@", "aZ09-_.~:@"),
        ("a b/c{d}", "a%20b%2Fc%7Bd%7D"),
        ("100%", "100%25"),
        ("é\n+", "%C3%A9%0A%2B"),
    ],
)
def test_spelling(text: str, encoded: str) -> None:
    assert percent_encode(text) == encoded
    assert percent_decode(encoded) == text


@given(project=texts, session_id=texts)
def test_reversible_and_safe(project: str, session_id: str) -> None:
    ref = SessionRef(project, session_id)
    encoded = encode_ref(ref)
    assert re.fullmatch(r"([A-Za-z0-9\-_.~:@]|%[0-9A-F]{2})*/([A-Za-z0-9\-_.~:@]|%[0-9A-F]{2})*", encoded)
    assert decode_ref(encoded) == ref


@pytest.mark.parametrize("text", ["", "plain", "a/b/c", "a/%FF"])
def test_refuses_what_is_no_name(text: str) -> None:
    with pytest.raises(ValueError, match=r"<project>|utf-8"):
        decode_ref(text)
