"""The command and Python blocks of a page, how each is to be run, and what runs it.

A page says how in comments above a block that its readers do not see:

    <!-- given: prompts.txt; runs/first (run); my-pipeline (twin) -->
    <!-- run: small; dry-run; plain -->

`given` names what the page takes to be there: files of `FILES`, finished runs, tiny pipelines, the results of a bench.
`run` names a mode, or one for each command of the block:

- `plain`: as it is pasted, which is also what is done where nothing is said;
- `small`: with `SMALL` appended, so that a training or a bench is short;
- `dry-run`: with `--dry-run` appended;
- `twin`: with a tiny pipeline in the place of the published one, and without rewards;
- `words (reason)`: the words are parsed by the command, or looked up, and not run;
- `skip (reason)`: not run.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from command_words import check_command
from dipp_cli.app import main
from dipp_toolkit.utils.packages import extras_of

ROOT = Path(__file__).parents[2]
MODES = ("plain", "small", "dry-run", "twin", "words", "skip")
TRAINING = (
    "--batch-size=2", "--steps=1", "--set", "eval_count=2", "--set", "reference_steps=2", "--set", "assistant_warmup=0",
    "--quiet",
)  # fmt: skip
SMALL: Mapping[str, tuple[str, ...]] = {
    "train": TRAINING,
    "distill": TRAINING,
    "bench": ("--count=4", "--pictures=1", "--seeds=2", "--quiet"),
    "generate": (),
}
"""What `small` appends, by command; of an option that stands twice the last one counts, of a setting the page's own."""
TWIN = "./tiny-twin"
PROMPTS = "fox on blue\nbirthday cake on yellow\n"
REWARD = "def blue(images, prompts):\n    return images[:, 2].mean((1, 2)) - images[:, :2].mean((1, 2, 3))\n"
FILES: Mapping[str, str] = {
    "prompts.txt": PROMPTS,
    "settings.yaml": "steps: 100\nbatch_size: 8\n",
    "my_reward.py": f"{REWARD}\nscore = blue\n",
    "mine.py": REWARD,
    "blue.py": REWARD.replace("blue(", "blueness("),
    "PartiPrompts.tsv": "Prompt\tCategory\na cat\tAnimals\n",
    "captions_val2017.json": '{"annotations": [{"image_id": 1, "id": 1, "caption": "a cat"}], "images": [{"id": 1}]}',
}
BLOCK = re.compile(r"((?:^<!--[^\n]*-->\n+)*)^```(console|bash|sh|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMENT = re.compile(r"<!-- (given|run): (.*?) -->")
MODE = re.compile(r"([a-z-]+)(?: \((.+)\))?")
PROMPT = re.compile(r"^\w*\$ ")


@dataclass(frozen=True)
class Mode:
    """How a command is run.

    Attributes:
        name: one of `MODES`.
        reason: why it is not, or not as it stands.
    """

    name: str = "plain"
    reason: str = ""


@dataclass(frozen=True)
class Block:
    """A block of a page.

    Attributes:
        page: its file.
        line: of the fence, from 1.
        language: after the fence.
        text: between the fences.
        given: what the page takes to be there.
        modes: one, or one for each command.
    """

    page: Path
    line: int
    language: str
    text: str
    given: tuple[str, ...]
    modes: tuple[Mode, ...]

    @property
    def where(self) -> str:
        return f"{self.page.name}:{self.line}"

    def commands(self) -> list[str]:
        """The lines after a prompt, those that go on joined; of a Python block the whole of it."""
        if self.language == "python":
            return [self.text]
        if self.language != "console":
            return [line for line in self.text.splitlines() if line.strip()]
        joined = self.text.replace("\\\n", " ")
        return [PROMPT.sub("", line) for line in joined.splitlines() if PROMPT.match(line)]

    def each(self) -> list[tuple[str, Mode]]:
        """Every command with its mode."""
        commands = self.commands()
        modes = self.modes * len(commands) if len(self.modes) == 1 else self.modes
        assert len(modes) == len(commands), f"{self.where}: {len(self.modes)} modes for {len(commands)} commands"
        return list(zip(commands, modes, strict=True))


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page, in its order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page, text[: match.start(2)].count("\n") + 1, match.group(2), match.group(3), *_settings_of(match.group(1))
        )
        for match in BLOCK.finditer(text)
    ]


def _settings_of(comments: str) -> tuple[tuple[str, ...], tuple[Mode, ...]]:
    values = {kind: [part.strip() for part in text.split(";")] for kind, text in COMMENT.findall(comments)}
    modes = []
    for text in values.get("run", ["plain"]):
        match = MODE.fullmatch(text)
        assert match is not None, f"'{text}' is not a mode"
        modes.append(Mode(match.group(1), match.group(2) or ""))
    return tuple(values.get("given", ())), tuple(modes)


