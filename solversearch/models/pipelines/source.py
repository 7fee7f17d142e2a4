"""Where a pipeline lies: a folder as `save_pretrained` writes it, or a repository of the Hub, whose needed files are fetched.

Only safetensors are read, and only classes of diffusers and transformers are made: nothing is unpickled, and no code of a repository runs.
"""

import hashlib
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from solversearch.errors import UserError, nearest, short
from solversearch.models.pipelines import weights
from solversearch.models.pipelines.guest import NETWORKS, shell
from solversearch.models.pipelines.library import BROKEN, library, quiet
from solversearch.models.pipelines.schedule import class_of_scheduler

_LIBRARIES = ("diffusers", "transformers")
_LEFT_OUT = ("feature_extractor", "image_encoder", "safety_checker", "watermarker")
_DECODERS = ("vae", "movq", "vqvae", "vqgan", "vocoder")
_SMALL = (".json", ".txt", ".model")
"""Configuration and vocabularies."""


@dataclass(frozen=True)
class Folder:
    """A pipeline on this machine. index is its model_index.json; half prefers half-precision weights where both are there."""

    path: Path
    index: dict[str, Any]
    half: bool = False

    @property
    def pipeline(self) -> str:
        return str(self.index.get("_class_name", ""))

    def place(self, part: str) -> Path:
        """The folder of a part; early pipelines have a single one, beside model_index.json."""
        return self.path / part if (self.path / part).is_dir() else self.path

    def config(self, part: str) -> dict[str, Any]:
        return read_json(self.place(part) / ("scheduler_config.json" if part == "scheduler" else "config.json"))

    def weights(self, part: str) -> tuple[str | None, list[Path]]:
        """The variant and the files of tensors. Raises `UserError` where they are missing, or pickled."""
        place = self.place(part)
        names = sorted(each.name for each in place.iterdir())
        variant, chosen = weights.choose(names, self.half)
        if lacking := weights.missing(chosen):
            raise UserError(_no_weights(place, names, lacking, bool(chosen)))
        return variant, [place / name for name in chosen if name.endswith(".safetensors")]

    def dtype(self, part: str) -> torch.dtype:
        """In which the weights are stored."""
        return weights.stored_dtype(self.weights(part)[1][0])

    def digest(self, part: str) -> str:
        return weights.digest(self.weights(part)[1])

    def digests(self, parts: Sequence[str]) -> str:
        """Of the weights of one part or several."""
        each = [self.digest(part) for part in parts]
        return each[0] if len(each) == 1 else hashlib.sha256(" ".join(each).encode()).hexdigest()

    def key(self, dtype: torch.dtype) -> str:
        """What embeddings of prompts depend on."""
        settings = {name: value for name, value in self.index.items() if not isinstance(value, list) and not name.startswith("_")}
        sha = hashlib.sha256(json.dumps([self.pipeline, settings, str(dtype)], default=str).encode())
        for part in self.parts:
            if part in self.modules and part not in self.encoders:
                continue
            sha.update(json.dumps(self.index[part]).encode())
            for file in self.small_files(part) if part != "scheduler" else ():
                sha.update(f"{part} {file.name}".encode() + file.read_bytes())
            if part in self.encoders:
                sha.update(self.digest(part).encode())
        return sha.hexdigest()

    def small_files(self, part: str) -> list[Path]:
        return sorted(each for each in self.place(part).iterdir() if each.suffix in _SMALL)

    def load(self, part: str, dtype: torch.dtype, **more: Any) -> Any:
        """A frozen module in evaluation mode that got every weight from its files; more goes to `from_pretrained`."""
        kind = self.class_of(part)
        variant, _ = self.weights(part)
        arguments = {"torch_dtype": dtype, "variant": variant, "use_safetensors": True, "local_files_only": True} | more
        try:
            with quiet():
                module, info = kind.from_pretrained(self.place(part), output_loading_info=True, **arguments)
        except BROKEN as error:
            raise UserError(f"{self.place(part)}: the weights do not load ({short(error, 200)}); download them again") from error
        if lacking := sorted(info["missing_keys"]):
            raise UserError(f"{self.place(part)}: the weights lack {len(lacking)} tensors, such as {lacking[0]}; download them again")
        return module.eval().requires_grad_(False)

    def without_weights(self, part: str, dtype: torch.dtype) -> Any:
        """The module of a part's settings, for whatever asks for them."""
        kind, config = self.class_of(part), self.config(part)
        try:
            with quiet(), torch.device("meta"):
                own = kind.from_config(config) if hasattr(kind, "from_config") else kind(kind.config_class.from_dict(config))
                own = own.to(dtype)
        except BROKEN as error:
            raise UserError(f"{self.place(part)}/config.json: no {kind.__name__} ({short(error, 200)}); download it again") from error
        return own.eval().requires_grad_(False)

    def settings(self, part: str) -> Any:
        """A part that is no module: a tokenizer, a scheduler."""
        try:
            return self.class_of(part).from_pretrained(self.place(part), local_files_only=True)
        except (*BROKEN, ImportError) as error:  # some need sentencepiece
            raise UserError(
                f"{self.place(part)}: the {part} does not load ({short(error, 200)}); download it, or install what it asks for"
            ) from error

    def class_of(self, part: str) -> Any:
        """The class that model_index.json names for a part, of diffusers or of transformers."""
        where, name = self.index.get(part) or ("", "")
        own = getattr(library("diffusers.pipelines"), str(where), None)  # some parts are of a pipeline's own module
        kind: Any = getattr(library(where) if where in _LIBRARIES else own, str(name), None)
        made = inspect.isclass(kind) and kind.__module__.partition(".")[0] in _LIBRARIES and hasattr(kind, "from_pretrained")
        if not made or "Pipeline" in name or (name.startswith("Auto") and not issubclass(kind, torch.nn.Module)):  # these might run code
            raise UserError(
                f"{self.path}: {part} is {where}.{name} in model_index.json, which is no part of diffusers or transformers: not loaded"
            )
        return kind

    @property
    def kind(self) -> Any:
        """The class of the pipeline."""
        known = [name for name in dir(library()) if name.endswith("Pipeline")]
        if self.pipeline not in known:
            raise UserError(f"{self.path}: {nearest(self.pipeline, known, 'pipeline class')}")
        return getattr(library(), self.pipeline)

    @cached_property
    def modules(self) -> tuple[str, ...]:
        """The parts that are networks of some sort."""
        others = (part for part in self.parts if part != "scheduler")  # which is read from its settings, whatever class it names
        return tuple(part for part in others if issubclass(self.class_of(part), torch.nn.Module))

    @property
    def parts(self) -> tuple[str, ...]:
        """Those that the pipeline is made of, and has."""
        return tuple(name for name in _parameters(self.kind) if _there(self.index.get(name)) and name not in _LEFT_OUT)

    @property
    def networks(self) -> tuple[str, ...]:
        """What is called while it samples."""
        return tuple(part for part in self.modules if part in NETWORKS)

    @property
    def decoders(self) -> tuple[str, ...]:
        """What is called afterwards."""
        return tuple(part for part in self.modules if part.endswith(_DECODERS))

    @property
    def encoders(self) -> tuple[str, ...]:
        """What is called before."""
        return tuple(part for part in self.modules if part not in NETWORKS and not part.endswith(_DECODERS))

    def pipe(self, given: Mapping[str, Any], dtype: torch.dtype, device: str) -> Any:
        """The pipeline of the given modules; the others have no weights, but are said to be on the device."""
        made: dict[str, Any] = {}
        for name, parameter in _parameters(self.kind).items():
            if name in given:
                made[name] = given[name]
            elif name in self.modules:
                made[name] = shell(self.without_weights(name, dtype), device)
            elif name == "scheduler":
                made[name] = scheduler_of(self.config(name))
            elif name in self.parts:
                made[name] = self.settings(name)
            elif name in self.index and not isinstance(self.index[name], list):
                made[name] = False if name == "requires_safety_checker" else self.index[name]
            elif parameter.default is parameter.empty:
                made[name] = None
        try:
            with quiet():
                return self.kind(**made)
        except ImportError as error:
            raise UserError(f"{self.path}: {self.pipeline} asks for a package that is not there ({short(error, 200)})") from error
        except BROKEN as error:
            raise UserError(f"{self.path}: no {self.pipeline} of what its index names ({short(error, 200)}); download it again") from error


