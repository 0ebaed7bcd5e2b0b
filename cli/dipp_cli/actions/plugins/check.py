"""What `dipp plugins check` does: plugins and what they register, each loaded and tried on small data."""

from __future__ import annotations

import inspect
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

from dipp_toolkit.config import make_config
from dipp_toolkit.errors import DippError, RequestError, RunError
from dipp_toolkit.evaluation.loading import load_metric
from dipp_toolkit.experiments.family_contract import check_family
from dipp_toolkit.models.family import TinyTwin
from dipp_toolkit.models.loading import load_generator, load_reference
from dipp_toolkit.models.published import PublishedPipeline
from dipp_toolkit.objective.gaussians import verification_of
from dipp_toolkit.prompts.loading import load_prompts
from dipp_toolkit.protocols import Metric, NotDecodableError, close
from dipp_toolkit.registry import Entry, get_registry
from dipp_toolkit.rewards.checks.run import check_reward
from dipp_toolkit.rewards.loading import load_reward
from dipp_toolkit.training.run import train
from dipp_toolkit.training.setup.preflight import dry_run_parts
from dipp_toolkit.utils.assignments import parse_options
from dipp_toolkit.utils.exception_text import raised
from dipp_toolkit.utils.messages import shown
from dipp_toolkit.verify import CASES, run_verify
from dipp_toolkit.verify.cases import make_reference
from dipp_toolkit.verify.runner import probe
from dipp_toolkit.verify.world_terms import Subject

from ...terminal.output import plain_lines, print_line
from .listing import rank
from .selection import is_own, plugin_names, select

PROMPTS = ("fox on blue", "birthday cake on yellow")
SIDE = 64
"""Pixels a side of the random images that a metric is given."""
TAKE_OPTIONS = ("reward", "metric")
COLOURS = {"ok": "green", "failed": "red", "skipped": "dim"}
Options = Mapping[str, Any]
STEP = {
    "rewards": {}, "steps": 1, "batch_size": 2, "eval_count": 2, "reference_steps": 1, "assistant_warmup": 0,
    "device": "cpu", "checkpoint_every": 1, "judge": None,
}  # fmt: skip
"""Settings of the training that a generator takes a step in: towards the reference alone."""


@dataclass(frozen=True)
class Checked:
    """What was found of a registered thing, or of a plugin.

    Attributes:
        kind: of `KINDS`, or `"plugin"`.
        name: that it is registered by.
        plugin: that registered it.
        status: `"ok"`, `"failed"` or `"skipped"`.
        found: what was done and came out, or what is wrong and what to do.
    """

    kind: str
    name: str
    plugin: str
    status: str
    found: str


class Skipped(Exception):  # noqa: N818 -- an answer and no error
    """It cannot be tried here; the text says why, and what tries it."""


def check_installed(names: Sequence[str], everything: bool, assignments: list[str]) -> dict[str, Any]:
    """Check what has these names.

    Args:
        names: of registered things and of plugins; where there are none, all plugins that the toolkit does not bring.
        everything: those that it brings as well.
        assignments: options of rewards and metrics, as `--set` takes them.

    Returns:
        `passed`, and `checks`, a list of `Checked` as dictionaries.

    Raises:
        RequestError: nothing has one of the names, or options are given to what is not checked.
    """
    options = parse_options(assignments, TAKE_OPTIONS)
    registry = get_registry()
    chosen = list(names) or [name for name in plugin_names(registry) if everything or not is_own(name)]
    selections = [select(registry, name) for name in chosen]
    broken = {one.name: one for selection in selections for one in selection.broken}
    entries = {(entry.kind, entry.name): entry for selection in selections for entry in selection.entries}
    rows = [Checked("plugin", one.name, one.name, "failed", f"{one.reason.rstrip('.')}.") for one in broken.values()]
    for kind, named in options.items():
        for name in named:
            if (kind, name) not in entries:
                raise RequestError(
                    f"Options are given for the {kind} '{shown(name)}', which is not checked; name it too."
                )
    for entry in sorted(entries.values(), key=lambda entry: rank(entry.kind)):
        print_line(f"checking the {entry.kind} {entry.name}", file=sys.stderr)
        given = options.get(entry.kind, {}).get(entry.name)
        rows.append(check_entry(entry, given, not names and is_own(entry.plugin)))
    for selection in selections:
        rows += [_bare(name) for name in selection.plugins if not selection.entries and name not in broken]
    return {"passed": all(row.status != "failed" for row in rows), "checks": [asdict(row) for row in rows]}


