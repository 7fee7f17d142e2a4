"""The plan: a table of coefficients with everything needed to trust it, as one JSON file. See PLAN_FORMAT.md.

Reader and writer share one validation: what `Plan` accepts in memory is exactly what a file may hold. Light on purpose:
no torch, NumPy or YAML.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import ceil, fsum
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    FailFast,
    Field,
    JsonValue,
    Tag,
    ValidationError,
    model_serializer,
    model_validator,
    with_config,
)

from solversearch import plan_text
from solversearch.components import Components
from solversearch.errors import UserError, one_line
from solversearch.notebook import Shown
from solversearch.run_files import plan_file
from solversearch.runtime import Array, Node, Row, Start, Tableau, clamp, dynamic_threshold, initial, run

MAX_NFE = 1000
MAX_BYTES = 64 * 2**20
MAX_DEPTH = 32
LIMITS = {"lists and objects": ("[{", 250_000), "keys": (":", 500_000), "values": (",", 3_000_000)}
"""Of any JSON file: what three bytes ask for can take a thousand in memory, so it is counted before it is parsed."""

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
Many = Annotated[tuple[T, ...], FailFast()]
"""A list of which the first wrong member is told: a finding for each would fill the memory."""


class _Hashable(FailFast):
    """As a member of a union has to be."""

    __hash__ = object.__hash__


_Numbers = Annotated[tuple[float, ...], _Hashable()]
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True, strict=True, revalidate_instances="always")
for _kind in (Node, Row, Start, Components):  # the runtime knows nothing of pydantic; its records are checked as strictly as the rest
    with_config(_STRICT)(_kind)
_Each = Annotated[
    Annotated[float, Tag("<number>")] | Annotated[_Numbers, Tag("<components>")],
    Discriminator(lambda value: "<components>" if isinstance(value, list | tuple) else "<number>"),
]
Row.__dataclass_fields__["x"].type = _Each
for _name in ("d", "delta", "z"):
    Row.__dataclass_fields__[_name].type = Many[_Each]


def _as_whole(value: Any) -> Any:
    """5.0 and 5 are one number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count = Annotated[int, Field(ge=0, le=plan_text.WHOLE), BeforeValidator(_as_whole)]
Components.__dataclass_fields__["bands"].type = Many[float]
Components.__dataclass_fields__["channels"].type = Many[Many[float]]
Components.__dataclass_fields__["patch"].type = Count


class _Part(BaseModel):
    model_config = _STRICT


class Threshold(_Part):
    """How data predictions are clipped: `clamp` to the limit, or `dynamic` by each sample's own percentile."""

    kind: Literal["clamp", "dynamic"]
    limit: float = Field(default=1.0, gt=0)
    percentile: float = Field(default=0.995, gt=0, le=1)

    def function(self) -> Callable[[Array], Array]:
        return clamp(self.limit) if self.kind == "clamp" else dynamic_threshold(self.percentile, self.limit)


class Interval(_Part):
    """A score over samples: its mean (or, for a Frechet distance, its value) with a 95 % bootstrap interval."""

    mean: float
    low: float
    high: float
    median: float | None = None


class Score(_Part):
    """What one sampler reached on held-out noise. nfe counts evaluations a sample sees; network_calls counts guidance twice."""

    name: str
    kind: Literal["plan", "baseline"]
    solver: str
    grid: str
    nfe: Count
    network_calls: Count
    samples: Count
    endpoint_mse: Interval
    frechet_teacher: Interval | None = None
    frechet_data: Interval | None = None


class Provenance(_Part):
    """Where a plan comes from: enough to make it again."""

    model: str
    model_digest: str
    seed: Count | None = None
    versions: dict[str, str] = {}
    command: str = ""


