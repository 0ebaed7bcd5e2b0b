"""Sequences that make their items when asked: whatever a list says, they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipp_toolkit.utils.lazy_sequence import Chosen, Mapped, through

LIST = list(range(10, 30))


@given(st.slices(len(LIST)), st.slices(len(LIST)))
def test_slices_of_slices_are_those_of_a_list(first: slice, second: slice) -> None:
    lazy = Mapped(LIST, lambda one: one * 2)
    expected = [item * 2 for item in LIST]
    assert list(lazy[first]) == expected[first] == lazy[first]
    assert list(lazy[first][second]) == expected[first][second]


def test_indices_are_those_of_a_list() -> None:
    lazy = Mapped(LIST, str)
    assert lazy[0] == "10" and lazy[-1] == "29" and lazy[np.int64(3)] == "13" and len(lazy) == 20
    for index in (20, -21):
        with pytest.raises(IndexError, match="20 items and none at"):
            lazy[index]
    assert "15" in lazy and lazy.index("15") == 5 and next(reversed(lazy)) == "29"


def test_equal_is_what_has_the_same_items() -> None:
    lazy = Mapped(LIST, int)
    assert lazy == LIST and LIST.__eq__(lazy) is NotImplemented and lazy == tuple(LIST) and lazy == Mapped(LIST, int)
    assert lazy != LIST[:-1] and lazy != [*LIST[:-1], 0] and lazy != 3 and Mapped("ab", str) != "ab"


def test_nothing_is_made_that_is_not_asked_for() -> None:
    made: list[int] = []

    def make(one: int) -> int:
        made.append(one)
        return one

    lazy = Mapped(range(10**9), make)
    chosen = Chosen(lazy, np.array([5, 900_000_000, 7]))
    assert chosen[1] == 900_000_000 and list(chosen[1:]) == [900_000_000, 7]
    assert list(through(chosen, [2, 0])) == [7, 5]
    assert made == [900_000_000, 900_000_000, 7, 7, 5]
