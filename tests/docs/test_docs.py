"""The documentation says what is true: its examples work, its links lead somewhere, its settings are the code's."""

from __future__ import annotations

import ast
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dipp_toolkit.config import TrainConfig, make_config
from dipp_toolkit.hooks import hookimpl
from dipp_toolkit.models.loading import load_reference
from dipp_toolkit.objective.base import Sample, TermContext
from dipp_toolkit.objective.build import build_term
from dipp_toolkit.registry import Registry
from dipp_toolkit.rewards.loading import load_reward
from dipp_toolkit.training.assistant import LearnedAssistant
from dipp_toolkit.training.run_state.run_folder import MAY_CHANGE
from dipp_toolkit.utils.assignments import parse_assignments
from dipp_toolkit.utils.setting_layers import flat_name
from tiny import LATENT_SHAPE, PROMPTS, tiny_pipeline

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
ROOMS = ("dipp_toolkit", "cli", "plugins", "docs", "tools", "tests", "benchmarks")
CITED = re.compile(r"\[`([\w./-]+\.py):([\w.]+)`\]\(([^)\s]+)\)")
PLACE = re.compile(r"(?<![\w./<>-])((?:docs|tools|tests|benchmarks)/[\w-][\w./-]*\w(?:#[a-z][\w-]*)?)")


