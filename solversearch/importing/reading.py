"""Lists of numbers as people have them: typed, printed by a program, copied from ComfyUI, or in a file of any of these."""

import codecs
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from solversearch.errors import UserError, one_line
from solversearch.plan import read_file

_BREAKS = re.compile(r"[\s,;\[\](){}\"'`]+")
_KEYWORDS = re.compile(r"\b(dtype|device|requires_grad|grad_fn)\s*=\s*[^,)\s]+")  # of a printed tensor
_CALLS = re.compile(r"[A-Za-z_][\w.]*\s*\(")  # tensor( array( np.float64(
_NAME = re.compile(r"\A[\s{]*['\"]?[A-Za-z_]\w*['\"]?\s*[:=]")  # sigmas =
_SAME = 1e-6  # two texts of one list, in other digits


class Listed(NamedTuple):
    """A list, and what the file around it says of its scheduler: `export --to diffusers-sigmas` writes the class and its settings."""

    numbers: list[float]
    scheduler: str = ""
    config: Mapping[str, Any] = {}


def read_numbers(source: str, what: str) -> Listed:
    """The list in a text, or in the file of that name (@NAME says that it is one). what is "sigmas" or "timesteps".

    Brackets, semicolons, line breaks, `tensor([...])`, JSON, a node of ComfyUI and what `export` writes are all read.
    Raises `UserError` in one line: which word of it is no number.
    """
    where = f"--{what}"
    value = _json(_text(source, what))
    if isinstance(value, Mapping) and "scheduler" in value:
        return Listed(_numbers(value, what, where), str(value["scheduler"]), value.get("config") or {})
    return Listed(_numbers(value, what, where))


def _text(source: str, what: str) -> str:
    named = source.startswith("@")
    name = source.removeprefix("@")
    try:
        is_file = Path(name).is_file()
    except (OSError, ValueError):  # too long for a name
        is_file = False
    return _decoded(read_file(name, what)) if named or is_file else source


def _decoded(content: bytes) -> str:
    """UTF-8, or UTF-16 where the byte order mark says so, as PowerShell writes."""
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if wide else "utf-8-sig", errors="replace")


def _json(text: str) -> Any:
    try:
        return json.loads(text.strip("\ufeff \r\n\t"))
    except (ValueError, RecursionError):
        return text


def _numbers(value: Any, what: str, where: str) -> list[float]:
    """Of what JSON has: numbers, a list of them, their text, or an object that holds one of these by a known name."""
    if isinstance(value, str):
        return _plain(value, where)
    if isinstance(value, Mapping):
        for key in (what, "inputs", "widgets_values"):  # the last two of ComfyUI's nodes
            if key in value:
                return _numbers(value[key], what, where)
        raise UserError(f"{where}: there are no {what} in it, only {', '.join(map(one_line, map(str, value))) or 'nothing'}")
    if isinstance(value, list) and len(value) == 1:
        return _numbers(value[0], what, where)
    values = value if isinstance(value, list) else [value]
    for i, each in enumerate(values):
        if isinstance(each, bool) or not isinstance(each, int | float | str):
            raise UserError(f"{where}: place {i + 1} of the list holds {one_line(json.dumps(each), 60)}, which is no number")
    return [_float(str(each), i, len(values), where) for i, each in enumerate(values)]


def _plain(text: str, where: str) -> list[float]:
    """Text, without its lines of comment. stable-diffusion.cpp's --sigmas may stand beside the same list for ComfyUI."""
    lines = [line for line in text.strip("\ufeff").splitlines() if not line.lstrip().startswith("#")]
    parts = [part for part in re.split(r"--\w+[ =]", "\n".join(lines)) if _BREAKS.sub("", part)]
    lists = [_words(part, where) for part in parts]
    if not lists:
        raise UserError(f"{where}: there are no numbers in it; write them as 14.6,6.5,2.7,0")
    for other in lists[1:]:
        if len(other) != len(lists[0]) or not np.allclose(other, lists[0], rtol=_SAME, atol=0):
            raise UserError(f"{where}: it holds {len(lists)} different lists; leave one")
    return lists[0]


def _words(text: str, where: str) -> list[float]:
    if ";" in text and "," in text and "." not in text:
        raise UserError(f"{where}: commas and semicolons, and no point: write decimals with a point, as 14.6; 6.5; 0")
    if "..." in text:
        raise UserError(f"{where}: the list was printed shortened (...); print all of its numbers")
    text = _CALLS.sub("(", _KEYWORDS.sub(" ", _NAME.sub(" ", text)))
    words = [word for word in _BREAKS.split(text) if word]
    return [_float(word, i, len(words), where) for i, word in enumerate(words)]


def _float(word: str, i: int, count: int, where: str) -> float:
    try:
        return float(word)
    except ValueError:
        place = f"in place {i + 1} of {count}, " if count > 1 else ""
        raise UserError(
            f"{where}: {place}{one_line(word, 60)!r} is no number, nor the name of a file; write them as 14.6,6.5,2.7,0"
        ) from None
