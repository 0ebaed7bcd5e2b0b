"""What a run was begun with, by content, kept in `begun.json`: a name may mean something else by the time it resumes.

Prompts are compared by their texts in order, pipelines by the bytes of their files (those of the hub by their commit),
a user's own code by its file and whatever that imports, rewards' networks by their weights. The machine is recorded as
well: a run resumed on another one, or with another number of threads, may differ in its last digits, and says so.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor

from ...config import TrainConfig
from ...errors import CheckpointError, RequestError
from ...models.files.saved_generators import split_saved
from ...protocols import Identified
from ...registry import GIVEN, get_registry
from ...report.rerun_command import new_run_with
from ...rewards.code_digests import code_digest, source_digest
from ...rewards.remote.proxy import ProxyReward
from ...utils.assignments import is_isolated_name, is_remote_name
from ...utils.atomic import write_text
from ...utils.content_digests import file_digest, path_digest
from ...utils.fingerprint import digest_of, networks_in
from ...utils.imports import find_python_file, is_python_name
from ...utils.json_forms import read_form
from ...utils.messages import shown
from ...utils.paths import is_there, user_path
from ..setup.assembly import Assembled
from ..setup.given_parts import described, given_in
from .run_folder import RunFolder, deciding_options

FORMAT = 1
LOADED = (".json", ".safetensors", ".txt", ".model")
"""Suffixes of the files of a pipeline that are loaded."""
PLACES = 1024
"""Elements of a tensor that are digested with their positions; the others are digested as a sum."""

MACHINE = {
    "processor": "on {}", "threads": "with {} threads", "processes": "in {} processes", "torch": "torch {}",
    "diffusers": "diffusers {}", "transformers": "transformers {}", "dipp_toolkit": "dipp-toolkit {}",
}  # fmt: skip
"""How each property of a machine is put into words."""


UNCHECKED = (
    "It records what the run was begun with. Without it the run resumes unchecked: delete it if prompts, rewards and "
    "weights have not changed."
)


class _Resumption(BaseModel):
    step: int
    machine: dict[str, Any]


class _Record(BaseModel):
    """What `begun.json` holds."""

    contents: dict[str, dict[str, Any]]
    machine: dict[str, Any]
    went_on: list[_Resumption]
    given: dict[str, str] = {}


@dataclass(frozen=True)
class StartRecord:
    """What a run was begun with.

    Attributes:
        contents: `sha256` and, of prompts, `count`, by a description of what was digested.
        machine: where it began, by the names in `MACHINE`.
        went_on: each time it was resumed on another machine: `step` and `machine`.
        given: what was given as objects of Python, see `given_parts.described`.
    """

    contents: Mapping[str, Mapping[str, Any]]
    machine: Mapping[str, Any]
    went_on: Sequence[Mapping[str, Any]] = field(default=())
    given: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, config: TrainConfig, parts: Assembled) -> StartRecord:
        """What an assembled run is about to be trained with. Draws no random numbers.

        Raises:
            RequestError: a file cannot be read.
        """
        try:
            return cls(_contents(config, parts), _machine(parts), given=described(given_in(config)))
        except OSError as error:
            raise RequestError(f"Cannot read {error.filename or 'a file'}: {error.strerror or error}.") from error

    @classmethod
    def read(cls, folder: RunFolder) -> StartRecord | None:
        """What a run folder recorded; None where it recorded nothing, as earlier versions did not.

        Raises:
            CheckpointError: `begun.json` is damaged.
        """
        try:
            record = read_form(folder.begun, _Record, UNCHECKED) if folder.begun.exists() else None
        except RequestError as error:
            raise CheckpointError(str(error)) from error
        if record is None:
            return None
        return cls(record.contents, record.machine, [one.model_dump() for one in record.went_on], record.given)

    def write(self, folder: RunFolder) -> None:
        """Write `begun.json`.

        Raises:
            OSError: it cannot be written.
        """
        content = {
            "format": FORMAT, "contents": self.contents, "machine": self.machine, "went_on": list(self.went_on),
            **({"given": dict(self.given)} if self.given else {}),
        }  # fmt: skip
        write_text(folder.begun, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def resumed(self, now: StartRecord, config: TrainConfig, folder: RunFolder, step: int) -> StartRecord:
        """The same run, resumed at a step.

        Args:
            now: what the same names stand for today.
            config: today's settings; those that decide numbers are the run's.
            folder: the run's.
            step: the one it resumes at.

        Raises:
            CheckpointError: something that decides numbers has changed since the run began.
        """
        changed = [
            _change(what, self.contents[what], now.contents[what])
            for what in self.contents.keys() & now.contents.keys()
            if self.contents[what].get("sha256") != now.contents[what]["sha256"] and _decides(what, config)
        ]
        if changed:
            raise CheckpointError(
                f"Cannot resume {folder.path}: something changed since the run began, under the same name: "
                f"{', '.join(sorted(changed))}. Put back what was there, or begin a new run with what is there now: "
                f"{new_run_with(folder.path, config, config, ())}"
            )
        last = self.went_on[-1]["machine"] if self.went_on else self.machine
        begun = replace(self, contents={**now.contents, **self.contents})
        if now.machine == last:
            return begun
        return replace(begun, went_on=[*self.went_on, {"step": step, "machine": dict(now.machine)}])

    def warnings(self, now: StartRecord, config: TrainConfig) -> list[str]:
        """Sentences about what has changed since the run began and was not refused."""
        warnings = [
            f"Changed since the run began: {_change(what, self.contents[what], now.contents[what])}."
            f"{' Its weights come from the checkpoint.' if what.startswith(GENERATOR) else NOT_ALIKE}"
            for what in sorted(self.contents.keys() & now.contents.keys())
            if self.contents[what].get("sha256") != now.contents[what]["sha256"] and not _decides(what, config)
        ]
        for resumption in self.went_on:
            then, here = dict(self.machine), dict(resumption["machine"])
            names = [name for name in MACHINE if then.get(name) != here.get(name)]
            if names:
                warnings.append(
                    f"From step {int(resumption['step'])} on the run went on {_words(here, names)}; it began "
                    f"{_words(then, names)}. Its numbers may differ in their last digits from those of a run that was "
                    "never stopped."
                )
        return warnings


def _words(machine: Mapping[str, Any], names: Iterable[str]) -> str:
    return ", ".join(MACHINE[name].format(shown(machine.get(name, "unknown"))) for name in names)


def _change(what: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    if "count" in now:
        counts = (before.get("count"), now["count"])
        how = "other ones or another order" if counts[0] == counts[1] else f"{shown(counts[0])} then, {counts[1]} now"
        return f"{what} differ ({how})"
    return f"{what} (sha256 {shown(before.get('sha256'))[:8]} then, {now['sha256'][:8]} now)"


def _decides(what: str, config: TrainConfig) -> bool:
    """Whether a change of content is refused.

    It is not where checkpoints hold all of it, where it only watches, nor where it is a user's own code: a run that
    stopped because of a bug in a reward resumes once the bug is fixed.
    """
    return not what.startswith((CODE, WATCHER, SERVED)) and not (what.startswith(GENERATOR) and config.mode == "full")


ENTRIES_WITH_CODE = ("generator", "reference", "reward")
NOT_ALIKE = " Steps before and after that may not have been made alike."
CODE, GENERATOR, WATCHER, SERVED = (
    "the code of ", "the generator", "the watching reward", "what answers as the reward",
)  # fmt: skip


def _contents(config: TrainConfig, parts: Assembled) -> dict[str, dict[str, Any]]:
    contents: dict[str, dict[str, Any]] = {f"the prompts of {config.prompts}": _texts(parts.conditions.prompts)}
    if config.eval_prompts is not None:
        contents[f"the comparison's prompts of {config.eval_prompts}"] = _texts(parts.eval_conditions.prompts)
    for kind, rewards in (
        ("the reward", parts.rewards),
        ("the judge", dict([parts.judge] if parts.judge else [])),
        (WATCHER, parts.watchers),
    ):
        for name, reward in rewards.items():
            what = f"{kind} '{name}'"
            contents |= _code(what, name.rpartition("@")[0] if is_isolated_name(name) else name, reward)
            options = deciding_options({name: config.options_of(name)}).get(name, {})
            contents |= _weights(what, reward, options)
            served = _server_identity(reward)
            if served:
                contents[f"{SERVED} '{name}'"] = {"sha256": digest_of(served)}
    terms = {weighted.name: weighted.term for weighted in parts.engine.terms}
    for name in config.terms:
        contents |= _code(f"the term '{name}'", name, terms.get(name))
    contents |= _role("the reference", config.reference or "", parts.reference)
    if config.generator is not None:
        contents |= _role(GENERATOR, config.generator, parts.generator)
    if config.assistant_model is not None:
        contents |= _code(f"the assistant '{config.assistant_model}'", config.assistant_model, parts.assistant)
    contents |= _start_weights(parts.generator)
    decoder = config.decoder
    if decoder is not None and is_there(decoder):
        contents[f"the decoder '{decoder}'"] = {"sha256": pipeline_digest(user_path(decoder))}
    return contents


def _texts(prompts: Sequence[str]) -> dict[str, Any]:
    digest = hashlib.sha256()
    for text in prompts:
        digest.update(f"{len(text)} {text}\n".encode("utf-8", "surrogatepass"))
    return {"count": len(prompts), "sha256": digest.hexdigest()}


def _code(what: str, name: str, thing: Any) -> dict[str, dict[str, Any]]:
    """A user's own code: that of a file by its name, that of a module by the object made from it."""
    if thing is not None and _is_given(name):
        return {f"{CODE}{what}": {"sha256": code_digest(thing)}}
    if is_remote_name(name) or not is_python_name(name):
        return {}
    file = find_python_file(name, "part")
    return {f"{CODE}{what}": {"sha256": source_digest(file[0]) if file is not None else code_digest(thing)}}


