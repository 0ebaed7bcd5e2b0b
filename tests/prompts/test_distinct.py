"""Different texts are counted as a set counts them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipp_toolkit.prompts import distinct
from dipp_toolkit.prompts.distinct import count_distinct


@pytest.mark.parametrize("part", [1, 3, 2**16])
@given(texts=st.lists(st.sampled_from(["", "a", "b", "c", "a cat", "\ud800"])))
def test_as_many_as_a_set_has(part: int, texts: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distinct, "PART", part)
        assert count_distinct(iter(texts)) == len(set(texts))