def _parameters(kind: Any) -> dict[str, inspect.Parameter]:
    return {name: each for name, each in inspect.signature(kind.__init__).parameters.items() if name != "self"}


def _there(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and entry[0] is not None


def scheduler_of(config: Mapping[str, Any]) -> Any:
    """The pipeline's own scheduler, from the content of scheduler_config.json."""
    with quiet():
        return getattr(library(), class_of_scheduler(config)).from_config(dict(config))


@dataclass(frozen=True)
class InMemory(Folder):
    """A pipeline object of diffusers, whose parts are taken as they are: a change of them, such as a LoRA, is searched for, too."""

    object: Any = None

    @classmethod
    def of(cls, pipe: Any) -> "InMemory":
        index = json.loads(pipe.to_json_string())
        return cls(Path(index["_class_name"]), index, object=pipe)

    def config(self, part: str) -> dict[str, Any]:
        own = getattr(self.object, part)
        return dict(json.loads((own if hasattr(own, "to_json_string") else own.config).to_json_string()))

    def dtype(self, part: str) -> torch.dtype:
        return next(each.dtype for each in getattr(self.object, part).parameters())

    def digest(self, part: str) -> str:
        tensors = getattr(self.object, part).state_dict()
        return weights.digest_of(tensors, tensors.__getitem__)

    def load(self, part: str, dtype: torch.dtype, **more: Any) -> Any:
        """The part itself, frozen and in evaluation mode; a copy where it is of another dtype."""
        own = getattr(self.object, part)
        return (own if self.dtype(part) == dtype else deepcopy(own).to(dtype)).eval().requires_grad_(False)

    def class_of(self, part: str) -> Any:
        return type(getattr(self.object, part))

    def settings(self, part: str) -> Any:
        return getattr(self.object, part)

    def key(self, dtype: torch.dtype) -> str:
        """None: what its parts are is not known from files."""
        return ""

    @property
    def kind(self) -> Any:
        return type(self.object)

    def pipe(self, given: Mapping[str, Any], dtype: torch.dtype, device: str) -> Any:
        """The object's parts but for the given ones; its networks are said to be of that dtype and on the device, too."""
        twin, shells = object.__new__(self.kind), {part: shell(getattr(self.object, part), device, dtype=dtype) for part in self.networks}
        twin.__dict__.update(self.object.__dict__ | shells | given)
        if type(twin.scheduler).__name__ == "PlanScheduler":
            twin.__dict__["scheduler"] = scheduler_of(self.config("scheduler"))
        return twin


def read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file}: the file is missing; a pipeline folder is what save_pretrained of diffusers writes") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: not readable as JSON ({short(error, 100)}); download it again") from None
    if not isinstance(content, dict):
        raise UserError(f"{file}: holds no JSON object; download it again")
    return content


