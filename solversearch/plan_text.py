"""The text of a plan, which every reader takes or refuses alike, and the digest of its numbers. Standard library only.

PLAN_FORMAT.md has the rules.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from itertools import chain, combinations
from typing import Any

COUNTS = frozenset(("version", "nfe", "network_calls", "samples", "seed", "patch"))
"""Keys of whole numbers, wherever they stand outside of `decisions`."""
WHOLE = 2**53
"""Up to here every JSON reader keeps whole numbers exactly."""
_LOST, _LONG = 40, 2**18
"""Places of an old plan, at most, that another program may have spelled in another way, and characters of the longest such plan."""


def decoded(content: bytes | str) -> str:
    """UTF-8, without the byte order mark that may stand before it. Raises ValueError."""
    if isinstance(content, str):
        return content.removeprefix("\ufeff")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError("Invalid JSON: the text is UTF-16, as some programs of Windows write it; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"Invalid JSON: byte {error.start} is no UTF-8") from None


def loaded(text: str) -> Any:
    """One JSON value; parsers disagree on NaN, on endless numbers and on two keys of one name, so there may be none. Raises ValueError."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_finite, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise ValueError(f"Invalid JSON: {error}") from None
    except RecursionError:
        raise ValueError("Invalid JSON: nested too deep") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)}: the key stands twice in one object")
    return members


def _finite(text: str) -> float:
    number = float(text)
    if number - number != 0:
        raise ValueError(f"{text[:40]} is no finite number")
    return number


def numbers(value: Any, key: str = "", free: bool = False) -> Any:
    """The content of a plan with each number in one spelling: those of `COUNTS` whole, others float64.

    In `decisions`, which are free, a number is whole where it can be; there is no negative zero. Raises ValueError for what is no float64.
    """
    if isinstance(value, dict):
        return {name: numbers(inner, name, free or name == "decisions") for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [numbers(inner, key, free) for inner in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    try:
        number = float(value) + 0.0  # -0.0 + 0.0 is 0.0
    except OverflowError:
        raise ValueError("a number is too large for float64") from None
    whole = (free or key in COUNTS) and number.is_integer() and abs(number) <= WHOLE
    return int(number) if whole else number


def digest(content: dict[str, Any]) -> str:
    """The digest of a plan's content, in which every key but `digest` is present. Raises ValueError where it cannot be written as JSON."""
    return _sha256(_written(numbers(content)))


def belongs(given: str, content: dict[str, Any]) -> bool:
    """Whether a digest is that of the content, by the rule of today or by that of earlier writers, see `_earlier`."""
    return given == digest(content) or any(given == _sha256(text) for text in _earlier(content))


def _written(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def _sha256(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _earlier(content: dict[str, Any]) -> Iterator[str]:
    """What earlier writers have hashed: numbers of decisions, and negative zeros, as they were spelled.

    Programs that write 1 for 1.0, or 1.0 for 1, and 0 for -0.0 have lost that. So after the text as it is come those in which one or two
    of the zeros were negative, or the whole numbers under one or two keys of the decisions of the other type.
    """
    places: dict[str, str] = {}

    def marked(value: Any, key: str = "", free: bool = False) -> Any:
        if isinstance(value, dict):
            return {name: marked(inner, name, free or name == "decisions") for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [marked(inner, key, free) for inner in value]
        if isinstance(value, bool) or not isinstance(value, int | float) or (free and value % 1):
            return value
        if not free and key in COUNTS:
            return numbers(value, key)
        if not free and value != 0:
            return float(value)
        place = places.setdefault(key if free else f" {len(places)}", str(len(places)))
        other = (int if isinstance(value, float) else float)(value)
        spelled = (f"{value}", f"{other}") if free else (f"{float(value)}", "-0.0")
        return "\0".join(("", place, *spelled, ""))

    written = _written(marked(content))
    parts = re.split(r'"\\u0000(\d+)\\u0000([^"]*?)\\u0000([^"]*?)\\u0000"', written)
    texts, spots, spellings = parts[::4], parts[1::4], list(zip(parts[2::4], parts[3::4], strict=True))
    lost = list(places.values())[:_LOST] if len(written) < _LONG else []
    for changed in chain.from_iterable(combinations(lost, count) for count in (0, 1, 2)):
        chosen = (spelled[spot in changed] for spot, spelled in zip(spots, spellings, strict=True))
        yield "".join(chain.from_iterable(zip(texts, (*chosen, ""), strict=True)))
