"""TRL's `RewardTrainer` on votes, as it comes: its loss, its loop, its curves; and nothing global is different after.

Two stages where the backbone is adapted: first the head alone, then head and adapters together, since a head that
knows nothing would first pull the backbone's features out of shape (Kumar et al. 2022, arXiv 2202.10054).
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from ...distributed.group import launched_count
from ...errors import RequestError
from ...models.files.folders import quiet_loading
from ...utils.packages import missing_of, not_installed
from ...utils.reproducibility import random_states_kept

LEAST_STEPS, EPOCHS = 200, 3
"""Updates of the head unless told otherwise: this many, or this often through all votes, whichever is more."""
HEAD_RATE, HEAD_DECAY, MOMENTUM = 0.1, 0.03, 0.9
"""Of gradient descent on the head, whose weight decay makes it a group lasso; Adam's would not."""
LORA_RATE = 1e-4
LORA_TARGETS = r".*\.vision_model\..*\.(q_proj|v_proj)"
"""Linear layers of the image's attention, as in LoRA's paper (Hu et al. 2021, arXiv 2106.09685)."""


@dataclass(frozen=True)
class FitSettings:
    """How a member is fitted.

    Attributes:
        steps: updates of a stage; None for the larger of 200 and three epochs.
        epochs: times that a stage sees every vote, in the place of `steps`.
        batch_size: votes an update.
        learning_rate: of the head, or of the adapters where there are any; None for 0.1 and 1e-4.
        lora_rank: of adapters on the image tower's attention; 0 leaves the backbone frozen.
        center: TRL's `center_rewards_coefficient`. The paper's 0.01 is for rewards whose prompts differ as much as
            their answers do. Images of one prompt differ by a few hundredths of what prompts do, so that it punishes
            the signal: 93 % of agreement with a taste for warmth became 63 % (`benchmarks/reward_fit/run.py`). Drift is
            taken out afterwards, by a mean that is kept with the weights.
    """

    steps: int | None = None
    epochs: float | None = None
    batch_size: int = 32
    learning_rate: float | None = None
    lora_rank: int = 0
    center: float = 0.0

    def check(self) -> None:
        """Refuse values out of range.

        Raises:
            RequestError: as a sentence.
        """
        if self.steps is not None and self.epochs is not None:
            raise RequestError("Give --steps or --epochs, not both.")
        for flag, value, least in (
            ("--steps", self.steps, 1),
            ("--batch-size", self.batch_size, 1),
            ("--lora-rank", self.lora_rank, 0),
        ):
            if value is not None and value < least:
                raise RequestError(f"{flag} is {value}; expected {least} or more.")
        for flag, number in (("--epochs", self.epochs), ("--learning-rate", self.learning_rate)):
            if number is not None and not 0 < number < math.inf:
                raise RequestError(f"{flag} is {number:g}; expected a number above 0.")
        if not 0 <= self.center < math.inf:
            raise RequestError(f"The option center is {self.center:g}; expected 0 or more.")

    def updates(self, votes: int) -> int:
        """Updates of a stage on so many votes."""
        if self.steps is not None:
            return self.steps
        batches = math.ceil(votes / self.batch_size)
        return max(LEAST_STEPS, EPOCHS * batches) if self.epochs is None else math.ceil(self.epochs * batches)


def check_trl(device: torch.device) -> None:
    """Refuse where TRL is not installed or would refuse itself.

    Raises:
        PluginError: it is not installed; the sentence says what to type.
        RequestError: several processes or several GPUs are in use.
    """
    missing = missing_of(["trl"])
    if missing:
        raise not_installed("Fitting a reward needs", missing, extra="fit")
    if launched_count() > 1:
        raise RequestError("dipp reward fit runs in one process. Start it without accelerate or torchrun.")
    if device.type == "cuda" and torch.cuda.device_count() > 1:
        raise RequestError(
            f"{torch.cuda.device_count()} GPUs are visible, and TRL fits a reward on one a process. Make one visible, "
            "as in CUDA_VISIBLE_DEVICES=0, and start again."
        )