def _bare(plugin: str) -> Checked:
    return Checked("plugin", plugin, plugin, "ok", "It loads; it registers no names, only commands or listeners.")


def check_entry(entry: Entry, options: Options | None = None, optional: bool = False) -> Checked:
    """Load a registered thing and try it. Whatever it raises is a failure of its own.

    Args:
        entry: from the registry.
        options: to make it with, of a reward or a metric.
        optional: missing packages are no failure.
    """

    def row(status: str, found: str) -> Checked:
        return Checked(entry.kind, entry.name, entry.plugin, status, found)

    if entry.missing:
        missing = f"It needs {' and '.join(entry.missing)}, not installed. Run: {entry.how_to_install}"
        return row("skipped" if optional else "failed", missing)
    try:
        entry.find_factory()
        return row("ok", CHECKS.get(entry.kind, _made)(entry, options or {}))
    except Skipped as answer:
        return row("skipped", str(answer))
    except DippError as error:
        return row("failed", str(error))
    except Exception as error:  # noqa: BLE001 -- anybody's code; whatever it raises is what was found
        return row("failed", f"{raised(error)}.")


@contextmanager
def _from_here(entry: Entry, options: Options) -> Iterator[None]:
    """Nothing is fetched while something is loaded.

    Raises:
        Skipped: something would have been, or it refuses to be made without options.
    """
    with dry_run_parts() as parts:
        try:
            if entry.kind == "reward":
                parts.rewards([entry.name], {entry.name: options})
            yield
        except Exception as error:
            asks = type(error) is RequestError and error.__cause__ is None
            if asks and not options and not parts.fetched:
                raise Skipped(f"It is made with options that only you know. {error}") from error
            if not parts.fetched and not _is_offline(error):
                raise
            parts.fetched.setdefault("files of the hub")
    if parts.fetched:
        more = f" dipp reward check {entry.name} fetches it." if entry.kind == "reward" else ""
        lacking = [what for what in parts.fetched if what != "files of the hub"] or ["files of the hub"]
        raise Skipped(f"It needs what is not here, and nothing is fetched: {', '.join(lacking)}.{more}")


def _is_offline(error: BaseException | None) -> bool:
    """Whether an error comes of a file that the hub's client has not in its cache and may not fetch."""
    while error is not None:
        if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
            return True
        error = error.__cause__ or error.__context__
    return False


def _needs_no_options(entry: Entry, given: Options) -> None:
    """Go on with what can be made of the options that are given.

    Raises:
        Skipped: another one has no default.
    """
    try:
        parameters = inspect.signature(entry.find_factory()).parameters.values()
    except (TypeError, ValueError):  # of what has no signature, such as a class written in C
        return
    fixed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    required = [
        each.name
        for each in parameters
        if each.default is each.empty and each.kind not in fixed and each.name not in given
    ]
    if required:
        raise Skipped(f"It is made with options that only you know: {', '.join(required)}.")


def _refuse(condition: Any, sentence: str) -> None:
    """Say what is wrong unless a condition holds.

    Raises:
        RunError: the sentence.
    """
    if not condition:
        raise RunError(sentence)