def example(page: str, name: str) -> str:
    """The Python example of a page that begins with the comment `# name`."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    (example,) = [block for block in blocks if block.startswith(f"# {name}\n")]
    return example


@pytest.fixture
def write(tmp_path: Path):
    def write_example(name: str) -> Path:
        path = tmp_path / name
        path.write_text(example("guide/writing-a-plugin.md", name), encoding="utf-8")
        return path

    return write_example


def test_the_settings_page_is_current() -> None:
    render = runpy.run_path(str(ROOT / "tools" / "build_settings.py"))["render"]
    assert (DOCS / "reference" / "settings.md").read_text(encoding="utf-8") == render(), (
        "run: python tools/build_settings.py"
    )
    assert all(f"| `{name}` |" in render() for name in TrainConfig.model_fields)
    rows = {flat_name(line.split("`")[1]): line for line in render().splitlines() if line.startswith("| `")}
    assert {name for name, row in rows.items() if "| may change |" in row} == MAY_CHANGE


def test_the_measured_tables_are_what_the_benchmarks_wrote() -> None:
    build = runpy.run_path(str(ROOT / "tools" / "build_tables.py"))
    for page in build["PAGES"]:
        assert build["render"](page) == (DOCS / page).read_text(encoding="utf-8"), "run: python tools/build_tables.py"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def leads_somewhere(link: str, folder: Path) -> bool:
    """Whether the file of a link exists, and has the heading where the link names one."""
    name, _, anchor = link.partition("#")
    target = folder / name
    return target.exists() and (not anchor or anchor in anchors(target))


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("*.md")), *ROOT.glob("*/README.md"), *PAGES], ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith("http")]
    own = [page.name + link if link.startswith("#") else link for link in links]
    assert [link for link in own if not leads_somewhere(link, page.parent)] == []


def test_paths_in_the_code_and_in_the_pages_exist() -> None:
    """Files of the project that docstrings, comments, messages and pages name, with their headings."""
    kept = [f"{folder}/**/*.{suffix}" for folder in ROOMS for suffix in ("py", "md", "yaml", "sbatch", "jinja")]
    files = {path for pattern in (*kept, "*.md", "Makefile", "pyproject.toml") for path in ROOT.glob(pattern)}
    named = [
        (str(path.relative_to(ROOT)), link)
        for path in sorted(files)
        if path.suffix != ".md" or path.name == "README.md" or not path.is_relative_to(ROOT / "benchmarks")
        for link in PLACE.findall(path.read_text(encoding="utf-8"))
        if "NAME" not in link
    ]
    assert len(named) > 100
    assert [place for place in named if not leads_somewhere(place[1], ROOT)] == []


def names_in(path: Path) -> set[str]:
    """What a module defines: functions, classes, constants, and of classes their methods and fields."""

    def names(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield prefix + node.name
            annotated = [node.target] if isinstance(node, ast.AnnAssign) else []
            targets = node.targets if isinstance(node, ast.Assign) else annotated
            yield from (prefix + target.id for target in targets if isinstance(target, ast.Name))
            if isinstance(node, ast.ClassDef):
                yield from names(node.body, f"{prefix}{node.name}.")

    return set(names(ast.parse(path.read_text(encoding="utf-8")).body))


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=str)
def test_the_code_is_where_a_page_says(page: Path) -> None:
    """Links such as [`training/engine.py:Engine.step`](../../dipp_toolkit/training/engine.py)."""
    for path, name, link in CITED.findall(page.read_text(encoding="utf-8")):
        target = (page.parent / link).resolve()
        assert target.as_posix().endswith(f"/{path}"), f"{path} is not {link}"
        assert name in names_in(target), f"{path} does not define {name}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent != DOCS], ids=str)
def test_a_page_links_to_the_code_that_it_speaks_of(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    code = [(page.parent / link).resolve() for link in links if "://" not in link]
    rooms = [ROOT / room for room in ("dipp_toolkit", "cli", "plugins", "benchmarks")]
    code = [path for path in code if path.exists() and any(path.is_relative_to(room) for room in rooms)]
    assert [path for path in code if path.suffix != ".md"]


def test_the_readme_says_where_things_live() -> None:
    table = (ROOT / "README.md").read_text(encoding="utf-8").split("<!-- where -->\n")[1].split("<!-- /where -->")[0]
    rows = [line for line in table.splitlines()[2:] if line.startswith("|")]
    assert len(rows) >= 10
    assert [row for row in rows if not CITED.search(row)] == []


def test_files_that_a_reader_opens_are_counted() -> None:
    page = (DOCS / "guide" / "architecture.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.split("## Files a reader opens")[1].splitlines() if "](../../" in line]
    assert len(rows) == 5
    assert [row[1] for row in rows if int(row[3]) != row[4].count("](../../")] == []


def test_the_reward_of_ten_lines(write) -> None:
    assert len(example("guide/writing-a-plugin.md", "blue.py").splitlines()) <= 10
    reward = load_reward(f"{write('blue.py')}:blueness")
    images = torch.rand(2, 3, 4, 4, requires_grad=True)
    scores = reward(images, ["a", "b"])
    assert scores.shape == (2,)
    assert torch.autograd.grad(scores.sum(), images)[0].abs().sum() > 0


def test_the_reward_with_options(write) -> None:
    options = parse_assignments(["reward../channel.py:Channel.strength=2"])["reward_options"]["./channel.py:Channel"]
    reward = load_reward(f"{write('channel.py')}:Channel", **options)
    torch.testing.assert_close(reward(torch.ones(1, 3, 2, 2), [""]), torch.tensor([2.0]))


def test_the_plugin_registers(write, registry: Registry) -> None:
    namespace = runpy.run_path(str(write("__init__.py")))
    assert namespace["hookimpl"] is hookimpl
    module = type("plugin", (), {"dipp_register_rewards": staticmethod(namespace["dipp_register_rewards"])})
    registry.add_plugin("warmth", lambda: module)
    assert registry.broken == []
    assert registry.find("reward", "warmth").factory == "dipp_warmth.reward:Warmth"


def test_the_term(write, tmp_path: Path) -> None:
    reference = load_reference(str(tiny_pipeline(tmp_path / "pipeline")))
    copied = reference.denoiser.trainable_copy()
    assistant = LearnedAssistant(copied, torch.optim.Adam(copied.network.parameters()))
    context = TermContext(reference, assistant, make_config({"guidance": 2.0}))
    term = build_term(f"{write('sds.py')}:ScoreDistillation", context)
    noise = torch.randn(len(PROMPTS), *LATENT_SHAPE)
    sample = Sample(noise, reference.encode(PROMPTS), noise, torch.Generator().manual_seed(0))
    result = term(sample)
    assert result.grad.shape == noise.shape
    torch.testing.assert_close(result.value, result.grad.square().flatten(1).mean(1) / 2)
