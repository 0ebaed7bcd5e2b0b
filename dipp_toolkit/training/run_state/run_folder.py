"""The folder a run leaves: its settings, metrics, checkpoints, and where everything else goes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...config import TrainConfig, make_config
from ...errors import CheckpointError, RequestError, RunError
from ...planning.recipes.recipe import settings_or_recipe
from ...utils.assignments import is_isolated_name, is_remote_name, read_yaml
from ...utils.atomic import write_text
from ...utils.disk_errors import reason_of, way_on
from ...utils.folder_lock import LOCK
from ...utils.messages import shown
from ...utils.paths import check_all_below, remove_below
from ..listeners import FOLDERS as TRACKER_FOLDERS
from ..setup.given_parts import heading
from .start_settings import as_begun, read_begun_settings

MAY_CHANGE = {
    "steps",
    "out",
    "resume",
    "checkpoint_every",
    "keep_checkpoints",
    "sample_every",
    "trackers",
    "device",
    "prompt_cache",
    "push_to_hub",
    "monitor_every",
    "monitor_count",
    "monitor_rewards",
    "monitor_patience",
    "stop_on",
    "diagnose_every",
    "accumulation",
    "activation_offload",
    "deterministic",
    "spike",
    "bad_steps",
}
"""Settings that a resumed run may have other values of than the run it goes on from."""

WAYS = {
    "timeout", "retries", "token_env", "token_file", "max_megabytes", "concurrency", "budget", "tolerate", "key_env",
    "cache", "offline",
}  # fmt: skip
"""Options of rewards elsewhere that say how they are asked and change no score that was given: they may change too."""

LEFT_BY_A_START = (
    LOCK, "begun.json", "config.yaml", "samples", "metrics.jsonl", "skipped.jsonl", "monitors.jsonl",
    "monitors.safetensors", "diagnostics.jsonl", "checkpoints", *TRACKER_FOLDERS,
)  # fmt: skip
"""What may be in a run folder before the first step is done."""


class FolderGone(RunError):  # noqa: N818
    """The run folder is not where it was, so that nothing can be saved in it."""


def _deciding(config: TrainConfig, name: str) -> Any:
    """A setting's value without what changes no number of the run."""
    return deciding_options(config.reward_options) if name == "reward_options" else getattr(config, name)


