"""The site is built strictly from docs/, has every page, and loads nothing from a network."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import dipp_toolkit

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TOOLS = ROOT / "tools"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
INDEX = (DOCS / "index.md").read_text(encoding="utf-8")
NEEDED = ("mkdocs", "material", "mkdocstrings", "mkdocstrings_handlers.python", "latex2mathml")
LOADED = re.compile(r"""<(?:script|img|source|iframe|link)\b[^>]*?\b(?:src|href)=["']?((?:https?:)?//[^"' >]+)""")
CSS = re.compile(r"""(?:@import\s+|url\()\s*["']?((?:https?:)?//[^"')]+)""")


def test_every_page_is_in_the_list_that_the_navigation_is_made_of() -> None:
    sections = runpy.run_path(str(TOOLS / "site_hooks" / "navigation.py"))["sections"](INDEX)
    listed = [file for items in sections.values() for _, file in items]
    assert sorted(listed) == [page for page in PAGES if page != "index.md"]


def test_the_list_for_programs_has_every_page() -> None:
    text = runpy.run_path(str(TOOLS / "site_hooks" / "for_programs.py"))["llms_txt"](INDEX, "A sentence.")
    assert text.startswith("# dipp-toolkit\n\n> A sentence.\n")
    assert [page for page in PAGES if page != "index.md" and f"]({page})" not in text] == []


def test_the_page_of_commands_is_current() -> None:
    render = runpy.run_path(str(TOOLS / "build_commands.py"))["render"]
    page = (DOCS / "reference" / "commands.md").read_text(encoding="utf-8")
    assert page == render(), "run: python tools/build_commands.py"


@pytest.mark.slow
def test_the_plan_on_one_gpu_is_current() -> None:
    render = runpy.run_path(str(TOOLS / "build_plans.py"))["render"]
    page = (DOCS / "guide" / "align-on-one-gpu.md").read_text(encoding="utf-8")
    assert page == render(), "run: python tools/build_plans.py"


def test_every_public_name_is_in_the_python_reference() -> None:
    page = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    named = re.findall(r"^::: dipp_toolkit\.(\w+)$", page, re.MULTILINE)
    assert sorted(named) == sorted(set(dipp_toolkit.__all__) - {"__version__"})


def rendered(text: str, page: str, repo_url: str | None) -> str:
    """A page's text with its links as the site has them."""
    pytest.importorskip("mkdocs")
    markdown = pytest.importorskip("markdown")
    links = runpy.run_path(str(TOOLS / "site_hooks" / "links.py"))
    links["Outside"].page, links["Outside"].repo_url = page, repo_url
    return markdown.markdown(text, extensions=[links["OutsideLinks"]()])


def test_links_out_of_docs_lead_to_pages_that_show_the_file_or_are_text() -> None:
    text = (
        "[file](../../dipp_toolkit/config.py) [page](../index.md#guide) [folder](../../benchmarks) [far](https://a.b)"
    )
    html = rendered(text, "guide/questions.md", None)
    assert 'href="../code/dipp_toolkit/config.py.md"' in html
    assert 'href="../index.md#guide"' in html and 'href="https://a.b"' in html
    assert "<span>folder</span>" in html


def test_links_out_of_docs_lead_to_the_repository_where_its_address_is_known() -> None:
    text = "[map](../../CONTRIBUTING.md#the-map) [folder](../../benchmarks) [page](../index.md)"
    html = rendered(text, "guide/questions.md", "https://a.b/c/")
    assert 'href="https://a.b/c/blob/main/CONTRIBUTING.md#the-map"' in html
    assert 'href="https://a.b/c/blob/main/benchmarks"' in html
    assert 'href="../index.md"' in html


def test_a_formula_is_refused_where_it_would_be_shown_by_its_name() -> None:
    pytest.importorskip("latex2mathml")
    to_mathml = runpy.run_path(str(TOOLS / "site_hooks" / "mathematics.py"))["to_mathml"]
    assert "<msub>" in to_mathml("x_0")
    assert "&#x02016;" in to_mathml(r"\Big\| x \Big\|^2")
    with pytest.raises(ValueError, match="does not know"):
        to_mathml(r"\notacommand x")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    if missing := [name for name in NEEDED if find_spec(name.partition(".")[0]) is None]:
        pytest.skip(f"{', '.join(missing)} not installed: pip install --group docs")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.slow
def test_the_site_has_every_page_and_finds_the_reward_scale(site: Path) -> None:
    for page in PAGES:
        place = site / (page.removesuffix("index.md") if page.endswith("index.md") else page.removesuffix(".md"))
        assert (place / "index.html").is_file(), page
        assert (site / page).read_bytes() == (DOCS / page).read_bytes()
    found = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))["docs"]
    assert not [entry for entry in found if entry["location"].startswith("code/")], "files of code are not searched"
    about = [entry["location"] for entry in found if "reward" in entry["title"].lower() and "scale" in entry["title"]]
    assert any(location.startswith("guide/choose-a-reward-scale/") for location in about)


@pytest.mark.slow
def test_the_site_loads_nothing_from_a_network(site: Path) -> None:
    loads = {match for page in site.rglob("*.html") for match in LOADED.findall(page.read_text(encoding="utf-8"))}
    loads |= {match for sheet in site.rglob("*.css") for match in CSS.findall(sheet.read_text(encoding="utf-8"))}
    assert loads == set()


@pytest.mark.slow
def test_formulas_are_drawn_by_the_browser(site: Path) -> None:
    text = (site / "guide" / "concepts" / "index.html").read_text(encoding="utf-8")
    assert text.count("<math") > 50
    left = [page for page in site.rglob("*.html") if 'class="arithmatex"' in page.read_text(encoding="utf-8")]
    assert left == []


@pytest.mark.slow
def test_links_to_code_lead_to_pages_of_the_site(site: Path) -> None:
    page = site / "guide" / "architecture" / "index.html"
    links = re.findall(r'href="(\.\./\.\./code/[^"#]+)"', page.read_text(encoding="utf-8"))
    assert len(links) > 50
    assert all((page.parent / link / "index.html").is_file() for link in links)
