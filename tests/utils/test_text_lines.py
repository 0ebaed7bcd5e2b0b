"""Lines by their place: those of Python's own text files, from the beginning and from anywhere."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipp_toolkit.utils import line_reader
from dipp_toolkit.utils.line_reader import Lines


@pytest.mark.parametrize("sizes", [(1, 1), (3, 7), (2**12, 2**18)])
@given(text=st.text(st.sampled_from("ab\n\r é\u2028\ufeff"), max_size=40), seed=st.integers(0, 9))
def test_lines_are_those_of_python(
    tmp_path_factory: pytest.TempPathFactory, sizes: tuple[int, int], text: str, seed: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "lines.txt"
    path.write_bytes(text.encode())
    before = line_reader.LEAST, line_reader.MOST
    line_reader.LEAST, line_reader.MOST = sizes
    try:
        with path.open("rb") as file:
            lines, places, found = Lines(file.fileno()), [], []
            while True:
                lines.mark()
                line = next(lines, None)
                if line is None:
                    break
                places.append((lines.start, lines.check))
                found.append(line)
            assert found == list(io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8-sig", newline=""))
            assert lines.count == len(found)
            for index in random.Random(seed).sample(range(len(found)), len(found)):
                lines.go_to(places[index][0])
                lines.mark()
                assert next(lines) == found[index] and (lines.start, lines.check) == places[index]
    finally:
        line_reader.LEAST, line_reader.MOST = before


def test_a_line_of_megabytes_is_read_in_few_steps(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("a" * 3_000_000 + "\nb")
    with (tmp_path / "long.txt").open("rb") as file:
        lines = Lines(file.fileno())
        assert [len(one) for one in lines] == [3_000_001, 1]
