"""Links that leave `docs/`: GitHub follows them to the file, the site to a page that shows it.

Where `repo_url` of mkdocs.yml names the repository, they lead there instead. A link to a folder, or to a file that is
too large to show, is left as text while no address is known.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from markdown import Extension, Markdown
from markdown.treeprocessors import Treeprocessor
from mkdocs.structure.files import File, InclusionLevel

ROOT = Path(__file__).parents[2]
SHOWN = "code"
"""The folder of the site where files are shown."""
LARGEST = 100_000
LANGUAGES = {".py": "python", ".md": "markdown", ".yaml": "yaml", ".json": "json", ".sbatch": "bash", ".toml": "toml"}
PICTURES = {".png", ".svg"}
LINK = re.compile(r"\]\(((?:\.\./)+[^)\s]+)\)")
PAGE = "---\nsearch:\n  exclude: true\nhide: [navigation, toc]\n---\n# {path}\n\n{fence}{language}\n{text}\n{fence}\n"


def outside(page: str, link: str) -> str | None:
    """The file of the repository that a link of a page leads to.

    Args:
        page: the page's place in `docs/`.
        link: as it is written.

    Returns:
        its place in the repository, or None where the link stays in `docs/` or has an address.
    """
    if "://" in link or link.startswith(("#", "/", "mailto:")):
        return None
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link.partition("#")[0]))
    return None if path == "docs" or path.startswith(("docs/", "..")) else path


def shown(path: str) -> bool:
    """Whether a file of the repository has a page of its own."""
    file = ROOT / path
    return file.is_file() and file.suffix in LANGUAGES and file.stat().st_size <= LARGEST


def picture(path: str) -> bool:
    """Whether a file of the repository is a picture, which the site takes along."""
    return Path(path).suffix in PICTURES and (ROOT / path).is_file()


def page_of(path: str) -> str:
    """The text of the page that shows a file."""
    text = (ROOT / path).read_text(encoding="utf-8").rstrip()
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", text)), default=0))
    return PAGE.format(path=path, fence=fence, language=LANGUAGES[Path(path).suffix], text=text)


class Outside(Treeprocessor):
    """Rewrites links of the page that `on_page_markdown` announced, before mkdocs looks at them."""

    page = ""
    repo_url: str | None = None

    def run(self, root: Element) -> None:
        for image in root.iter("img"):
            path = outside(self.page, image.get("src") or "")
            if path is not None and picture(path):
                image.set("src", self.within(f"{SHOWN}/{path}"))
        for link in root.iter("a"):
            href = link.get("href") or ""
            path = outside(self.page, href)
            if path is None:
                continue
            if self.repo_url:
                _, mark, anchor = href.partition("#")
                link.set("href", f"{self.repo_url.rstrip('/')}/blob/main/{path}{mark}{anchor}")
            elif shown(path):
                link.set("href", self.within(f"{SHOWN}/{path}.md"))
            else:
                link.tag = "span"
                del link.attrib["href"]

    def within(self, uri: str) -> str:
        """A file of the site as the page links to it."""
        return posixpath.relpath(uri, posixpath.dirname(self.page) or ".")


class OutsideLinks(Extension):
    """Markdown with `Outside`."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 -- Markdown's own name
        md.treeprocessors.register(Outside(md), "outside", 5)  # links exist from 20 on, mkdocs looks at 0


def on_config(config: Any) -> Any:
    """Adds the extension."""
    Outside.repo_url = config.repo_url
    config.markdown_extensions.append(OutsideLinks())
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds what pages show from outside: pictures, and a page for every file that is linked to."""
    paths = {
        path
        for file in files.documentation_pages()
        for link in LINK.findall(file.content_string)
        if (path := outside(file.src_uri, link))
    }
    for path in sorted(paths):
        if picture(path):
            files.append(File.generated(config, f"{SHOWN}/{path}", abs_src_path=str(ROOT / path)))
        elif shown(path) and not config.repo_url:
            uri, content = f"{SHOWN}/{path}.md", page_of(path)
            files.append(File.generated(config, uri, content=content, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Announces the page that is about to be rendered."""
    Outside.page = page.file.src_uri
    return markdown
