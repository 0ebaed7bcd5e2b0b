"""The site's navigation is the list in `docs/index.md`: a page is listed once, for GitHub's readers and the site's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

SECTION = re.compile(r"^## (.+)$")
ITEM = re.compile(r"^- \[([^\]]+)\]\(([^)#]+\.md)\)")


def sections(index: str) -> dict[str, list[tuple[str, str]]]:
    """The sections of the list, by the word before the colon of their heading.

    Args:
        index: the text of `docs/index.md`.

    Returns:
        of each section with pages, their titles and files, in order.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for line in index.splitlines():
        if heading := SECTION.match(line):
            name = heading.group(1).partition(":")[0]
        elif item := ITEM.match(line):
            found.setdefault(name, []).append((item.group(1), item.group(2)))
    return found


def github_slug(text: str, separator: str = "-") -> str:
    """The anchor of a heading as GitHub makes it, so that one link holds in both places."""
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", separator)


def on_config(config: Any) -> Any:
    """Gives the site its navigation and its anchors."""
    index = (Path(config.docs_dir) / "index.md").read_text(encoding="utf-8")
    pages = [{name: [{title: file} for title, file in items]} for name, items in sections(index).items()]
    config.nav = [{"Home": "index.md"}, *pages]
    config.mdx_configs.setdefault("toc", {}).update(slugify=github_slug, permalink=True)
    return config
