"""The page in a browser: what `benchmarks/vote_page` does, with fewer votes."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.vote_page.run import drive, failed, missing


@pytest.mark.slow
@pytest.mark.skipif(bool(missing()), reason=missing() or "all is there")
def test_two_browsers_a_reload_an_undo_and_three_kills_lose_no_vote(tmp_path: Path) -> None:
    result = drive(12, None, tmp_path)
    assert result["kept"] == result["pressed"] == {"Ann": 12, "Bob": 12}
    assert result["kills"] == 3
    assert not failed(result), result
