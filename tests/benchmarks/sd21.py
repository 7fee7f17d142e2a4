"""A network of Stable Diffusion 2.1's true size, 865 million random weights, through the estimate and a short search.

    python -m tests.benchmarks.sd21 [--side 8] [--samples 4] [--candidates 6] [--nfe 3] [--guidance 7.5]

side is that of the latents, 96 for the real thing, which takes a GPU. Prints what `optimize --dry-run` would, candidates a second, each
fitted and judged on as many samples, the share of that time inside the network, and one gradient of the polish. Run by hand; 8 GiB.
"""

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from rich.console import Console

from solversearch.judging.objectives import parse_many
from solversearch.models.base import Clock, Model
from solversearch.models.options import Options
from solversearch.models.pipelines import of_object
from solversearch.models.pipelines.library import quiet
from solversearch.search.estimate import estimate
from solversearch.search.evaluating.evaluator import Evaluated, Evaluator
from solversearch.search.fitting.polish import polish
from solversearch.search.settings import Settings
from solversearch.spaces import Domain, SearchSpace
from solversearch.teacher import teach
from tests import tiny

PROMPTS = ["a red fox in the snow", "two boats", "a lamp", "rain on a window"]
TOKENS, WIDTH = 77, 1024
SAMPLES = {"samples": 64, "fit_samples": 32, "validation_samples": 32}
"""What the model of true resolution gets."""
TEACHER_STEPS = 8
"""Far too few for a teacher, and enough for a time."""


def sd21(side: int) -> Model:
    """In a pipeline whose other parts are tiny: its VAE halves pictures, and nothing is decoded."""
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
    with TemporaryDirectory() as folder, quiet():
        pipe = StableDiffusionPipeline.from_pretrained(tiny.build("sd_v", Path(folder, "tiny")))
        file = Path(folder, "prompts.txt")
        file.write_text("\n".join(PROMPTS))
        pipe.tokenizer.model_max_length = TOKENS
        torch.manual_seed(0)
        core = UNet2DConditionModel(
            sample_size=96, attention_head_dim=(5, 10, 20, 20), cross_attention_dim=WIDTH, use_linear_projection=True
        )  # fmt: skip
        sizes = {"hidden_size": WIDTH, "num_hidden_layers": 1, "max_position_embeddings": TOKENS, "bos_token_id": 0, "eos_token_id": 1}
        encoder = CLIPTextModel(CLIPTextConfig(vocab_size=len(pipe.tokenizer), **sizes))
        pipe.register_modules(unet=core, text_encoder=encoder)
        return of_object(pipe.to(device, dtype), Options(prompts=file, resolution=2 * side))


def main() -> None:
    parser = argparse.ArgumentParser(description="Stable Diffusion 2.1's network through the search.")
    for name, value in (("side", 8), ("samples", 4), ("candidates", 6), ("nfe", 3), ("batch-size", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--guidance", type=float, default=7.5)
    given, console = parser.parse_args(), Console(width=140)
    start = time.perf_counter()
    model = sd21(given.side)
    count = sum(weight.numel() for weight in model.network.parameters())  # type: ignore[attr-defined]
    console.print(f"{count:,} weights, made in {time.perf_counter() - start:.0f} s")
    chosen = {"batch_size": given.batch_size} if given.batch_size else {}
    settings = Settings(nfe=given.nfe, guidance=given.guidance, **SAMPLES, **chosen).sized(model)
    for name, fact in estimate(model, settings).items():
        console.print(f"  {name}: {fact}", highlight=False)
    clock, size = Clock(), settings.batch_size
    fitting, validation = (
        teach(model, split, given.samples, given.guidance, steps=TEACHER_STEPS, batch_size=size) for split in ("fit", "validate")
    )
    judge = Evaluator(model, fitting, validation, parse_many("endpoint"), 1.0, settings.splits, size, clock)
    domain = Domain.of(SearchSpace(), model.schedule, given.nfe, given.guidance)
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    found = judge.candidates([domain.candidate(domain.random(rng)) for _ in range(given.candidates)])
    seconds = time.perf_counter() - start
    best = min((each for each in found if isinstance(each, Evaluated)), key=lambda each: each.value)
    console.print(
        f"{len(found) / seconds:.3g} candidates a second on {given.samples} + {given.samples} samples, "
        f"{clock.seconds / seconds:.1%} of the time inside the network, {clock.evaluations / seconds:.3g} network evaluations a second"
    )
    before, start = Clock(clock.seconds, clock.evaluations), time.perf_counter()
    list(polish(model, best.table, fitting, 1, batch=1, split=best.table.split, batch_size=size, clock=clock))
    seconds = time.perf_counter() - start
    console.print(f"polish, a sample a step: {seconds:.1f} s for {clock.evaluations - before.evaluations} evaluations' worth, "
                  f"{(clock.seconds - before.seconds) / seconds:.1%} inside the network")  # fmt: skip


if __name__ == "__main__":
    main()