def _is_given(name: str) -> bool:
    """Whether a name is that of an object given in Python."""
    entries = get_registry().entries
    return any(name in entries[kind] and entries[kind][name].plugin == GIVEN for kind in ENTRIES_WITH_CODE)


def _weights(what: str, reward: Any, options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The weights of a reward's networks, and the files and folders among its options."""
    sketches = {key: tensors_digest(network.state_dict()) for key, network in networks_in(reward).items()}
    files = {
        key: path_digest(user_path(value))
        for key, value in options.items()
        if isinstance(value, str) and is_there(value)
    }
    return {what: {"sha256": digest_of([sketches, files])}} if sketches or files else {}


def _server_identity(reward: Any) -> str:
    """What the servers of a reward behind HTTP said that it is when it was loaded, or what it says itself."""
    if not isinstance(reward, ProxyReward):
        return reward.score_identity() if isinstance(reward, Identified) else ""
    replicas = getattr(reward.scorer, "replicas", ())
    return next((replica.identity for replica in replicas if replica.identity), "")


def _role(kind: str, name: str, role: Any) -> dict[str, dict[str, Any]]:
    """A pipeline by its folder, anything else by its networks' weights as loaded; and its own code, if any."""
    what, folder = f"{kind} '{name}'", getattr(role, "folder", None)
    if isinstance(folder, Path) and folder.is_dir():
        digest = pipeline_digest(folder)
    else:
        digest = digest_of({key: tensors_digest(network.state_dict()) for key, network in networks_in(role).items()})
    return {what: {"sha256": digest}} | _code(what, split_saved(name)[0], role)


def _start_weights(generator: Any) -> dict[str, dict[str, Any]]:
    """The generator's weights where they are not its pipeline's own: of a file, or with a LoRA fused into them."""
    folder, weights = getattr(generator, "folder", None), getattr(generator, "weights", None)
    if not (isinstance(folder, Path) and isinstance(weights, Path)) or weights.is_relative_to(folder):
        return {}
    return {f"{GENERATOR}'s start weights": {"sha256": pipeline_digest(weights)}}


def pipeline_digest(folder: Path) -> str:
    """A digest of a pipeline folder's configurations and weights; in the hub's cache, of its commit."""
    if folder.parent.name == "snapshots" and re.fullmatch(r"[0-9a-f]{40}", folder.name):
        return digest_of(folder.name)
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in LOADED and path.is_file()]
    return digest_of([[path.relative_to(folder).as_posix(), file_digest(path)] for path in files])