def _reward(entry: Entry, options: Options) -> str:
    _needs_no_options(entry, options)
    with _from_here(entry, options):
        reward = load_reward(entry.name, **options)
    try:
        rows = check_reward(reward, entry.name)
    finally:
        close(reward)
    bad = [f"{row.name}: {row.found} {row.advice}".strip() for row in rows if row.status == "failed"]
    _refuse(not bad, " ".join(bad))
    warned = [row.name for row in rows if row.status == "warning"]
    told = f"; dipp reward check {entry.name} tells more of {', '.join(warned)}" if warned else ""
    return f"Nothing failed of {len(rows)} checks of a reward{told}."


def _term(entry: Entry, options: Options) -> str:
    verification = verification_of(probe(Subject(entry.name, {}), make_reference()))
    case = next(iter(verification.cases or CASES))
    rows = run_verify(term=entry.name, cases=[case], assistants=("exact",))
    bad = [f"the {row.quantity} is off by {row.error:.3%}" for row in rows if not row.passed]
    more = f"dipp verify --term {entry.name} shows all cases."
    _refuse(not bad, f"Against the closed form of the case {case} {' and '.join(bad)}. {more}")
    return f"All {len(rows)} rows of the case {case} hold against the closed form; {more}"


def _generator(entry: Entry, options: Options) -> str:
    if isinstance(entry.factory, PublishedPipeline):
        raise Skipped(
            f"Its weights are published, and nothing is fetched; dipp accept {entry.name} tries them on a GPU."
        )
    _needs_no_options(entry, options)
    named = entry.defaults.get("reference")
    if not isinstance(named, str):
        raise Skipped(
            "It loads; it recommends no reference to be trained against. Register it with "
            "defaults={'reference': ...} to have it checked."
        )
    with _from_here(entry, options):
        shapes = load_generator(entry.name).latent_shape, load_reference(named).latent_shape
    _refuse(shapes[0] == shapes[1], f"Its latents are {shapes[0]}, those of its reference '{named}' {shapes[1]}.")
    with tempfile.TemporaryDirectory() as folder:
        prompts, out = Path(folder) / "prompts.txt", Path(folder) / "run"
        prompts.write_text("\n".join(PROMPTS), encoding="utf-8")
        places = {"generator": entry.name, "prompts": str(prompts), "eval_prompts": str(prompts), "out": out}
        train(make_config({**STEP, **places}))
        again = load_generator(str(out))
        reference = load_reference(named)
        noise = torch.randn(2, *shapes[0], generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            latents = again.generate(noise, reference.encode(PROMPTS))
    _refuse(latents.shape == noise.shape, f"Read back, it makes latents of shape {tuple(latents.shape)}.")
    _refuse(latents.isfinite().all(), "Read back, it makes latents that are not finite.")
    return f"A training step against {named}, the export, and images of what was read back."


def _reference(entry: Entry, options: Options) -> str:
    if isinstance(entry.factory, PublishedPipeline):
        raise Skipped("Its weights are published, and nothing is fetched.")
    _needs_no_options(entry, options)
    with _from_here(entry, options):
        reference = load_reference(entry.name)
    noise = torch.randn(2, *reference.latent_shape, generator=torch.Generator().manual_seed(0))
    condition = reference.encode(PROMPTS)
    with torch.no_grad():
        predicted = reference.denoiser.predict_x0(noise, torch.tensor([0.3, 0.9]), condition)
        latents = reference.sample(condition, noise, 2, 2.0)
    for what, found in (("predicts", predicted), ("samples", latents)):
        _refuse(found.shape == noise.shape, f"It {what} {tuple(found.shape)} for latents {tuple(noise.shape)}.")
        _refuse(found.isfinite().all(), f"It {what} numbers that are not finite.")
    try:
        with torch.enable_grad():
            images = reference.decode(latents.requires_grad_(True))
    except NotDecodableError:
        return "It predicts and samples; it has no pixels."
    _refuse(images.ndim == 4, f"It decodes to {tuple(images.shape)}; expected (batch, channels, height, width).")
    _refuse(images.requires_grad, "No gradient goes through its decoder, which rewards need.")
    return "It predicts, samples and decodes, and a gradient goes through the decoder."


def _metric(entry: Entry, options: Options) -> str:
    _needs_no_options(entry, options)
    with _from_here(entry, options):
        metric = load_metric(entry.name, **options)
    if not isinstance(metric, Metric):
        raise Skipped(f"It loads; it measures what making images costs: dipp bench --metrics {entry.name}.")
    prompts, seeds = len(PROMPTS), 2
    images = torch.rand(prompts * seeds, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    names = [prompt for prompt in PROMPTS for _ in range(seeds)]
    with torch.no_grad():
        rows, part = metric.features(images, names), metric.features(images[1:3], names[1:3])
        values = metric.values(rows.reshape(prompts, seeds, -1))
    _refuse(rows.ndim == 2 and len(rows) == len(images), f"{len(images)} images have features {tuple(rows.shape)}.")
    alone = torch.allclose(rows[1:3].float(), part.float(), rtol=1e-3, atol=1e-4)
    _refuse(alone, "The features of an image are others when fewer images are looked at with it.")
    _refuse(
        values.keys() == metric.better.keys(),
        f"Its figures are {', '.join(values)}, and `better` names {', '.join(metric.better)}.",
    )
    for name, value in values.items():
        figure = torch.as_tensor(value)
        _refuse(figure.shape in ((), (prompts,)), f"The figure {name} is {tuple(figure.shape)}; expected one a prompt.")
        _refuse(figure.isfinite().all(), f"The figure {name} of random images is not finite.")
    return f"Random images have {', '.join(values)}."


def _prompts(entry: Entry, options: Options) -> str:
    _needs_no_options(entry, options)
    with _from_here(entry, options):
        prompts = load_prompts(entry.name).prompts
    _refuse(len(prompts), "It holds no prompt.")
    empty = sum(not prompt.text.strip() for prompt in prompts)
    _refuse(not empty, f"{empty} of its {len(prompts)} prompts are empty.")
    return f"{len(prompts)} prompts, none of them empty."


def _pipeline(entry: Entry, options: Options) -> str:
    if not isinstance(entry.build(), TinyTwin):
        raise Skipped("It has no tiny twin, `write_twin`, that it could be tried on.")
    rows = check_family(entry.name)
    bad = [f"{row.line}: {row.found}" for row in rows if not row.kept]
    _refuse(not bad, f"Its twin does not keep {len(bad)} of {len(rows)} lines of the contract. {' '.join(bad)}")
    return f"Its twin keeps all {len(rows)} lines of the contract of a family."


def _made(entry: Entry, options: Options) -> str:
    """A kind with no check of its own is made."""
    _needs_no_options(entry, options)
    with _from_here(entry, options):
        entry.build()
    return "It loads."


CHECKS: Mapping[str, Callable[[Entry, Options], str]] = {
    "reward": _reward,
    "term": _term,
    "generator": _generator,
    "reference": _reference,
    "metric": _metric,
    "prompts": _prompts,
    "pipeline": _pipeline,
}
"""What is tried, by kind: each returns what came out, or raises what is wrong."""


def describe(result: Mapping[str, Any]) -> None:
    """Print the rows as a table, and what they come to as a sentence."""
    from rich.table import Table
    from rich.text import Text

    from ...terminal.tables import show

    rows = result["checks"]
    if not rows:
        print_line("Only the toolkit's own plugins are installed; dipp plugins check --all checks them.")
        return
    table = Table()
    for column in ("kind", "name", "", "found, and what to do"):
        table.add_column(column, no_wrap=column == "", overflow="fold")
    for row in rows:
        status = Text(row["status"], style=COLOURS[row["status"]])
        table.add_row(row["kind"], row["name"], status, plain_lines(row["found"]))
    show(table)
    counts = {status: sum(row["status"] == status for row in rows) for status in COLOURS}
    print_line(", ".join(f"{count} {status}" for status, count in counts.items() if count) + ".")
