"""A few steps of a run, measured: seconds, launches, share of the peak, waits and memory by part, and what to change.

Steps are the run's own, in order: some to warm up, the measured ones, one that is counted as its operations are
dispatched, and one that torch's profiler traces. What is measured changes none of what is computed: the weights after
n profiled steps are those after n others. Monitors, sample grids and checkpoints, which come every so many steps, are
left out, and no run folder is made.
"""

from __future__ import annotations

import gzip
import shutil
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ...config import TrainConfig
from ...distributed import Processes, launched_count
from ...errors import DippError, RequestError, RunError
from ...training.assistant import LearnedAssistant
from ...training.loop import TrainingLoop
from ...training.run_state.run_folder import RunFolder
from ...training.setup.assembly import assemble
from ...training.setup.resolve import resolve, settle_compile, settle_precision
from ...training.stepping import StopNow, StopRequest
from ...utils.deterministic import deterministic_kernels
from ...utils.device import choose_device, environment, peak_memory_mb
from ...utils.exception_text import raised
from ...utils.host_waits import Wait
from ...utils.messages import shown
from ...utils.precision import PRECISIONS
from ...utils.reproducibility import seed_everything
from ...utils.step_parts import PARTS, REWARD, UPDATES, step_part
from .advice import Advice, advice
from .memory import held_by_owner, memory_of
from .parts import PartMarks, PartMeter, PartTimer
from .peak_rate import PeakRate, peak_rate
from .trace import GpuUse, check_trace_place, gpu_use, read_trace

WARM_UP = 3
"""Steps before those that are measured: kernels are chosen, loaded and compiled in them."""


Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Part:
    """What a part of a step took.

    Attributes:
        name: as `step_parts` has it.
        seconds: its share of the step's median.
        share: of a step's seconds: the median over the measured steps, so that a step in which something else ran on
            the machine counts as one.
        share_low: the lower quartile of its share over the steps, which advice goes by.
        launches: a step: kernels that a GPU was given, or calls that compute something on a CPU; None where unknown.
        tflop: a step.
        peak_share: of the device's peak while it ran.
        waits: times that the host waited, or read a number, a step.
        memory: most bytes during it: on a GPU all that is allocated, on a CPU what the step itself has made.
    """

    name: str
    seconds: float
    share: float
    share_low: float = 0.0
    launches: int | None = None
    tflop: float | None = None
    peak_share: float | None = None
    waits: int | None = None
    memory: int | None = None


@dataclass(frozen=True)
class Profile:
    """What a profile found.

    Attributes:
        settings: the run's, those that are not defaults.
        device: in words.
        device_type: `"cpu"`, `"cuda"` or `"mps"`.
        batch: samples a step.
        steps: measured.
        asked: steps that were asked for; more than `steps` where a signal came before.
        seconds: of a step, the median.
        quartiles: of the steps' seconds.
        parts: in a step's order.
        held: bytes that stay through the run, by owner.
        peak_memory: bytes: on a GPU allocated at once, on a CPU resident in the process.
        device_memory: bytes that the device has.
        peak_rate: what the device computes at most.
        busy: share of the step in which a GPU computed; None on others.
        waited: share of the step for which the host waited for a GPU; None on others.
        waits_at: the places of the host's waits with their number a step.
        trace: the trace's file.
        advice: what to change.
    """

    settings: dict[str, Any]
    device: str
    device_type: str
    batch: int
    steps: int
    asked: int
    seconds: float
    quartiles: tuple[float, float]
    parts: tuple[Part, ...]
    held: dict[str, int] = field(default_factory=dict)
    peak_memory: int = 0
    device_memory: int = 0
    peak_rate: PeakRate | None = None
    busy: float | None = None
    waited: float | None = None
    waits_at: dict[str, int] = field(default_factory=dict)
    trace: str | None = None
    advice: tuple[Advice, ...] = ()

    @property
    def images_per_second(self) -> float:
        """Samples that the generator learns from, a second."""
        return self.batch / self.seconds

    @property
    def interrupted(self) -> bool:
        """Whether a signal ended it early."""
        return self.steps < self.asked

    @property
    def tflop(self) -> float | None:
        """Of a step; None where it was not counted."""
        known = [part.tflop for part in self.parts if part.tflop is not None]
        return sum(known) if known else None

    @property
    def launches(self) -> int | None:
        """Of a step."""
        known = [part.launches for part in self.parts if part.launches is not None]
        return sum(known) if known else None

    @property
    def waits(self) -> int | None:
        """Of the host, a step."""
        known = [part.waits for part in self.parts if part.waits is not None]
        return sum(known) if known else None

    @property
    def peak_share(self) -> float | None:
        """Share of the device's peak that a step reaches."""
        if self.tflop is None or self.peak_rate is None:
            return None
        return self.tflop * 1e12 / self.seconds / self.peak_rate.rate

    def part(self, name: str) -> Part | None:
        """A part by name."""
        return next((part for part in self.parts if part.name == name), None)

    def as_dict(self) -> dict[str, Any]:
        """Everything, as plain values."""
        names = ("images_per_second", "interrupted", "tflop", "launches", "waits", "peak_share")
        return {**asdict(self), **{name: getattr(self, name) for name in names}}


