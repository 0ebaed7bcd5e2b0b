"""What a program reads of the site: `llms.txt`, an index of the pages, and every page's Markdown beside it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

HEAD = """# dipp-toolkit

> {summary}

Every page is Markdown at the address given here; paths are relative to this file. Links to code are relative to the
repository.

"""


def llms_txt(index: str, summary: str) -> str:
    """The index for programs, in the layout of llmstxt.org.

    Args:
        index: the text of `docs/index.md`.
        summary: a sentence.
    """
    sections = re.split(r"^(?=## )", index, flags=re.MULTILINE)[1:]
    lists = [
        f"{heading.partition(':')[0]}\n\n{_items(rest)}" for heading, _, rest in (s.partition("\n") for s in sections)
    ]
    return HEAD.format(summary=summary) + "\n".join(lists)


def _items(section: str) -> str:
    items = re.findall(r"^- .*(?:\n  .*)*", section, re.MULTILINE)
    return "".join(f"{re.sub(chr(10) + '  ', ' ', item)}\n" for item in items)


def on_post_build(config: Any) -> None:
    """Writes them into the built site."""
    docs, site = Path(config.docs_dir), Path(config.site_dir)
    index = (docs / "index.md").read_text(encoding="utf-8")
    (site / "llms.txt").write_text(llms_txt(index, config.site_description), encoding="utf-8")
    for page in docs.rglob("*.md"):
        target = site / page.relative_to(docs)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(page, target)
