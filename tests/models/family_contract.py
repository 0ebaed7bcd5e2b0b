"""Every pipeline class that a plugin registers keeps the contract of a family, on its tiny twin.

A plugin of your own, installed beside the toolkit, is tried too: `python -m pytest tests/models/family_contract.py -k
MyPipeline`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dipp_toolkit.experiments.family_contract import LINES, Twin, twin_of
from dipp_toolkit.registry import get_registry

CLASSES = sorted(get_registry().entries["pipeline"])


@pytest.fixture(scope="module", params=CLASSES)
def twin(request: pytest.FixtureRequest) -> Iterator[Twin]:
    with twin_of(request.param) as made:
        yield made


@pytest.mark.parametrize("line", LINES)
def test_a_family_keeps_the_contract(twin: Twin, line: str) -> None:
    broken = [f"{row.line}: {row.found}" for row in LINES[line](twin) if not row.kept]
    assert not broken, "\n".join(broken)
