"""Reading YAML that others wrote: bounded, without aliases and tags, and with the line of every key for the findings."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from solversearch.errors import UserError, one_line

LONGEST = 64 * 1024
"""Bytes of a file."""
DEEPEST = 16
"""Levels of nesting."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with libyaml


def load(path: Path, what: str = "search space") -> tuple[Any, yaml.Node]:
    """The content of a file, and its nodes, which know their lines. Raises `UserError` with one line; what is what the file should be."""
    try:
        with path.open("rb") as file:
            raw = file.read(LONGEST + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot read the {what}: {error.strerror}") from None
    if len(raw) > LONGEST:
        raise UserError(f"{path}: more than {LONGEST // 1024} KiB: is this a {what}?")
    try:
        text = raw.decode()
        _check(path, text)
        nodes = yaml.compose(text, Loader=_LOADER)
        if nodes is None:
            raise UserError(f"{path}: an empty file: is this a {what}?")
        _single(path, nodes)
        return yaml.constructor.SafeConstructor().construct_document(nodes), nodes
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        reason = " ".join(str(error).split()).replace('"<unicode string>", ', "")
        raise UserError(f"{path}: not YAML: {one_line(reason, 1000)}") from None


def _check(path: Path, text: str) -> None:
    """Refuses what could be more than it looks like, as soon as it meets it.

    Aliases let a short file stand for an endless one, deep nesting exhausts the stack, and a tag can ask for any object.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        where = f"{path}:{_line(event)}"
        if isinstance(event, yaml.AliasEvent):
            raise UserError(f"{where}: aliases (*{one_line(str(event.anchor), 40)}) are not read; write the value out")
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
            raise UserError(f"{where}: tags ({one_line(event.tag, 40)}) are not read; write the value alone")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise UserError(f"{where}: nested deeper than {DEEPEST}")


def _single(path: Path, node: yaml.Node) -> None:
    """A key may stand once; YAML itself takes the last."""
    if isinstance(node, yaml.SequenceNode):
        for each in node.value:
            _single(path, each)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if str(key.value) in seen:
                raise UserError(f"{path}:{_line(key)}: {key.value}: the key stands twice")
            seen.add(str(key.value))
            _single(path, value)


def _line(part: yaml.Event | yaml.Node) -> int:
    return part.start_mark.line + 1 if part.start_mark else 1


def place(error: ValidationError, nodes: yaml.Node) -> str:
    """':line: key: message' of the first finding."""
    finding = error.errors(include_url=False, include_input=False)[0]
    where = (*finding["loc"], *finding.get("ctx", {}).get("where", ()))
    line, keys = _line(nodes), []
    for part in where:
        found = _inside(nodes, part)
        if found is not None:
            key, nodes = found
            line = _line(key)
            keys.append(f"[{part + 1}]" if key is nodes else f".{part}")
    message = f"{where[-1]} is missing" if finding["type"] == "missing" else " ".join(finding["msg"].removeprefix("Value error, ").split())
    count = len(error.errors()) - 1
    more = f" (and {count} more)" if count else ""
    name = "".join(keys).removeprefix(".")
    return f":{line}: {name + ': ' if name else ''}{message}{more}"


def _inside(node: yaml.Node, part: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    """Key and value of a part of a node, as far as the file spells it out: a value may stand for {choose: value}."""
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == str(part)), None)
    return None