def profile(
    config: TrainConfig,
    steps: int = 10,
    trace: Path | None = None,
    *,
    progress: Progress = lambda what, step, of: None,
) -> Profile:
    """Profile the steps of a run.

    Args:
        config: settings; those left unset are filled from what the generator's plugin recommends.
        steps: measured ones, at least 1.
        trace: file that a Chrome trace is written to, gzipped where it ends in `.gz`; none where None.
        progress: is told what is being done, which step of it, and of how many.

    Returns:
        What was found; where a signal came meanwhile, what had been found by then.

    Raises:
        RequestError: the settings or the trace's place cannot be used; nothing has been measured then.
        RunError: a step failed.
        StopNow: a signal came before any step was measured.
    """
    if steps < 1:
        raise RequestError(f"--steps {steps} measures nothing; expected at least 1.")
    if launched_count() > 1:
        raise RequestError("dipp profile measures one process. Start it without accelerate or torchrun.")
    if trace is not None:
        check_trace_place(trace)
    config = resolve(config)
    device = choose_device(config.device)
    with (
        StopRequest().noted() as stop,
        deterministic_kernels(device, config.deterministic),
        tempfile.TemporaryDirectory(prefix="dipp-profile-") as scratch,
    ):
        with stop.at_once():
            progress("loading", 1, 1)
            config, _ = settle_precision(config, device, Processes())
            config, _ = settle_compile(config, device, Processes())
            loop = profiled_loop(config, Path(scratch))
        return Profiling(loop, steps, trace, stop, progress, Path(scratch)).run()


def profiled_loop(config: TrainConfig, scratch: Path) -> TrainingLoop:
    """The run's own loop, which writes nothing by itself.

    Args:
        config: resolved settings.
        scratch: stands in for the run's folder.
    """
    seed_everything(config.seed)
    parts = assemble(config)
    seed_everything(config.seed)
    return TrainingLoop(config, parts, RunFolder(scratch / "run"))


