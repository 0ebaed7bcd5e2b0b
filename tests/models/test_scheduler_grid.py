"""References are sampled as stock pipelines sample: a part of the grid, and the whole of it where it is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.scheduler_grid.cells import FLOW_SIGMAS, PIPELINES, RESOLUTION, Cell, allowed, cells
from benchmarks.scheduler_grid.compare import Twin
from benchmarks.scheduler_grid.run import outcomes, summary, table
from dipp_toolkit.diffusion.schedules import FlowMatching
from dipp_toolkit.errors import RequestError

ZERO_SNR = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
LEADING = {"timestep_spacing": "leading", "steps_offset": 1}
SDE = {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}
EQUAL: dict[str, tuple[Cell, ...]] = {
    "StableDiffusionPipeline": (
        Cell("", "DDIMScheduler", {"clip_sample": True, "steps_offset": 0}),
        Cell("", "PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1}),
        Cell("", "EulerAncestralDiscreteScheduler", {"timestep_spacing": "trailing"}),
        Cell("", "EulerDiscreteScheduler", ZERO_SNR),
        Cell("", "DPMSolverMultistepScheduler", SDE),
        Cell("", "LMSDiscreteScheduler", {"rescale_betas_zero_snr": True}),
    ),
    "StableDiffusionXLPipeline": (
        Cell("", "EulerDiscreteScheduler", LEADING),
        Cell("", "HeunDiscreteScheduler", {"use_karras_sigmas": True}),
        Cell("", "KDPM2AncestralDiscreteScheduler"),
        Cell("", "UniPCMultistepScheduler", {"final_sigmas_type": "sigma_min"}),
        Cell("", "TCDScheduler"),
        Cell("", "DPMSolverMultistepScheduler", {**FLOW_SIGMAS, "flow_shift": 3.0, "use_dynamic_shifting": True}),
    ),
    "PixArtAlphaPipeline": (
        Cell("", "DPMSolverMultistepScheduler"),
        Cell("", "DPMSolverMultistepScheduler", {}, steps=1),
        Cell("", "DDPMScheduler", {"clip_sample": True}),
        Cell("", "LCMScheduler", {}, steps=1),
        Cell("", "SASolverScheduler"),
        Cell("", "DEISMultistepScheduler", {"use_exponential_sigmas": True}),
    ),
    "StableDiffusion3Pipeline": (
        Cell("", "FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
        Cell("", "FlowMatchEulerDiscreteScheduler", RESOLUTION),
        Cell("", "FlowMatchEulerDiscreteScheduler", {"shift_terminal": 0.1}),
        Cell("", "FlowMatchLCMScheduler"),
        Cell("", "FlowMatchHeunDiscreteScheduler", {"shift": 3.0}),
        Cell("", "UniPCMultistepScheduler", {**FLOW_SIGMAS, "use_dynamic_shifting": True}),
    ),
    "FluxPipeline": (
        Cell("", "FlowMatchEulerDiscreteScheduler", {"shift": 1.0}),
        Cell("", "FlowMatchEulerDiscreteScheduler", {**RESOLUTION, "time_shift_type": "linear"}),
        Cell("", "FlowMatchEulerDiscreteScheduler", {**RESOLUTION, "shift_terminal": 0.02, "use_beta_sigmas": True}),
        Cell("", "FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}),
        Cell("", "UniPCMultistepScheduler", {**FLOW_SIGMAS, "shift_terminal": 0.1}),
    ),
}
REFUSED: dict[str, tuple[tuple[Cell, str], ...]] = {
    "StableDiffusionPipeline": (
        (Cell("", "FlowMatchEulerDiscreteScheduler"), "has no init_noise_sigma"),
        (Cell("", "DPMSolverSDEScheduler"), "an image would depend on those beside it"),
    ),
    "StableDiffusionXLPipeline": (
        (Cell("", "EDMDPMSolverMultistepScheduler"), "EDM"),
        (Cell("", "EulerDiscreteScheduler", {"timestep_type": "continuous"}), "log sigma / 4"),
        (Cell("", "DDIMScheduler", {**ZERO_SNR, "prediction_type": "epsilon", "clip_sample": False}), "no numbers"),
    ),
    "PixArtAlphaPipeline": (
        (Cell("", "UniPCMultistepScheduler", {"prediction_type": "flow_prediction"}), "Set use_flow_sigmas to true"),
        (Cell("", "PNDMScheduler", {"prediction_type": "sample"}), "prediction_type given as sample"),
        (Cell("", "DDIMScheduler", {"prediction_type": "flow_prediction"}), "If the network was trained"),
    ),
    "StableDiffusion3Pipeline": (
        (Cell("", "EulerDiscreteScheduler"), "which this pipeline class leaves out"),
        (Cell("", "FlowMatchEulerDiscreteScheduler", {"invert_sigmas": True}), "from clean to noise"),
        (Cell("", "FlowMatchLCMScheduler", {"scale_factors": [0.5, 1.0]}), "grow from step to step"),
        (Cell("", "FlowMatchEulerDiscreteScheduler", {"shift_terminal": 0.1}, steps=1), "in 1 step: its times"),
    ),
    "FluxPipeline": (
        (Cell("", "FlowMatchHeunDiscreteScheduler"), "cannot be told mu and sigmas"),
        (Cell("", "DPMSolverMultistepScheduler", FLOW_SIGMAS), "use_dynamic_shifting has to be true"),
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=PIPELINES)
def twin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Twin:
    return Twin(request.param, tmp_path_factory.mktemp("grid") / request.param)


def test_samples_and_noise_levels_are_those_of_stock(twin: Twin) -> None:
    for cell in EQUAL[twin.name]:
        result = twin.outcome(cell)
        assert result.kind == "equal", (cell, result)
        assert result.levels is None or result.levels < 3e-4


def test_what_stock_cannot_do_is_refused_by_name(twin: Twin) -> None:
    for cell, reason in REFUSED[twin.name]:
        result = twin.outcome(cell)
        assert result.kind == "refused", (cell, result)
        assert cell.scheduler in result.reason
        assert reason in result.reason


def test_an_image_does_not_depend_on_those_beside_it(twin: Twin) -> None:
    """Schedulers that draw noise: the second image alone is the one that stood beside the first."""
    flow = twin.name in ("FluxPipeline", "StableDiffusion3Pipeline")
    twin.write_scheduler(Cell(twin.name, "FlowMatchLCMScheduler" if flow else "EulerAncestralDiscreteScheduler"))
    reference = twin.as_reference()
    torch.manual_seed(1)
    both = reference.sample(twin.condition, twin.noise, 4, 2.0)
    torch.manual_seed(2)
    alone = reference.sample(twin.condition[[1]], twin.noise[1:], 4, 2.0)
    torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-4)
    again = reference.sample(twin.condition, twin.noise.flip(0), 4, 2.0)
    assert (again - both).abs().max() > 1e-2, "the noise of the steps follows from the initial noise"


@pytest.mark.parametrize("kind", ["exponential", "linear"])
@pytest.mark.parametrize("pipeline", ["StableDiffusion3Pipeline", "FluxPipeline"])
def test_training_shifts_times_by_resolution_as_sampling_does(
    pipeline: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = Twin(pipeline, tmp_path / "twin")
    settings = {**RESOLUTION, "time_shift_type": kind, "base_image_seq_len": 4, "max_image_seq_len": 64}
    twin.write_scheduler(Cell(pipeline, "FlowMatchEulerDiscreteScheduler", settings))
    reference = twin.as_reference()
    schedule = reference.denoiser.schedule
    assert isinstance(schedule, FlowMatching)
    levels = []
    step = type(reference.scheduler).step

    def watched(self: object, *arguments: object, **options: object) -> object:
        levels[:] = self.sigmas.tolist()
        return step(self, *arguments, **options)

    monkeypatch.setattr(type(reference.scheduler), "step", watched)
    reference.sample(twin.condition, twin.noise, 4, 1.0)
    first = torch.linspace(1, 1 / 4 if pipeline == "FluxPipeline" else 1 / 1000, 4)
    torch.testing.assert_close(schedule.sigma(first), torch.tensor(levels[:-1]), rtol=1e-5, atol=1e-6)


def test_the_grid_is_whole() -> None:
    """Every scheduler class of diffusers is in it, and each that a pipeline is allowed has several settings."""
    for pipeline in PIPELINES:
        whole = list(cells(pipeline))
        assert len({cell.scheduler for cell in whole}) >= 40
        for scheduler in set(allowed(pipeline)) - {"DPMSolverSDEScheduler", "EDMEulerScheduler"}:
            assert sum(cell.scheduler == scheduler for cell in whole) >= 5


def test_the_table_counts_cells_and_refusals(twin: Twin) -> None:
    chosen = (EQUAL[twin.name][0], REFUSED[twin.name][0][0])
    results = [twin.outcome(Cell(twin.name, cell.scheduler, cell.settings)) for cell in chosen]
    text = summary(results)
    assert text.startswith("2 cells: 1 equal, 1 refused by name, 0 at fault.")
    assert f"| `{twin.name}` | 1 of {len({cell.scheduler for cell in chosen})} | 2 | 1 | 1 |" in text
    assert f"| {twin.name} | {chosen[0].scheduler} | " in table(results)


@pytest.mark.exhaustive
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_cell_is_equal_or_refused(pipeline: str) -> None:
    faults = [outcome for outcome in outcomes(pipeline) if outcome.kind == "differs"]
    assert not faults, "\n".join(f"{fault.cell}: {fault.reason} ({fault.difference:.3g})" for fault in faults)


def test_a_scheduler_of_another_kind_of_time_is_no_reference(twin: Twin) -> None:
    twin.write_scheduler(Cell(twin.name, "IPNDMScheduler"))
    with pytest.raises(RequestError, match=r"The scheduler IPNDMScheduler cannot be used.*save one in the pipeline's"):
        twin.as_reference()
