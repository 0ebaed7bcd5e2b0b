"""What each decode option costs in accuracy, against the plain decode, on the emoji world's trained autoencoder.

    python benchmarks/decode_options/run.py [--count 64]

For latents of the one-step generator: the largest and the mean difference of pixels (images compared at the option's
own size), and the cosine between the gradients of emoji-preference that reach the latents. Writes results.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from dipp_toolkit import load_generator, load_prompts, load_reference, load_reward
from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.models.decoding import DecodeOptions
from dipp_toolkit.models.sampling import fixed_noise
from dipp_toolkit.objective.base import Sample
from dipp_toolkit.objective.terms.reward import RewardTerm
from dipp_toolkit.protocols import texts

OPTIONS = {
    "`decode_checkpointing`": (DecodeOptions(checkpointing=True), 0),
    "`reward_batch=1` (sliced)": (DecodeOptions(), 1),
    "`reward_resolution=48` (three quarters)": (DecodeOptions(resolution=48), 0),
    "`reward_resolution=32` (half)": (DecodeOptions(resolution=32), 0),
}


def main() -> None:
    """Measure every option."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=64, help="latents")
    count = parser.parse_args().count
    reference, generator = load_reference("emoji-reference"), load_generator("emoji-onestep")
    reward = load_reward("emoji-preference")
    prompts = texts(load_prompts("emoji-heldout"))[:count]
    condition = reference.encode(prompts)
    with torch.no_grad():
        x0 = generator.generate(fixed_noise(count, generator.latent_shape, 0), condition)
    sample = Sample(x0, Condition(tuple(prompts)), x0, torch.Generator())

    def measured(options: DecodeOptions, batch: int) -> tuple[Tensor, Tensor]:
        decode = reference.reward_decoder(options)  # type: ignore[attr-defined]
        term = RewardTerm("emoji-preference", reward, decode, batch)
        with torch.no_grad():
            images = decode(x0)
        return images, term(sample).grad

    plain, gradient = measured(DecodeOptions(), 0)
    rows = [
        "| option | pixels, largest difference | pixels, mean difference | cosine of the reward's gradient |",
        "|---|---|---|---|",
    ]
    for name, (options, batch) in OPTIONS.items():
        images, own = measured(options, batch)
        target = plain if images.shape == plain.shape else F.interpolate(plain, size=images.shape[-2:], mode="area")
        gap = (images - target).abs()
        cosine = F.cosine_similarity(own.flatten(1), gradient.flatten(1)).mean()
        rows.append(f"| {name} | {gap.max():.2g} | {gap.mean():.2g} | {cosine:.4f} |")
    text = "\n".join(rows) + f"\n\n{count} latents, pixels in [0, 1], torch {torch.__version__}.\n"
    Path(__file__).with_name("results.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
