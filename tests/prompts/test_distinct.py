"""Different texts are counted as a set counts them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dipp_toolkit.prompts.cache import count_distinct


@given(texts=st.lists(st.sampled_from(["", "a", "b", "c", "a cat", "\ud800"])))
def test_as_many_as_a_set_has(texts: list[str]) -> None:
    assert count_distinct(iter(texts)) == len(set(texts))