def deciding_options(options: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rewards' options without those of `WAYS`, where they are of a reward elsewhere: by itself, or in an ensemble."""
    deciding: dict[str, dict[str, Any]] = {}
    for name, own in options.items():
        elsewhere = is_remote_name(name) or is_isolated_name(name)
        kept = {key: value for key, value in own.items() if not (elsewhere and key in WAYS)}
        members = kept.get("options")
        if isinstance(members, Mapping) and all(isinstance(member, Mapping) for member in members.values()):
            kept["options"] = deciding_options(members)
        if kept:
            deciding[name] = kept
    return deciding


@dataclass(frozen=True)
class RunFolder:
    """Paths and files of one run.

    Attributes:
        path: the folder.
        identity: device and number of the folder that is meant, whatever becomes of its name; any where None.
    """

    path: Path
    identity: tuple[int, int] | None = field(default=None, compare=False)

    @property
    def begun(self) -> Path:
        return self.path / "begun.json"

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def skips(self) -> Path:
        return self.path / "skipped.jsonl"

    @property
    def monitors(self) -> Path:
        return self.path / "monitors.jsonl"

    @property
    def diagnostics(self) -> Path:
        return self.path / "diagnostics.jsonl"

    @property
    def monitor_bases(self) -> Path:
        return self.path / "monitors.safetensors"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def comparison(self) -> Path:
        return self.samples / "comparison"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def final(self) -> Path:
        return self.path / "final"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    def create(self, config: TrainConfig) -> None:
        """Make the folder and write the settings.

        Raises:
            RequestError: it cannot be written.
        """
        self._check_places()
        try:
            self.samples.mkdir(parents=True, exist_ok=True)
            # A run's settings say nothing of its own folder: whoever begins anew with them gets a fresh one.
            settings = config.model_copy(update={"resume": False, "out": None})
            write_text(self.config, heading(config) + settings.to_yaml())
        except OSError as error:
            way = way_on(error, "Run the same command again.")
            raise RequestError(f"Cannot write the run folder: {reason_of(error)}. {way}") from error

    def saved_config(self) -> TrainConfig:
        """The settings that the run was begun with."""
        return make_config(read_begun_settings(self.config))

    def load_for_resume(self, config: TrainConfig) -> tuple[dict[str, Any] | None, list[str]]:
        """The state to go on from, and what was wrong with newer checkpoints.

        Args:
            config: the resolved settings asked for now.

        Returns:
            The newest whole checkpoint's state, None where the run was stopped before its first one.

        Raises:
            CheckpointError: the folder is not a run, was run with other settings, or every checkpoint is damaged.
        """
        from .checkpoint import newest_whole_checkpoint  # imports torch, which nothing else here needs

        self.check_resumable(config)
        state, problems = newest_whole_checkpoint(self.checkpoints)
        if state is not None and not isinstance(state.get("step"), int):
            raise CheckpointError(f"Cannot resume {self.path}: its newest checkpoint is not of a training run.")
        if state is None and problems:
            raise CheckpointError(f"Cannot resume {self.path}: no checkpoint is whole. {' '.join(problems)}")
        if state is not None:
            self.check_step(state["step"], config)
        return state, problems

    def check_step(self, step: int, config: TrainConfig) -> None:
        """Refuse to go on with a run that is beyond the steps asked for.

        Raises:
            CheckpointError: as a sentence.
        """
        if step > config.steps:
            raise CheckpointError(
                f"Cannot resume {self.path} to step {config.steps}: it is at step {step} already. Ask for more steps."
            )

    def check_resumable(self, config: TrainConfig) -> int:
        """Refuse to resume by what is known without reading a checkpoint.

        Args:
            config: the resolved settings asked for now.

        Returns:
            The step of the newest checkpoint, 0 where there is none.

        Raises:
            CheckpointError: the folder is not a run, or was run with other settings.
        """
        if not self.config.is_file():
            raise no_run(self.path)
        self._check_places()
        saved = self.saved_config()
        config = as_begun(config, saved)
        different = [
            name
            for name in TrainConfig.model_fields
            if name not in MAY_CHANGE and _deciding(saved, name) != _deciding(config, name)
        ]
        if different:
            raise _other_settings(self.path, saved, config, different)
        from .checkpoint import checkpoint_step, checkpoints

        newest = checkpoints(self.checkpoints)[-1:]
        return (checkpoint_step(newest[0]) or 0) if newest else 0

    def check_in_place(self) -> None:
        """Notice that the folder was moved or removed while the run goes on.

        Raises:
            FolderGone: it was.
        """
        if self.identity is None:
            return
        try:
            about = self.path.stat()
        except OSError:
            about = None
        if about is None or (about.st_dev, about.st_ino) != self.identity:
            raise FolderGone(f"The run folder {self.path} was moved or removed while the run was at work in it.")

    def forget_old_checkpoints(self, keep: int) -> None:
        """Remove all but the newest `keep` checkpoints."""
        from .checkpoint import checkpoints

        for old in checkpoints(self.checkpoints)[:-keep]:
            remove_below(old, self.path)

    def _check_places(self) -> None:
        """Refuse a folder whose own folders lead somewhere else.

        Raises:
            RequestError: one of them is a link out of the run's folder.
        """
        check_all_below((self.checkpoints, self.samples, self.comparison, self.final), self.path)


def choose_folder(config: TrainConfig) -> RunFolder:
    """The run's folder: the one asked for, or a fresh numbered one below `runs/`. Nothing is written.

    Raises:
        RequestError: the folder is a file, or holds something already and the run does not resume it.
    """
    if config.out is None:
        if config.resume:
            raise RequestError("Name the run folder to resume with --out.")
        label = (
            (config.generator or f"distilled-{config.reference}").replace("diffusers:", "").rstrip("/").split("/")[-1]
        )
        stem = re.sub(r"[^A-Za-z0-9._-]", "-", label)[:100] or "run"
        number = 1
        while (Path("runs") / f"{stem}-{number}").exists():
            number += 1
        return RunFolder(Path("runs") / f"{stem}-{number}")
    path = config.out.expanduser()
    for part in (path, *path.parents):
        if part.exists() and not part.is_dir():
            raise RequestError(f"The run folder {path} cannot be made: {part} is a file.")
    if config.resume:
        if not path.is_dir():
            raise CheckpointError(f"Cannot resume {path}: there is no such folder (looked in {path.parent.resolve()}).")
    elif path.is_dir() and not is_unbegun(path):
        way = "Go on with --resume, or choose" if RunFolder(path).config.is_file() else "Choose"
        raise RequestError(f"The folder {path} is not empty. {way} another folder with --out.")
    return RunFolder(path)


def no_run(path: Path) -> CheckpointError:
    """Why a folder without settings cannot be resumed, and what can be done."""
    if path.is_dir() and is_unbegun(path):
        return CheckpointError(
            f"Cannot resume {path}: it has no config.yaml, so no run has begun there. Begin one there by the same "
            "command without --resume, or with --resume auto."
        )
    return CheckpointError(f"Cannot resume {path}: it is not a run folder: it has no config.yaml.")


def _other_settings(path: Path, saved: TrainConfig, asked: TrainConfig, names: Sequence[str]) -> CheckpointError:
    """Which settings stand in the way of resuming, which may change, and how a run with the new ones begins."""
    from ...report.rerun_command import new_run_with, setting_text

    changes = ", ".join(
        f"{name} was {shown(setting_text(getattr(saved, name)))} and is {shown(setting_text(getattr(asked, name)))}"
        for name in names
    )
    return CheckpointError(
        f"Cannot resume {path} with other settings: {changes}. Those that may change are "
        f"{', '.join(sorted(MAY_CHANGE))}. Begin a new run with: {new_run_with(path, saved, asked, names)}"
    )


def is_unbegun(path: Path) -> bool:
    """Whether a folder holds nothing, or nothing but what a start leaves that ended before its first step.

    Such a start may be repeated in it. Any other file, settings written by hand included, makes it a user's folder.
    """
    folder = RunFolder(path)
    try:
        names = {entry.name for entry in path.iterdir()}
        rows = [entry for entry in (folder.metrics, folder.skips, folder.diagnostics) if entry.name in names]
        return (
            all(name in LEFT_BY_A_START or _is_partial(name, LEFT_BY_A_START) for name in names)
            and (folder.config.name not in names or bool(names & {folder.begun.name, folder.samples.name}))
            and all(entry.is_file() and entry.stat().st_size == 0 for entry in rows)
            and not any(not entry.name.startswith(".") for entry in _inside(folder.checkpoints))
            and all(_is_first_sample(entry) for entry in _inside(folder.samples))
        )
    except OSError as error:
        raise RequestError(f"Cannot read the folder {path}: {error.strerror or error}.") from error


def _inside(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.exists() else []


def _is_partial(name: str, whole: Collection[str]) -> bool:
    """Whether a name is that of a file that is still being written."""
    return re.sub(r"^\.(.*)\.(partial|older)$", r"\1", name) in whole and name not in whole


def _is_first_sample(path: Path) -> bool:
    """Whether something below `samples/` may be there before the first step."""
    if path.name == "comparison" and path.is_dir():
        return all(entry.is_file() and entry.suffix in (".png", ".json", ".partial") for entry in path.iterdir())
    return path.name == "step-00000000.png" or _is_partial(path.name, ("step-00000000.png", "comparison"))


def remove_start(path: Path) -> None:
    """Remove what a start leaves that ended before its first step; anything else stays, and the folder with it."""
    if is_unbegun(path):
        for entry in list(path.iterdir()):
            if entry.name != LOCK:  # its owner's
                remove_below(entry, path)


def settings_for_a_new_run(file: Path) -> dict[str, Any]:
    """Settings from a YAML file, plain ones or a recipe's.

    A run's own `config.yaml` says nothing of where the new run goes, nor how it begins.

    Raises:
        RequestError: the file is missing or holds no settings.
    """
    of_run = run_of_settings(file) is not None
    values = read_begun_settings(file) if of_run else settings_or_recipe(read_yaml(file), file)
    values.pop("resume", None)
    if of_run:
        values.pop("out", None)
    return values


def run_of_settings(file: Path) -> Path | None:
    """The run folder whose own settings a file holds; None for any other file."""
    folder = RunFolder(file.parent)
    marks = (folder.begun, folder.metrics, folder.checkpoints, folder.samples)
    return file.parent if file.name == folder.config.name and any(entry.exists() for entry in marks) else None


def resumed(folder: Path) -> str:
    """The command that goes on with the run in a folder, as a sentence."""
    return f"Go on with: dipp train --resume --out {shlex.quote(str(folder))}"


def way_back(folder: Path) -> str:
    """How to go on after a failure, which removes a folder that it leaves without a step."""
    try:
        unbegun = is_unbegun(folder)
    except RequestError:  # it cannot be read now
        unbegun = False
    return "Run the same command again." if unbegun else resumed(folder)


def saved(run: RunFolder) -> str:
    """Which step a run goes on from, as a sentence."""
    from .checkpoint import checkpoint_step, checkpoints

    whole = checkpoints(run.checkpoints)
    if not whole:
        return "No step was saved yet."
    step = checkpoint_step(whole[-1])
    return f"Step {step} is saved." if step else "The assistant's warm-up is saved as far as it came."