def train_head(
    network: nn.Module,
    pairs: Any,
    collator: Any,
    tokenizer: Any,
    settings: FitSettings,
    seed: int,
    device: torch.device,
) -> tuple[nn.Module, Any]:
    """The first stage: the head on kept features, by gradient descent with momentum and weight decay.

    Returns:
        The network, and the trainer's state, whose `log_history` are TRL's curves.
    """
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith("head."))
    rate = settings.learning_rate if settings.learning_rate is not None and not settings.lora_rank else HEAD_RATE
    optimizer = (torch.optim.SGD, {"lr": rate, "momentum": MOMENTUM, "weight_decay": HEAD_DECAY})
    trainer = _trained(
        network, pairs, collator, tokenizer, settings, seed, device, rate, optimizer_cls_and_kwargs=optimizer
    )
    return trainer.model, trainer.state


def train_adapters(
    network: nn.Module,
    pairs: Any,
    collator: Any,
    tokenizer: Any,
    settings: FitSettings,
    seed: int,
    device: torch.device,
) -> tuple[Any, Any]:
    """The second stage: adapters on the image tower and the head together, by TRL's AdamW.

    Returns:
        The `PeftModel`, and the trainer's state.
    """
    from peft import LoraConfig

    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=2 * settings.lora_rank,
        target_modules=LORA_TARGETS,
        modules_to_save=["head"],
        init_lora_weights=True,
    )
    rate = LORA_RATE if settings.learning_rate is None else settings.learning_rate
    trainer = _trained(network, pairs, collator, tokenizer, settings, seed, device, rate, peft_config=config)
    return trainer.model, trainer.state


def _trained(
    network: nn.Module,
    pairs: Any,
    collator: Any,
    tokenizer: Any,
    settings: FitSettings,
    seed: int,
    device: torch.device,
    rate: float,
    **others: Any,
) -> Any:
    with globals_kept(device), TemporaryDirectory() as folder:
        from transformers import PrinterCallback
        from trl import RewardConfig, RewardTrainer

        arguments = RewardConfig(
            output_dir=folder,
            max_steps=settings.updates(len(pairs)),
            per_device_train_batch_size=min(settings.batch_size, len(pairs)),
            learning_rate=rate,
            lr_scheduler_type="linear",
            max_grad_norm=0.0,
            weight_decay=HEAD_DECAY if "optimizer_cls_and_kwargs" in others else 0.0,
            center_rewards_coefficient=settings.center or None,
            max_length=None,
            remove_unused_columns=False,
            gradient_checkpointing=False,  # TRL's default is True, and ours has none
            bf16=False,
            fp16=False,
            use_cpu=device.type == "cpu",
            save_strategy="no",
            report_to="none",
            logging_steps=10,
            disable_tqdm=True,
            dataloader_num_workers=0,
            dataloader_pin_memory=False,
            seed=seed,
            data_seed=seed,
        )
        trainer = RewardTrainer(
            model=network,
            args=arguments,
            data_collator=collator,
            train_dataset=pairs,
            processing_class=tokenizer,
            **others,
        )
        trainer.remove_callback(PrinterCallback)  # it prints to stdout
        trainer.train()
        return trainer


@contextmanager
def globals_kept(device: torch.device) -> Iterator[None]:
    """What TRL, transformers and accelerate set for the whole process is as before after this context.

    These are random states, variables of the environment, and which device and processes accelerate believes in. TRL
    tells its makers about each trainer that is built; here it does not.
    """
    import huggingface_hub.constants as hub
    from accelerate.state import AcceleratorState, GradientState, PartialState

    states: list[Any] = [PartialState, AcceleratorState, GradientState]
    before = [dict(state._shared_state) for state in states]
    environment, telemetry = dict(os.environ), hub.HF_HUB_DISABLE_TELEMETRY
    hub.HF_HUB_DISABLE_TELEMETRY = True
    for state in states:
        state._shared_state.clear()
    try:
        with random_states_kept(device), quiet_loading(), warnings.catch_warnings():
            # transformers renames the option, and TRL's default of it has to be overruled in all of its versions
            warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*", category=FutureWarning)
            yield
    finally:
        for state, values in zip(states, before, strict=True):
            state._shared_state.clear()
            state._shared_state.update(values)
        hub.HF_HUB_DISABLE_TELEMETRY = telemetry
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