class PlanVariant(_Part):
    """A cheaper network than the model's own. cost is what a call takes of the time of the model's own; skips names the blocks that it
    leaves out of the model's own network, and is empty where it is another one, which its digest tells. Where it reuses features, those
    blocks are not left out: their features are those of the last evaluation that ran them."""

    cost: float = Field(gt=0)
    digest: str = ""
    skips: Many[str] = ()
    reuses_features: bool = False

    @model_serializer(mode="wrap")
    def _said(self, said: Callable[[Self], dict[str, Any]]) -> dict[str, Any]:
        """Without the newest key where it says nothing."""
        content = said(self)
        return content if self.reuses_features else {name: content[name] for name in content if name != "reuses_features"}

    @model_validator(mode="after")
    def _reuses(self) -> Self:
        if self.reuses_features and not self.skips:
            raise ValueError("reuses_features: of which blocks, skips has to say")
        return self


class Plan(_Part, Shown):
    """A sampling procedure for one model. Raises ValueError (pydantic's) when any rule of PLAN_FORMAT.md is broken.

    Immutable: to change a plan, make another. Without a digest it gets the one that belongs to its content.
    """

    format: Literal["solversearch-plan"] = "solversearch-plan"
    version: Annotated[Literal[1, 2, 3, 4, 5], BeforeValidator(_as_whole)] = 1
    prediction_type: Literal["epsilon", "v_prediction", "sample", "flow", "edm"]
    guidance: float
    nfe: Annotated[int, Field(ge=1, le=MAX_NFE), BeforeValidator(_as_whole)]
    network_calls: Annotated[int, Field(ge=1), BeforeValidator(_as_whole)]
    nodes: Annotated[Many[Node], Field(min_length=1, max_length=MAX_NFE)]
    rows: Annotated[Many[Row], Field(min_length=2, max_length=MAX_NFE + 1)]
    components: Components | None = None
    variants: dict[str, PlanVariant] = {}
    start: Start | None = None
    threshold: Threshold | None = None
    decisions: dict[str, JsonValue] = {}
    scores: Many[Score] = ()
    provenance: Provenance
    digest: str = Field(default="", pattern="^sha256:[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.version != version_of(self.nodes, self.components, self.start):
            raise ValueError(
                "version: 2 is that of plans with components, 3 that of plans with nodes that reuse differences or call variants, "
                "4 that of plans with a start, 5 that of plans with nodes that have a beta, 1 that of all others"
            )
        table = self.tableau  # checks the rows
        if any(node.reuses for node in self.nodes) and not table.split:
            raise ValueError("nodes: some reuse guidance differences, but no row has a coefficient for one")
        if {node.variant for node in self.nodes} - {""} != set(self.variants):
            raise ValueError("variants: they have to be those that nodes call")
        self._check_features(table)
        for name in ("nfe", "network_calls"):
            if getattr(self, name) != getattr(table, name):
                raise ValueError(f"{name} is {getattr(self, name)}, but the table spends {getattr(table, name)}")
        if max(len(row.z) for row in self.rows) > MAX_NFE:
            raise ValueError(f"rows: at most {MAX_NFE} fresh noises")
        if self.prediction_type == "epsilon" and any(node.alpha == 0 for node in self.nodes):
            raise ValueError("nodes: an epsilon-predicting network has no data prediction at alpha = 0")
        if _depth(self.decisions) > MAX_DEPTH:
            raise ValueError(f"decisions: nested deeper than {MAX_DEPTH}")
        try:
            digest = self.content_digest()
        except ValueError as error:  # the one free-form field holds NaN, inf, half a surrogate pair, or an endless integer
            raise ValueError(f"decisions: {error}") from None
        if not self.digest:
            object.__setattr__(self, "digest", digest)
        elif not self._intact:
            raise ValueError("the digest does not match the content: the plan was changed after it was written")
        return self

    def _check_features(self, table: Tableau) -> None:
        computed = 0
        for i, (node, calls) in enumerate(zip(self.nodes, table.calls, strict=True)):
            if node.variant and self.variants[node.variant].reuses_features and computed < calls:
                raise ValueError(
                    f"nodes: {i} reuses features, but none before it computed them, in as many calls of the model's own network"
                )
            computed = computed if node.variant else max(computed, calls)

    @property
    def _intact(self) -> bool:
        return plan_text.belongs(self.digest, self._content())

    @property
    def tableau(self) -> Tableau:
        return Tableau(self.nodes, self.rows, components=self.components)

    @property
    def price(self) -> float:
        """Network time a sample, in calls of the model's own network."""
        calls = zip(self.tableau.calls, self.nodes, strict=True)
        return fsum(count * (self.variants[node.variant].cost if node.variant else 1) for count, node in calls)

    @property
    def rival_nfe(self) -> int:
        """Evaluations of the same price at the plan's guidance, if not dearer: what it has to beat."""
        return ceil(self.price / (2 if self.guidance != 1 else 1) - 1e-9)

    def content_digest(self) -> str:
        """Of everything but the digest: the numbers, however they are spelled. Plans of earlier writers may carry another."""
        return plan_text.digest(self._content())

    def table_digest(self) -> str:
        """Of the nodes and the rows alone: equal for plans that sample alike, wherever they come from."""
        content = self._content()
        return plan_text.digest({name: content[name] for name in ("nodes", "rows", "components", "variants", "start") if content.get(name)})

    def content(self) -> dict[str, Any]:
        """What the file holds."""
        return self._content() | {"digest": self.digest}

    def _content(self) -> dict[str, Any]:
        """Every key but the digest, and those that are newer than the version."""
        left_out: dict[str, Any] = {"digest": True, **{name: True for name, first in _SINCE.items() if self.version < first}}
        left_out["nodes"] = {"__all__": {name for name, first in _NEW.items() if self.version < first}}
        return self.model_dump(mode="json", exclude=left_out)

    def sample(
        self,
        denoise: Callable[[Array, Node], Any],
        noise: Array,
        picture: Array | None = None,
        *,
        anchor: Array | None = None,
        **hooks: Any,
    ) -> Array:
        """Runs the plan from unit noise, where it has a start from that and a picture; where its nodes have a beta with an anchor, which is
        the picture, too. hooks are `runtime.run`'s ``draw``, ``callback`` and ``grid``."""
        threshold = self.threshold.function() if self.threshold else None
        x = initial(self.start, noise, picture, anchor)
        return run(self.nodes, self.rows, denoise, x, threshold=threshold, components=self.components, anchor=anchor, **hooks)

    def with_scores(self, scores: tuple[Score, ...]) -> "Plan":
        """The same plan with other scores and the digest that belongs to them."""
        fields = {name: getattr(self, name) for name in type(self).model_fields if name not in ("digest", "scores")}
        return type(self)(**fields, scores=scores)

    def text(self) -> str:
        """The file's text: one key a line, and one node, row or score a line."""

        def line(value: Any) -> str:
            return json.dumps(value, ensure_ascii=False, allow_nan=False)

        entries = []
        for key, value in self.content().items():
            listed = "[\n  " + ",\n  ".join(map(line, value)) + "\n ]" if isinstance(value, list) and value else line(value)
            entries.append(f"{line(key)}: {listed}")
        return "{\n " + ",\n ".join(entries) + "\n}\n"

    def write(self, path: str | Path) -> None:
        """Writes the plan; a reader never sees half a file. Raises `UserError` where the place cannot be written."""
        if not self._intact:
            raise ValueError("the plan was changed after it was made; plans are immutable, make another")
        write_text(path, self.text())

    @classmethod
    def read(cls, path: str | Path) -> "Plan":
        """A plan file, or that of a run folder, checked. Raises `UserError` with one line: which file, where in it, what is wrong."""
        path = plan_file(path)
        content = read_file(path, "plan")
        return cls.parse(content, one_line(str(path)))

    @classmethod
    def parse(cls, text: str | bytes, where: str = "plan") -> "Plan":
        """Like `read`, from JSON text."""
        plan = parse_json(cls, text, where)
        try:
            content = plan_text.loaded(plan_text.decoded(text))
        except ValueError as error:
            raise UserError(f"{where}: {one_line(str(error))}") from None
        for name in _MARKS:
            if name not in plan.model_fields_set:
                raise UserError(f"{where}: {name}: missing; a plan file says its format and version and carries the digest of its content")
        for name, first in _SINCE.items():
            if plan.version < first and name in plan.model_fields_set:
                raise UserError(f"{where}: {name}: unknown key; version {plan.version} has none")
        for name, first in _NEW.items():
            if plan.version < first and any(name in node for node in content["nodes"]):
                raise UserError(f"{where}: nodes: {name}: unknown key; version {plan.version} has none")
        return plan


def version_of(nodes: Sequence[Node], components: Components | None, start: Start | None = None) -> Literal[1, 2, 3, 4, 5]:
    """The first version that can say what a plan has."""
    if any(node.beta is not None for node in nodes):
        return 5
    if start:
        return 4
    if any(node.reuses or node.variant for node in nodes):
        return 3
    return 2 if components else 1


_NEW = {"guidance_difference": 3, "variant": 3, "beta": 5}
"""Keys of nodes that are newer than the format, by their first version."""
_SINCE = {"components": 2, "variants": 3, "start": 4}
"""Keys of plans, by their first version."""
_MARKS = ("format", "version", "digest")
"""Optional in memory, required in a file."""
_HINTS = {"format": "is this a plan?", "version": "a newer solversearch wrote this; update to read it"}


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)


