"""Fetch: every file that is needed is here, whole, of a known revision, and its SHA-256 is noted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ....errors import DippError
from ....models.files.folders import family_of
from ....models.start_weights.network_folder import network_folder
from ....models.start_weights.source import parse_source
from ....registry import get_registry
from ....rewards.loading import find_reward
from ..check import Check, Outcome, failed, skipped
from ..settings import public_name
from ..subject import Subject
from ..weights_used import WeightFile, component_files, files_in, reward_files, snapshot_of, weight_file

NOT_OF_FILES = "Its plugin names no files"


def run(subject: Subject) -> Iterator[Outcome]:
    """A row for each pipeline and each reward."""
    if subject.generator is not None:
        yield _files_outcome(subject, "generator", lambda: _generator_files(subject))
    if not _one_pipeline(subject):
        yield _files_outcome(subject, "reference", lambda: _reference_files(subject))
    for name in subject.reward_names:
        yield _of_reward(subject, name)


def _of_reward(subject: Subject, name: str) -> Outcome:
    shown = public_name(name)
    try:
        options = subject.config.options_of(name)
        make = find_reward(name, **options)
        outcome = _files_outcome(subject, f"reward {shown}", lambda: reward_files(f"reward {shown}", make, options))
    except DippError as error:
        outcome = failed(f"files of reward {shown}", str(error))
    if outcome.verdict == "fail":
        subject.unusable[name] = outcome.why
    return outcome


def _files_outcome(subject: Subject, role: str, list_files: Any) -> Outcome:
    """The row about one of them; its files are noted."""
    compared = f"files of {role}"
    try:
        files: list[WeightFile] | None = list_files()
    except DippError as error:
        return failed(compared, str(error))
    if files is None:
        return skipped(compared, f"{NOT_OF_FILES}.")
    subject.weights += [file for file in files if file not in subject.weights]
    damaged = [file.file for file in files if not file.intact]
    sources = dict.fromkeys(file.source + (f" at {file.revision[:8]}" if file.revision else "") for file in files)
    size = sum(file.bytes for file in files)
    measured = f"{len(files)} file{'s' * (len(files) != 1)}, {size / 2**30:.2f} GiB, of {', '.join(sources)}"
    numbers = {"files": float(len(files)), "bytes": float(size)}
    if damaged:
        why = (
            f"The hub says another SHA-256 of {', '.join(damaged[:4])}: the download is damaged. Remove it from the "
            "hub's cache and fetch it again."
        )
        return Outcome(compared, "the hub's SHA-256", measured, "fail", why, numbers)
    if not files:
        return failed(compared, "There are no weight files.", "at least one", measured)
    says = any(file.hub_sha256 for file in files)
    return Outcome(compared, "the hub's SHA-256" if says else "whole files", measured, "pass", "", numbers)


def _generator_files(subject: Subject) -> list[WeightFile] | None:
    folder = subject.generator_folder
    if folder is None:
        return None
    network = family_of(folder).network_name
    options = subject.load_options
    files: list[WeightFile] = []
    if options.get("weights"):
        files += _start_files(options["weights"], folder, network)
    for address in _as_list(options.get("lora", ())):
        file = parse_source(address, scaled=True).file()
        files.append(weight_file(file, "generator", file.parent))
    without = network if options.get("weights") else ""
    return files + (_pipeline_files("generator", folder, subject.generator or "", without) or [])


def _reference_files(subject: Subject) -> list[WeightFile] | None:
    return _pipeline_files("reference", subject.reference_folder, subject.reference)


def _one_pipeline(subject: Subject) -> bool:
    """Whether the reference's files are the generator's, which were looked at already."""
    if subject.generator is None or subject.starts_elsewhere:
        return False
    try:
        return subject.generator_folder is not None and subject.generator_folder == subject.reference_folder
    except DippError:  # the row about the one that is not there says so
        return False


def _as_list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _start_files(address: str, folder: Path, network: str) -> list[WeightFile]:
    """The files of weights that are put into a pipeline."""
    source = parse_source(address)
    if source.is_file:
        file = source.file()
        return [weight_file(file, "generator", snapshot_of(file))]
    place = network_folder(address, folder, network)
    return [weight_file(file, "generator", snapshot_of(file)) for file in files_in(place)]


def _pipeline_files(role: str, folder: Path | None, name: str, without: str = "") -> list[WeightFile] | None:
    if folder is None:
        return None
    registered = any(name in get_registry().entries[kind] for kind in ("generator", "reference"))
    source = "its plugin" if registered else ""
    return [weight_file(path, role, folder, source) for path in component_files(folder, without)]


CHECK = Check("fetch", 10, run, "every file is here, whole, and of a known revision")
