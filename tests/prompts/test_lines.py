"""Lines of prompt files: those of Python's own text files, or of bytes where a carriage return ends none."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipp_toolkit.errors import RequestError
from dipp_toolkit.prompts.files import read_prompt_file

TEXTS = st.text(st.sampled_from("ab\n\r é\u2028\ufeff"), max_size=40)


def prompts_in(path: Path, content: bytes) -> list[tuple[str, str]]:
    """Ids and texts; none of a file that holds no prompts."""
    path.write_bytes(content)
    try:
        return [(prompt.id, prompt.text) for prompt in read_prompt_file(path).prompts]
    except RequestError as error:
        assert "holds no prompts" in str(error)
        return []


@given(text=TEXTS, mark=st.booleans())
def test_lines_are_those_of_python(tmp_path_factory: pytest.TempPathFactory, text: str, mark: bool) -> None:
    content = text.encode("utf-8-sig" if mark else "utf-8")
    lines = io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", newline="")
    expected = [(str(number), line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    assert prompts_in(tmp_path_factory.getbasetemp() / "lines.txt", content) == expected


@given(texts=st.lists(TEXTS.map(str.strip).filter(bool)), ends=st.sampled_from(["\n", "\r\n", "\n\r\n\n", "\r\r\n"]))
def test_json_lines_end_at_line_feeds_alone(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], ends: str
) -> None:
    content = "".join(json.dumps(text, ensure_ascii=False) + ends for text in texts).encode("utf-8-sig")
    expected = [(str(number), text) for number, text in enumerate(texts, 1)]
    assert prompts_in(tmp_path_factory.getbasetemp() / "lines.jsonl", content) == expected


def test_a_line_of_a_megabyte(tmp_path: Path) -> None:
    rows = prompts_in(tmp_path / "long.txt", b"a" * 2**20 + b"\nb")
    assert [len(text) for _, text in rows] == [2**20, 1]