def first_error(error: ValidationError) -> str:
    """One line for a validation error: the first finding, where it is, and how many more there are."""
    findings = error.errors(include_url=False, include_context=False, include_input=False)
    place = one_line(".".join(part for part in map(str, findings[0]["loc"]) if not part.startswith("<")))
    message = one_line(findings[0]["msg"].removeprefix("Value error, "), 400)
    if findings[0]["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        message = "unknown key"
    if place in _HINTS:
        message += "; " + _HINTS[place]
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    return f"{place + ': ' if place else ''}{message}{more}"


def schema() -> dict[str, Any]:
    """The JSON Schema of a plan file. It states what a schema can; PLAN_FORMAT.md has the rest (shapes, counts, the digest)."""
    body = Plan.model_json_schema(mode="validation")
    body["required"] = [name for name in Plan.model_fields if name in (*body["required"], *_MARKS)]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **body}


def read_file(path: str | Path, what: str) -> bytes:
    """The content of a file. Raises `UserError` where it cannot be read, or is larger than any plan is."""
    where = one_line(str(path))
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = b"" if size > MAX_BYTES else file.read(MAX_BYTES + 1)  # a device has no size, and no end
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: cannot read the {what}: {getattr(error, 'strerror', None) or error}") from None
    if max(size, len(content)) > MAX_BYTES:
        raise UserError(f"{where}: too large for a {what}: more than {MAX_BYTES} bytes")
    return content


def parse_json(kind: type[M], text: str | bytes, where: str) -> M:
    """JSON text as what it should be, bounded by `LIMITS`. Raises `UserError`: where, and what is wrong."""
    content = text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
    for what, (marks, most) in LIMITS.items():
        if sum(map(content.count, marks.encode())) > most:
            raise UserError(f"{where}: more than {most:,} {what}")
    try:
        return kind.model_validate_json(plan_text.decoded(content))
    except ValidationError as error:
        raise UserError(f"{where}: {first_error(error)}") from None
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def read_json(kind: type[M], path: str | Path, what: str) -> M:
    """A file of JSON as what it should be. Raises `UserError` with one line: which file, where in it, what is wrong."""
    return parse_json(kind, read_file(path, what), one_line(str(path)))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside a file's place, to be written; it is renamed at the end. Raises OSError.

    A failed write leaves what was there before, and nothing else.
    """
    temporary = path.parent / f".solversearch-{os.urandom(8).hex()}"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes a file under a temporary name beside its place, then renames it. Raises `UserError` where that fails."""
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise OSError(0, "it exists and is not a file")
        with replacing(path) as temporary, open(temporary, "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{one_line(str(path))}: cannot write: {reason}; choose another place with --out") from None
