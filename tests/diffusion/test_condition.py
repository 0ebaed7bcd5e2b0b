"""Conditions: how long each row of a mask is."""

from __future__ import annotations

import torch

from dipp_toolkit.diffusion.condition import row_lengths
from dipp_toolkit.planning.dry_run import dry
from dipp_toolkit.utils.host_waits import HostWaits


def test_the_lengths_of_rows_are_read_once() -> None:
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
    with HostWaits(host_too=True) as waits:
        assert [row_lengths(mask) for _ in range(3)] == [[2, 4, 1]] * 3
    assert waits.by_kind == {"read": 1}
    assert row_lengths(mask[:2]) == [2, 4]


def test_in_a_dry_run_rows_are_as_long_as_can_be() -> None:
    with dry():
        assert row_lengths(torch.zeros(3, 7, dtype=torch.int64)) == [7, 7, 7]