def local(where: str, half: bool) -> Folder:
    path = Path(where).expanduser()
    if not path.is_dir():
        raise UserError(f"{where}: there is no such folder; name a pipeline's folder, a model of 'solversearch list models', or hf:ID")
    return Folder(path, read_json(path / "model_index.json"), half)


def _no_weights(place: Path, names: Sequence[str], lacking: int, some: bool) -> str:
    if some:
        return f"{place}: {lacking} of the files that its weights are split into are missing; download them again"
    pickled = next((name for name in names if name.endswith((".bin", ".ckpt", ".pt", ".pth"))), None)
    if pickled is None:
        return f"{place}: there are no weights (*.safetensors); fetch them with 'hf download ID --local-dir FOLDER' and --model FOLDER"
    target = f"{pickled.removeprefix('pytorch_').rsplit('.', 1)[0]}.safetensors"
    code = f"import torch, safetensors.torch as s; s.save_file(torch.load('{pickled}', weights_only=True), '{target}', {{'format': 'pt'}})"
    return f'{place}: {pickled} is a pickle, which can run code and is not opened; convert it there with python -c "{code}"'


# The Hub ---------------------------------------------------------------------------------------------------------


def from_hub(repository: str, half: bool) -> Folder:
    """The pipeline of a repository, fetched into the Hub's own cache; without a connection, what that cache has."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise UserError(f"hf:{repository}: a repository of the Hub is named OWNER/NAME")
    hub = library("huggingface_hub")
    try:
        names = [each.rfilename for each in hub.HfApi().model_info(repository).siblings or ()]
        if "model_index.json" not in names:
            raise UserError(f"hf:{repository}: there is no model_index.json; only pipelines of diffusers can be loaded")
        index = read_json(Path(hub.hf_hub_download(repository, "model_index.json")))
        parts = [part for part, kind in index.items() if _there(kind) and part not in _LEFT_OUT]
        return local(hub.snapshot_download(repository, allow_patterns=_needed(names, parts, half)), half)
    except UserError:
        raise
    except Exception as error:  # the client raises what its HTTP library raises, and that has changed before
        refused = _refusal(repository, error)
        place = None if refused else cached(repository)
        if place is None:
            raise UserError(refused or _unreachable(repository, error)) from error
        return local(place, half)


def _needed(names: Sequence[str], parts: Sequence[str], half: bool) -> list[str]:
    """Configuration, vocabularies and one set of weights of every part; checkpoints for other programs lie beside them."""
    files: dict[str, list[str]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        files.setdefault(folder, []).append(file)
    nested = [part for part in parts if part in files]
    needed = {folder: [file for file in files.get(folder, []) if Path(file).suffix in _SMALL] for folder in ("", *nested)}
    for folder in nested if any(weights.choose(files[part], half)[1] for part in nested) else ("",):
        needed[folder] += weights.choose(files[folder], half)[1]
    return sorted({f"{folder}/{file}".lstrip("/") for folder, chosen in needed.items() for file in chosen})


def cached(repository: str) -> str | None:
    """Where the Hub's cache has a repository, or some of it."""
    try:
        return str(library("huggingface_hub").snapshot_download(repository, local_files_only=True))
    except Exception:
        return None


def _refusal(repository: str, error: Exception) -> str | None:
    """The line for a repository that the Hub does not hand out, or None where the Hub was not reached."""
    errors = library("huggingface_hub.errors")
    if isinstance(error, errors.GatedRepoError):
        return (
            f"hf:{repository}: its licence must be accepted first, at https://huggingface.co/{repository}; then 'hf auth login', "
            "or --model FOLDER where the pipeline lies already"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"hf:{repository}: the Hub has no such repository, or it is private ('hf auth login'); look at https://huggingface.co/models"
    return None


def _unreachable(repository: str, error: Exception) -> str:
    reason = short(error, 100)
    return (
        f"hf:{repository}: not fetched from the Hugging Face Hub ({type(error).__name__}: {reason}); where the Hub can be reached, run "
        f"'hf download {repository} --local-dir FOLDER', and use --model FOLDER here"
    )
