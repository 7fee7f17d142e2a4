"""Makes the weights of the embedded models: `python -m solversearch.models.train_digits [--out DIR] [--seed 0] [--steps N]`.

Trains the diffusion network and the classifier on one half of the digits, fits the mixture to the same half, and prints how far
samples of both models are from the other half, beside how far the two halves are from each other. The seed decides every number, up
to the rounding of another machine.
"""

import argparse
import time
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, replace
from math import cos, pi
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors.torch import save_file
from torch import Tensor, nn

from solversearch.models.base import Network
from solversearch.models.digits import NULL, SHAPE, SMALL, WEIGHTS, DigitsClassifier, DigitsNetwork, noise_schedule, real_digits
from solversearch.models.mixture import MixtureDenoiser, fit_mixture
from solversearch.plan import replacing
from solversearch.schedules import data_prediction

SCHEDULE = noise_schedule()
N = TypeVar("N", bound=nn.Module)
TEACHER_STEPS = 200
"""DDIM steps of the samples that are judged."""


@dataclass(frozen=True)
class TrainingRecipe:
    """How the diffusion network is trained."""

    steps: int = 5000
    batch: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = 0.3
    dropout: float = 0.3
    label_dropout: float = 0.15
    ema: float = 0.999
    seed: int = 0


def noised(x: Tensor, t: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
    """Noisy images (B, 1, 8, 8) at times t (B,), and the v that the network should say."""
    alpha = torch.as_tensor(SCHEDULE.alpha(t.numpy()), dtype=x.dtype).reshape(-1, 1, 1, 1)
    sigma = torch.as_tensor(SCHEDULE.sigma(t.numpy()), dtype=x.dtype).reshape(-1, 1, 1, 1)
    return alpha * x + sigma * eps, alpha * eps - sigma * x


def cosine_schedule(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """A short warm-up, then a half cosine to nought."""
    warm_up = max(1, min(200, steps // 10))
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: min((i + 1) / warm_up, 0.5 + 0.5 * cos(pi * i / steps)))


def progress(steps: int, what: str) -> Iterable[int]:
    return track(range(steps), description=what)


def train_network(x: Tensor, y: Tensor, recipe: TrainingRecipe) -> DigitsNetwork:
    """The moving average of a network trained on images x (M, 1, 8, 8) with labels y (M,)."""
    torch.manual_seed(recipe.seed)
    network = DigitsNetwork(dropout=recipe.dropout)
    network.mean.copy_(x.flatten(1).mean(0))
    network.variance.copy_(x.flatten(1).var(0))

    def images() -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(x), (recipe.batch,))
        return x[chosen], y[chosen]

    return trained(network, images, NULL, recipe)


def distilled(network: DigitsNetwork, x: Tensor, y: Tensor, recipe: TrainingRecipe) -> DigitsNetwork:
    """A network of an eighth of the weights that learned, of images x (M, 1, 8, 8) with labels y (M,), what the given one says."""
    torch.manual_seed(recipe.seed)
    small = DigitsNetwork(**SMALL)
    small.mean.copy_(network.mean)
    small.variance.copy_(network.variance)

    def images() -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(x), (recipe.batch,))
        return x[chosen], y[chosen]

    return trained(small, images, NULL, replace(recipe, weight_decay=0.01), network)


def trained(
    network: N, images: Callable[[], tuple[Tensor, Tensor]], null: int, recipe: TrainingRecipe, teacher: Network | None = None
) -> N:
    """The moving average of a network that learns v, in continuous time, of batches of images (B, *shape) and labels (B,).

    With a teacher it learns what that says of them in place of v, which is less noisy.
    """
    average = deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, betas=(0.9, 0.99))
    rate = cosine_schedule(optimizer, recipe.steps)
    for step in progress(recipe.steps, "diffusion network"):
        x, labels = images()
        # Stratified times: every batch covers the whole range.
        u = (torch.arange(recipe.batch) + torch.rand(recipe.batch)) / recipe.batch
        condition = torch.where(torch.rand(recipe.batch) < recipe.label_dropout, null, labels)
        t = u * 999
        noisy, v = noised(x, t, torch.randn_like(x))
        if teacher is not None:
            with torch.no_grad():
                v = teacher(noisy, t, condition)
        loss = (network(noisy, t, condition) - v).square().mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        rate.step()
        with torch.no_grad():
            decay = min(recipe.ema, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
    return average.eval().requires_grad_(False)


def train_classifier(x: Tensor, y: Tensor, steps: int, seed: int) -> DigitsClassifier:
    """Trained on lightly noised images, so that its features do not hang on the levels of the scanner."""
    torch.manual_seed(seed)
    classifier = DigitsClassifier(dropout=0.3)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=2e-3, weight_decay=0.05)
    rate = cosine_schedule(optimizer, steps)
    for _ in progress(steps, "classifier"):
        chosen = torch.randint(len(x), (256,))
        logits = classifier(x[chosen] + 0.1 * torch.randn(256, *SHAPE))
        loss = nn.functional.cross_entropy(logits, y[chosen], label_smoothing=0.05)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        rate.step()
    return classifier.eval().requires_grad_(False)


