"""Where a pipeline lies: a folder as `save_pretrained` writes it, or a repository of the Hub, whose needed files are fetched.

Only safetensors are read, and only classes that an adapter names are made: nothing is unpickled, and no code of a repository runs.
"""

import json
import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from solversearch.errors import UserError
from solversearch.models.pipelines import weights
from solversearch.models.pipelines.library import library, quiet

_LIBRARIES = ("diffusers", "transformers")
_LEFT_OUT = ("feature_extractor", "image_encoder")
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

    def longest(self, tokenizer: str) -> int | None:
        """Tokens of a prompt that a tokenizer keeps, where it says so."""
        file = self.place(tokenizer) / "tokenizer_config.json"
        return read_json(file).get("model_max_length") if file.is_file() else None

    def small_files(self, part: str) -> list[Path]:
        return sorted(each for each in self.place(part).iterdir() if each.suffix in _SMALL)

    def load(self, part: str, allowed: Sequence[str], dtype: torch.dtype) -> Any:
        """A frozen module in evaluation mode, of one of the allowed classes, that got every weight from its files."""
        kind = self.class_of(part, allowed)
        variant, _ = self.weights(part)
        arguments = {"torch_dtype": dtype, "variant": variant, "use_safetensors": True, "local_files_only": True}
        try:
            with quiet():
                module, info = kind.from_pretrained(self.place(part), output_loading_info=True, **arguments)
        except (OSError, ValueError, RuntimeError, TypeError, KeyError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{self.place(part)}: the weights do not load ({reason}); download them again") from error
        if lacking := sorted(info["missing_keys"]):
            raise UserError(f"{self.place(part)}: the weights lack {len(lacking)} tensors, such as {lacking[0]}; download them again")
        return module.eval().requires_grad_(False)

    def tokenizer(self, part: str, allowed: Sequence[str]) -> Any:
        try:
            return self.class_of(part, allowed).from_pretrained(self.place(part), local_files_only=True)
        except (OSError, ValueError, TypeError, KeyError, ImportError) as error:  # some need sentencepiece
            raise UserError(f"{self.place(part)}: the tokenizer does not load ({' '.join(str(error).split())[:200]})") from error

    def class_of(self, part: str, allowed: Sequence[str]) -> Any:
        """The class that model_index.json names for a part, if the adapter knows it."""
        where, name = self.index.get(part) or ("", "")
        if where not in _LIBRARIES or name not in allowed:
            raise UserError(f"{self.path}: {part} is {name or 'absent'!r} in model_index.json; supported: {', '.join(allowed)}")
        return getattr(library(where), name)


@dataclass(frozen=True)
class InMemory(Folder):
    """A pipeline object of diffusers, whose parts are taken as they are: a change of them, such as a LoRA, is searched for, too."""

    pipe: Any = None

    @classmethod
    def of(cls, pipe: Any) -> "InMemory":
        index = json.loads(pipe.to_json_string())
        return cls(Path(index["_class_name"]), index, pipe=pipe)

    def config(self, part: str) -> dict[str, Any]:
        own = getattr(self.pipe, part)
        return dict(json.loads((own if hasattr(own, "to_json_string") else own.config).to_json_string()))

    def dtype(self, part: str) -> torch.dtype:
        return next(each.dtype for each in getattr(self.pipe, part).parameters())

    def digest(self, part: str) -> str:
        tensors = getattr(self.pipe, part).state_dict()
        return weights.digest_of(tensors, tensors.__getitem__)

    def longest(self, tokenizer: str) -> int | None:
        return int(getattr(self.pipe, tokenizer).model_max_length)

    def load(self, part: str, allowed: Sequence[str], dtype: torch.dtype) -> Any:
        """The part itself, frozen and in evaluation mode; a copy where it is of another dtype."""
        self.class_of(part, allowed)
        own = getattr(self.pipe, part)
        module = own if self.dtype(part) == dtype else deepcopy(own).to(dtype)
        return module.eval().requires_grad_(False)

    def tokenizer(self, part: str, allowed: Sequence[str]) -> Any:
        self.class_of(part, allowed)
        return getattr(self.pipe, part)


def read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file}: the file is missing; a pipeline folder is what save_pretrained of diffusers writes") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: not readable as JSON ({' '.join(str(error).split())[:100]}); download it again") from None
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
        parts = [part for part, kind in index.items() if isinstance(kind, list) and kind[0] in _LIBRARIES and part not in _LEFT_OUT]
        return local(hub.snapshot_download(repository, allow_patterns=_needed(names, parts, half)), half)
    except UserError:
        raise
    except Exception as error:  # the client raises what its HTTP library raises, and that has changed before
        refused = _refusal(repository, error)
        cached = None if refused else _cached(repository)
        if cached is None:
            raise UserError(refused or _unreachable(repository, error)) from error
        return local(cached, half)


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


def _cached(repository: str) -> str | None:
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
    reason = " ".join(str(error).split())[:100]
    return (
        f"hf:{repository}: not fetched from the Hugging Face Hub ({type(error).__name__}: {reason}); where the Hub can be reached, run "
        f"'hf download {repository} --local-dir FOLDER', and use --model FOLDER here"
    )