def tensors_digest(state: Mapping[str, Any]) -> str:
    """A digest of tensors' names, shapes, sums over all bytes, and values at some positions."""
    sketch = []
    for name, tensor in sorted(state.items()):
        if isinstance(tensor, Tensor):
            values = tensor.detach().contiguous().reshape(-1)
            places = values[:: max(1, len(values) // PLACES)].cpu().contiguous().view(torch.uint8)
            words = values.element_size() in (2, 4) and values.nbytes % 4 == 0 and values.data_ptr() % 4 == 0
            total = int(values.view(torch.int32 if words else torch.uint8).sum(dtype=torch.int64))
            sketch.append([name, str(tensor.dtype), list(tensor.shape), total, places.numpy().tobytes().hex()])
    return digest_of(sketch)


def _machine(parts: Assembled) -> dict[str, Any]:
    import diffusers
    import transformers

    from ...utils.version import VERSION

    if parts.device.type == "cpu":
        kind = f"{platform.processor() or platform.machine()} with {torch.backends.cpu.get_cpu_capability()}"
        machine: dict[str, Any] = {"processor": kind, "threads": torch.get_num_threads()}
    else:
        device = parts.device
        machine = {"processor": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type}
    return machine | {
        "processes": parts.engine.processes.count,
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "dipp_toolkit": VERSION,
    }
