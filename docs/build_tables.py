"""Puts the benchmarks' recorded tables into docs/real-models.md: `python docs/build_tables.py`."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "real-models.md"
TABLES = {"decode-options": "decode_options", "full-size": "full_size_step"}


def page() -> str:
    """The page with the tables as they were last measured."""
    text = PAGE.read_text(encoding="utf-8")
    for mark, benchmark in TABLES.items():
        table = (ROOT / "benchmarks" / benchmark / "results.md").read_text(encoding="utf-8").strip()
        text = re.sub(
            rf"<!-- {mark} -->.*<!-- /{mark} -->", lambda _, m=mark, t=table: f"<!-- {m} -->\n{t}\n<!-- /{m} -->",
            text, flags=re.DOTALL,
        )  # fmt: skip
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