@dataclass
class Runner:
    """Runs the blocks of a page in one folder, in their order.

    Attributes:
        folder: the working folder.
        finished: makes finished runs, tiny pipelines and results of a bench, by kind: copies something to a place.
        shrink: a context in which a training from Python is short.
    """

    folder: Path
    finished: Mapping[str, Callable[[Path], object]]
    shrink: Callable[[], Any]

    def run(self, block: Block) -> None:
        """Give what is to be there, then run every command.

        Raises:
            AssertionError: one failed, or does not exist.
        """
        for text in block.given:
            self.give(text)
        for command, mode in block.each():
            if mode.name == "twin" and not (self.folder / TWIN).exists():
                self.finished["twin"](self.folder / TWIN)
            if mode.name != "skip":
                self.run_one(command, mode, block)

    def give(self, text: str) -> None:
        """Put a file, or something finished, where the page has it."""
        name, _, kind = text.partition(" (")
        place = self.folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if kind:
            self.finished[kind.removesuffix(")")](place)
        else:
            place.write_text(FILES[place.name], encoding="utf-8")

    def run_one(self, command: str, mode: Mode, block: Block) -> None:
        """Run one command."""
        if block.language == "python":
            self.run_python(command, mode, block)
            return
        words = shlex.split(command, comments=True)
        own = program_words(words)
        if own is None:
            self.run_foreign(words, command, mode)
        elif mode.name == "words":
            check_command(own)
        else:
            code = main(spelled(own, mode))
            assert code == 0, f"{block.where}: {command} ended with {code}"

    def run_python(self, text: str, mode: Mode, block: Block) -> None:
        """Write an example with a file's name in its first line, run any other."""
        name = re.match(r"# (\S+\.py)\n", text)
        if name:
            (self.folder / name.group(1)).write_text(text, encoding="utf-8")
            return
        code = compile(text, block.where, "exec")
        if mode.name == "words":
            return
        with self.shrink():
            exec(code, {"__name__": "__main__"})

    def run_foreign(self, words: list[str], command: str, mode: Mode) -> None:
        """A command of another program: of make the target is looked up, of pip the extra; a shell runs the rest."""
        if words[0] == "make":
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), command
        elif words[:2] == ["pip", "install"]:
            for extra in re.findall(r"dipp-toolkit\[([\w,]+)\]", command):
                assert set(extra.split(",")) <= extras_of("dipp-toolkit").keys(), command
        elif mode.name == "plain":
            subprocess.run(["bash", "-ec", command], check=True, cwd=self.folder, timeout=300)


def program_words(words: list[str]) -> list[str] | None:
    """The words after `dipp`, whoever starts it; None of another program.

    Raises:
        AssertionError: a file that the launcher is given is not in the project.
    """
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    if words[0] == "dipp":
        return words[1:]
    if words[0] in ("accelerate", "torchrun"):
        place = words.index("-m")
        assert words[place + 1] == "dipp_cli"
        for flag, value in pairwise(words[: place + 1]):
            assert flag != "--config_file" or (ROOT / value).is_file(), value
        return words[place + 2 :]
    if words[0] == "sbatch":
        assert (ROOT / words[1]).is_file(), words[1]
        return ["train", *words[2:]]
    return None


def spelled(words: list[str], mode: Mode) -> list[str]:
    """The words of a command as its mode has them."""
    if mode.name == "dry-run":
        return [*words, "--dry-run"]
    if mode.name == "small":
        return [*words, *_without_settings(SMALL[words[0]], words)]
    if mode.name == "twin":
        kept, index = [], 0
        while index < len(words):
            flag = words[index]
            if flag in ("--generator", "--reference"):
                kept += [flag, TWIN] if "--reference" in words else [flag, TWIN, "--reference", TWIN]
            elif flag != "--reward":
                kept.append(flag)
                index += 1
                continue
            index += 2
        return kept
    return words


def _without_settings(small: tuple[str, ...], words: list[str]) -> Iterator[str]:
    """`SMALL` without the settings that the command sets itself."""
    own = {words[index + 1].partition("=")[0] for index, word in enumerate(words[:-1]) if word == "--set"}
    pairs = iter(small)
    for word in pairs:
        if word != "--set":
            yield word
            continue
        value = next(pairs)
        if value.partition("=")[0] not in own:
            yield from (word, value)


def copied(source: Path) -> Callable[[Path], object]:
    """What puts a copy of a folder or file somewhere."""

    return lambda place: shutil.copytree(source, place) if source.is_dir() else shutil.copyfile(source, place)