class Profiling:
    """The steps of a profile, until they are done or a signal comes.

    Args:
        loop: assembled.
        steps: to be measured.
        trace: where the trace goes.
        stop: notes signals.
        progress: is told what is being done.
        scratch: folder for what is made on the way.
    """

    def __init__(
        self,
        loop: TrainingLoop,
        steps: int,
        trace: Path | None,
        stop: StopRequest,
        progress: Progress,
        scratch: Path,
    ):
        self.loop, self.steps, self.place, self.stop, self.progress = loop, steps, trace, stop, progress
        self.scratch = scratch
        self.device = loop.parts.device
        self.timer = PartTimer(self.device)
        self.meter: PartMeter | None = None
        self.gpu = GpuUse()
        self.written: Path | None = None
        self.peak_memory = 0

    def run(self) -> Profile:
        """Make the steps, and say what they took.

        Raises:
            RunError: one failed, or the trace could not be written.
            StopNow: a signal came before a step was measured.
        """
        with hooked(self.loop), failures_as_sentences():
            for number in range(WARM_UP):
                self.progress("warming up", number + 1, WARM_UP)
                if not self._step(nullcontext()):
                    raise StopNow
            for number in range(self.steps):
                self.progress("measuring", number + 1, self.steps)
                if not self._step(self.timer.step()):
                    break
            if not self.timer.seconds:
                raise StopNow
            self.peak_memory = max(self.timer.peaks.values(), default=0) or int(peak_memory_mb(self.device) * 2**20)
            if self.stop.signal is None:
                self.progress("counting the operations of a step", 1, 1)
                self._count()
            if self.stop.signal is None and (self.place is not None or self.device.type == "cuda"):
                self.progress("tracing a step", 1, 1)
                self._trace()
        return self._profile()

    def _step(self, measured: Any) -> bool:
        """A step of the run; False where a signal came before it."""
        if self.stop.signal is not None:
            return False
        with measured:
            self.loop.one_step()
        return True

    def _count(self) -> None:
        meter = PartMeter(self.device)
        # A mode of Python's sees nothing of what is compiled; operations are those of the same step uncompiled.
        torch.compiler.set_stance("force_eager")
        try:
            self._step(meter.step())
        finally:
            torch.compiler.set_stance("default")
        self.meter = meter

    def _trace(self) -> None:
        from torch.profiler import ProfilerActivity

        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.device.type == "cuda" else [])]
        with torch.profiler.profile(activities=kinds, acc_events=True) as profiler:
            self._step(PartMarks().step())
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        plain = self.scratch / "trace.json"
        try:
            profiler.export_chrome_trace(str(plain))
            if self.device.type == "cuda":
                self.gpu = gpu_use(read_trace(plain))
            if self.place is not None:
                self.written = _put(plain, self.place)
        except (OSError, RuntimeError) as error:
            raise RunError(
                f"The trace could not be written to {shown(self.place or plain)}: {error}. Free some space, or name "
                "another place with --trace."
            ) from error

    def _profile(self) -> Profile:
        seconds = self.timer.seconds
        low, middle, high = _quartiles(seconds)
        rate = peak_rate(self.device, PRECISIONS[self.loop.config.precision])
        profile = Profile(
            settings=_settings_of(self.loop.config),
            device=environment(self.device)["device"],
            device_type=self.device.type,
            batch=self.loop.batch,
            steps=len(seconds),
            asked=self.steps,
            seconds=middle,
            quartiles=(low, high),
            parts=tuple(self._parts(rate)),
            held=held_by_owner(self.loop.parts),
            peak_memory=self.peak_memory,
            device_memory=memory_of(self.device),
            peak_rate=rate,
            busy=self.gpu.busy / self.gpu.seconds if self.gpu.seconds else None,
            waited=sum(self.gpu.waited.values()) / self.gpu.seconds if self.gpu.seconds else None,
            waits_at=_places(self.meter.waits.counts if self.meter is not None else {}),
            trace=str(self.written) if self.written is not None else None,
        )
        return replace(profile, advice=tuple(advice(profile, self.loop.config)))

    def _parts(self, rate: PeakRate) -> Iterator[Part]:
        timed = self.timer.by_part
        names = in_order([name for step in timed for name in step])
        by_step = {name: [step.get(name, 0.0) / sum(step.values()) for step in timed] for name in names}
        usual = {name: statistics.median(parts) for name, parts in by_step.items()}
        shares = {name: value / sum(usual.values()) for name, value in usual.items()}
        seconds = {name: share * statistics.median(self.timer.seconds) for name, share in shares.items()}
        meter = self.meter
        launches: Mapping[str, int] | None = self.gpu.launches or (meter.calls_by_part if meter is not None else None)
        waits = self.gpu.waits if self.gpu.seconds else meter.waits_by_part if meter is not None else None
        memory = self.timer.peaks or (meter.held_by_part if meter is not None else {})
        for name in names:
            flops = meter.flops_by_part.get(name, 0) if meter is not None else None
            yield Part(
                name=name,
                seconds=seconds[name],
                share=shares[name],
                share_low=_quartiles(by_step[name])[0],
                launches=launches.get(name, 0) if launches is not None else None,
                tflop=flops / 1e12 if flops is not None else None,
                peak_share=flops / seconds[name] / rate.rate if flops and seconds[name] else None,
                waits=waits.get(name, 0) if waits is not None else None,
                memory=memory.get(name),
            )


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def in_order(names: Sequence[str]) -> list[str]:
    """Parts in a step's order, each once."""

    def place(name: str) -> int:
        return PARTS.index(REWARD if name.startswith(REWARD) else name)

    return sorted(dict.fromkeys(names), key=place)


@contextmanager
def hooked(loop: TrainingLoop) -> Iterator[None]:
    """Inside, the optimisers' steps are a part, whatever optimisers they are."""
    assistant = loop.parts.assistant
    optimizers: list[Any] = [loop.parts.engine.optimizer]
    optimizers += [assistant.optimizer] if isinstance(assistant, LearnedAssistant) else []
    for optimizer in optimizers:
        optimizer.step = step_part(UPDATES)(optimizer.step)
    try:
        yield
    finally:
        for optimizer in optimizers:
            del optimizer.step


@contextmanager
def failures_as_sentences() -> Iterator[None]:
    """Whatever the code of a term, a generator or a plugin raises becomes a sentence.

    Raises:
        RunError: it raised something.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise RunError(
            "The step needs more memory than the GPU has. dipp plan --memory says which settings fit; "
            "a smaller --batch-size is one."
        ) from error
    except DippError:
        raise
    except Exception as error:  # the code of a term, a generator or a plugin may raise anything
        raise RunError(f"The step failed with {raised(error)}.") from error


def _settings_of(config: TrainConfig) -> dict[str, Any]:
    written = config.model_dump(mode="json")
    defaults = TrainConfig.model_construct().model_dump(mode="json")
    always = ("generator", "reference", "rewards", "mode", "batch_size", "precision")
    return {name: value for name, value in written.items() if name in always or value != defaults.get(name)}


def _places(counts: Mapping[Wait, int]) -> dict[str, int]:
    """How often the host waits in a step, by place, most often first."""
    places: Counter[str] = Counter()
    for wait, count in counts.items():
        places[wait.where] += count
    return dict(places.most_common())


def _put(plain: Path, place: Path) -> Path:
    """Copy the trace to its place, gzipped where the name says so."""
    if place.suffix == ".gz":
        with plain.open("rb") as source, gzip.open(place, "wb") as target:
            shutil.copyfileobj(source, target)
    else:
        shutil.copyfile(plain, place)
    return place