@torch.no_grad()
def sample(network: Network, prediction_type: str, condition: Tensor, steps: int, seed: int) -> Tensor:
    """DDIM (Song et al. 2020, arXiv:2010.02502) without guidance on angles of equal width: images (B, 1, 8, 8) of conditions (B,)."""
    x = torch.randn(len(condition), *SHAPE, generator=torch.Generator().manual_seed(seed))
    angles = np.linspace(SCHEDULE.angle(SCHEDULE.t_start), SCHEDULE.angle(SCHEDULE.t_end), steps)
    for i, time_i in enumerate(SCHEDULE.time_of_angle(angles)):
        alpha, sigma = float(np.cos(angles[i])), float(np.sin(angles[i]))
        a, b = data_prediction(prediction_type, alpha, sigma)
        clean = a * x + b * network(x, torch.full((len(x),), float(time_i)), condition)
        following = float(angles[i + 1]) if i + 1 < steps else 0.0
        x = np.cos(following) * clean + np.sin(following) / sigma * (x - alpha * clean)
    return x


def frechet(a: Tensor, b: Tensor) -> float:
    """Frechet distance of two sets of features (M, F) taken as Gaussians (Heusel et al. 2017, arXiv:1706.08500)."""
    a, b = a.double(), b.double()
    cov_a, cov_b = a.T.cov(), b.T.cov()
    # tr (cov_a cov_b)^(1/2) is the sum of the roots of the product's eigenvalues, which are real and not negative.
    roots = torch.linalg.eigvals(cov_a @ cov_b).real.clip(min=0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * roots)


def on_levels(x: Tensor) -> Tensor:
    """The nearest image with the scanner's 17 levels, as real digits have."""
    return (x.clip(-1, 1) * 8).round() / 8


def two_sample_accuracy(a: Tensor, b: Tensor, seed: int) -> list[float]:
    """Cross-validated accuracies of a small network and of randomised trees that tell images a from images b; 0.5: they cannot."""
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.neural_network import MLPClassifier

    images = torch.cat([on_levels(a), on_levels(b)]).flatten(1).numpy()
    which = np.repeat([0, 1], [len(a), len(b)])
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    judges = [
        MLPClassifier((128,), alpha=0.1, max_iter=300, early_stopping=True, n_iter_no_change=15, random_state=seed),
        ExtraTreesClassifier(300, min_samples_leaf=2, random_state=seed),
    ]
    return [float(cross_val_score(judge, images, which, cv=folds).mean()) for judge in judges]


def report(console: Console, network: DigitsNetwork, classifier: DigitsClassifier, mixture: MixtureDenoiser, seed: int) -> None:
    """Prints distances to the held-out half, all with samples of equal number."""
    (x_a, _), (x_b, y_b) = real_digits(held_out=False), real_digits(held_out=True)
    size = min(len(x_a), len(x_b))
    x_a, x_b, y_b = x_a[:size], x_b[:size], y_b[:size]
    sets = {
        "network": sample(network, "v_prediction", y_b, TEACHER_STEPS, seed),
        "mixture": sample(mixture, "sample", y_b, TEACHER_STEPS, seed),
        "the training half": x_a,
    }
    columns = ("against the held-out half", "Frechet distance", "told apart by a network", "by trees", "recognised")
    table = Table(*columns, title=f"{size} images each; models sampled in {TEACHER_STEPS} DDIM steps")
    for name, x in sets.items():
        right = "-" if x is x_a else f"{(classifier(x).argmax(1) == y_b).float().mean():.1%}"
        distance = frechet(classifier.features(x), classifier.features(x_b))
        network_accuracy, trees_accuracy = two_sample_accuracy(x, x_b, seed)
        table.add_row(name, f"{distance:.4f}", f"{network_accuracy:.3f}", f"{trees_accuracy:.3f}", right)
    console.print(table)
    console.print(f"the classifier is right on {(classifier(x_b).argmax(1) == y_b).float().mean():.1%} of the held-out half")


def write(path: Path, modules: dict[str, nn.Module]) -> None:
    """Stores the modules' weights under their names; readers see the old file or the new one, never a part."""
    stored = {prefix + name: tensor.contiguous() for prefix, module in modules.items() for name, tensor in module.state_dict().items()}
    with replacing(path) as temporary:
        save_file(stored, temporary)
        temporary.chmod(0o644)  # safetensors leaves files that only their owner may read


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m solversearch.models.train_digits", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder for the files of weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=TrainingRecipe.steps, help="training steps of the diffusion network")
    options = parser.parse_args(arguments)

    console, start = Console(), time.process_time()
    x, y = real_digits(held_out=False)
    network = train_network(x, y, TrainingRecipe(steps=options.steps, seed=options.seed))
    classifier = train_classifier(x, y, min(options.steps, 3000), options.seed)
    mixture = fit_mixture(x, y, options.seed)
    write(options.out / "digits.safetensors", {"network.": network, "classifier.": classifier})
    write(options.out / "mixture.safetensors", {"": mixture})
    write(options.out / "digits_small.safetensors", {"": distilled(network, x, y, TrainingRecipe(steps=options.steps, seed=options.seed))})
    report(console, network, classifier, mixture, options.seed)
    console.print(f"weights in {options.out}, {(time.process_time() - start) / 60:.1f} CPU minutes")


if __name__ == "__main__":
    main()
