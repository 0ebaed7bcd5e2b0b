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
from ..check import Check
from ..outcome import Outcome, failed, skipped
from ..settings import public_name
from ..subject import Subject
from ..weights_used import WeightFile, component_files, files_in, reward_files, snapshot_of, weight_file

NOT_OF_FILES = "Its plugin says nothing of files"


def run(subject: Subject) -> Iterator[Outcome]:
    """A row for each pipeline and each reward."""
    if subject.generator is not None:
        yield _looked_at(subject, "generator", lambda: _generator_files(subject))
    if not _one_pipeline(subject):
        yield _looked_at(subject, "reference", lambda: _reference_files(subject))
    for name in subject.reward_names:
        yield _of_reward(subject, name)


def _of_reward(subject: Subject, name: str) -> Outcome:
    shown = public_name(name)
    try:
        options = subject.config.reward_options.get(name, {})
        make = find_reward(name, **options)
        outcome = _looked_at(subject, f"reward {shown}", lambda: reward_files(f"reward {shown}", make, options))
    except DippError as error:
        outcome = failed(f"files of reward {shown}", str(error))
    if outcome.verdict == "fail":
        subject.unusable[name] = outcome.why
    return outcome


def _looked_at(subject: Subject, role: str, look: Any) -> Outcome:
    """The row about one of them; its files are noted."""
    compared = f"files of {role}"
    try:
        found: list[WeightFile] | None = look()
    except DippError as error:
        return failed(compared, str(error))
    if found is None:
        return skipped(compared, f"{NOT_OF_FILES}.")
    subject.weights += [file for file in found if file not in subject.weights]
    damaged = [file.file for file in found if not file.whole]
    sources = dict.fromkeys(file.source + (f" at {file.revision[:8]}" if file.revision else "") for file in found)
    size = sum(file.bytes for file in found)
    measured = f"{len(found)} file{'s' * (len(found) != 1)}, {size / 2**30:.2f} GiB, of {', '.join(sources)}"
    numbers = {"files": float(len(found)), "bytes": float(size)}
    if damaged:
        why = (
            f"The hub says another SHA-256 of {', '.join(damaged[:4])}: the download is damaged. Remove it from the "
            "hub's cache and fetch it again."
        )
        return Outcome(compared, "the hub's SHA-256", measured, "fail", why, numbers)
    if not found:
        return failed(compared, "There is no file of weights.", "at least one", measured)
    says = any(file.said for file in found)
    return Outcome(compared, "the hub's SHA-256" if says else "whole files", measured, "pass", "", numbers)


def _generator_files(subject: Subject) -> list[WeightFile] | None:
    folder = subject.generator_folder
    if folder is None:
        return None
    network = family_of(folder).network_name
    options = subject.load_options
    found: list[WeightFile] = []
    if options.get("weights"):
        found += _start_files(options["weights"], folder, network)
    for address in _as_list(options.get("lora", ())):
        file = parse_source(address, scaled=True).file()
        found.append(weight_file(file, "generator", file.parent))
    without = network if options.get("weights") else ""
    return found + (_pipeline_files("generator", folder, subject.generator or "", without) or [])


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
