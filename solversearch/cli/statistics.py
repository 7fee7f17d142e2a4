"""`solversearch statistics`: what Frechet and kernel distances compare with, made once and kept as a file."""

from pathlib import Path
from typing import Annotated

import typer

from solversearch.cli.loading import Load, loads_model
from solversearch.cli.shared import BatchSize, Json, Overwrite, Seed, stderr, wrote
from solversearch.errors import UserError
from solversearch.outputs import check_place


@loads_model
def statistics(
    images: Annotated[Path | None, typer.Argument(help="A folder of images.", show_default=False)] = None,
    model: Annotated[str | None, typer.Option(help="A model, in place of a folder: its teacher's own images.", show_default=False)] = None,
    out: Annotated[Path, typer.Option(help="The file to write, for --reference.")] = Path("statistics.npz"),
    samples: Annotated[int, typer.Option(min=2, help="Images of the teacher.")] = 4096,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale of the teacher.", show_default="the model's own")] = None,
    seed: Seed = 0,
    batch_size: BatchSize = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    *,
    load: Load,
) -> None:
    """Write the statistics of a folder of images, or of a teacher's own, under --features."""
    if (images is None) == (model is None):
        raise UserError("name a folder of images or a --model, one of the two")
    options = load.options
    if options.reference is not None:
        raise UserError("--reference is what the statistics are for; name the folder without it")
    if out.suffix != ".npz":
        raise UserError(f"--out {out}: statistics are an .npz file")
    check_place(out, "statistics", overwrite)

    from solversearch import memory
    from solversearch.models import reference
    from solversearch.models.extractor import extractor_of
    from solversearch.models.features import ImageFeatures
    from solversearch.report.progress import Display
    from solversearch.teacher import STEPS, teach

    with Display(stderr()) as display:
        if images is not None:
            extractor = extractor_of(options)
            files = reference.images_in(images)
            display("features", 0, 0, f"{len(files)} images")
            features = extractor(files, reference.picture)
        else:
            assert model is not None
            extractor_of(options, "cpu")  # whatever is wrong there is told before the teacher's solve
            loaded = load(model)
            assert isinstance(loaded.features, ImageFeatures)
            extractor = loaded.features.extractor
            teacher = teach(
                loaded, "fit", samples, loaded.guidance if guidance is None else guidance, seed, trajectory=False,
                batch_size=batch_size or memory.batch_size(loaded),
                progress=lambda done: display("teacher", done, STEPS * 3 // 2, f"{samples} samples"),
            )  # fmt: skip
            display("features", 0, 0, f"{samples} images")
            features = loaded.features(teacher.endpoint.clone())
    reference.write(out, features, extractor)
    width = features.shape[1]
    wrote(
        as_json, out, note=f": {len(features)} images, {width} features of {extractor.name}",
        images=len(features), width=width, features=extractor.name,
    )  # fmt: skip
