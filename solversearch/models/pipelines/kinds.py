"""Pipelines that no plan can sample, as far as model_index.json and the class say so: told before any weights are read."""

import inspect

from solversearch.models.pipelines.guest import NETWORKS, Misfit
from solversearch.models.pipelines.source import Folder

_CHUNKS = ("overlap_history", "history_sizes", "num_latent_frames_per_chunk")
"""Arguments of pipelines that sample a video piece by piece."""


def check_kind(folder: Folder) -> None:
    """Raises `Misfit` with the reason, and `UserError` for a class that diffusers does not have."""
    schedulers = [part for part, entry in folder.index.items() if isinstance(entry, list) and str(entry[-1]).endswith("Scheduler")]
    if len(schedulers) > 1:
        raise Misfit(f"it has {len(schedulers)} schedulers ({', '.join(schedulers)}), and a plan takes the place of one")
    arguments = inspect.signature(folder.kind.__call__).parameters
    if any(each in arguments for each in _CHUNKS):
        raise Misfit("it samples a video in chunks, each of which begins with the one before")
    if not folder.networks:
        if "prior" in folder.index:
            raise Misfit("it is a prior, which makes embeddings for another pipeline, and no pictures; name the one that makes these")
        raise Misfit(f"it has no network of its own among {', '.join(NETWORKS)}")
