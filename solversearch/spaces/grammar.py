"""The words of a search-space file: choices, timesteps, conditions settings of a search. `search_spaces/README.md` explains them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any, Literal, NoReturn, Self, get_args

from pydantic import BaseModel, ConfigDict, field_validator, model_validator
from pydantic_core import PydanticCustomError

from solversearch.errors import nearest, one_line
from solversearch.solvers.integrals import Prediction
from solversearch.solvers.mixed import FAMILIES, Derivative, Start

Value = bool | int | float | str
MOST = 1000
"""Values of one decision."""


def wrong(message: str, *where: str | int) -> NoReturn:
    """Raises a finding of validation; where leads from the section that is validated to the key at fault."""
    raise PydanticCustomError("space", "{message}", {"message": one_line(message, 1000), "where": where})


class Section(BaseModel):
    """A part of a file; an unknown key is told with the nearest known one."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _keys(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            wrong(f"expected a mapping of {', '.join(cls.model_fields)}, got {_shown(content)}")
        for key in content:
            if key not in cls.model_fields:
                wrong(nearest(str(key), list(cls.model_fields), "key"), key)
        return content


def _shown(value: Any) -> str:
    return "nothing" if value is None else repr(value)[:60]


class Choice(Section):
    """One decision: one of some values, or a number from a range; taken once a plan or at every step; under conditions or always."""

    choose: tuple[Value, ...] = ()
    low: float | None = None
    high: float | None = None
    log: bool = False
    per: Literal["plan", "step"] = "plan"
    when: dict[str, tuple[Value, ...]] = {}

    @model_validator(mode="before")
    @classmethod
    def _short(cls, content: Any) -> Any:
        """A value or a list of values stands for {choose: ...}."""
        if isinstance(content, Choice | dict):
            return content
        return {"choose": content}

    @field_validator("choose", mode="before")
    @classmethod
    def _values(cls, values: Any) -> Any:
        return _listed(values)

    @field_validator("when", mode="before")
    @classmethod
    def _conditions(cls, when: Any) -> Any:
        if not isinstance(when, dict):
            wrong(f"expected decisions and the values under which this one counts, like {{solver: [unip]}}, got {_shown(when)}")
        return {str(key): _listed(values, str(key)) for key, values in when.items()}

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if self.choose and (self.low is not None or self.high is not None or self.log):
            wrong("either a list of values (choose) or a range (low, high, log), not both")
        if not self.choose:
            if self.low is None or self.high is None:
                wrong("needs the values to choose from (choose), or both ends of a range (low, high)")
            if self.low > self.high:
                wrong(f"an empty range: low {self.low:g} is above high {self.high:g}", "low")
            if self.log and self.low <= 0:
                wrong(f"a logarithmic range needs low > 0, got {self.low:g}", "low")
        return self

    @property
    def fixed(self) -> bool:
        """Whether there is nothing to choose."""
        return len(self.choose) == 1 or (self.low is not None and self.low == self.high)

    @property
    def first(self) -> Value:
        """The only value of a fixed choice, or the first."""
        return self.choose[0] if self.choose else self.low  # type: ignore[return-value]  # a range has both ends

    def allows(self, value: Value) -> bool:
        if self.choose:
            return any(same(value, each) for each in self.choose)
        assert self.low is not None and self.high is not None
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high


def _listed(values: Any, *where: str) -> tuple[Value, ...]:
    """Values as a file has them, one or a list, all different."""
    values = tuple(values) if isinstance(values, list | tuple) else (values,)
    if not values:
        wrong("an empty list: nothing to choose from", *where)
    if len(values) > MOST:
        wrong(f"more than {MOST} values; a range (low, high) has any", *where)
    for i, value in enumerate(values):
        if not isinstance(value, Value) or (isinstance(value, float) and not isfinite(value)):
            wrong(f"expected a name, a finite number or true/false, got {_shown(value)}", *where, i)
        if any(same(value, other) for other in values[:i]):
            wrong(f"{value} stands twice in the list", *where, i)
    return values


def same(a: Value, b: Value) -> bool:
    """Equality that tells true from 1."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)


@dataclass(frozen=True)
class Kind:
    """What a decision may be: names, true/false, whole numbers or numbers within bounds; and what it is where nothing is chosen.

    after is the number of earlier evaluations that it needs to have an effect; last says whether it has one at the last step, to sigma = 0.
    """

    default: Value
    names: Sequence[str] = ()
    bounds: tuple[float, float] = (-inf, inf)
    whole: bool = False
    plan_only: bool = False
    after: int = 0
    last: bool = True

    def parsed(self, value: Value) -> Value:
        """The value in the decision's own type; raises a finding where it is none."""
        if isinstance(self.default, bool):
            if isinstance(value, bool):
                return value
            wrong(f"expected true or false, got {value!r}")
        if isinstance(value, str) and value in self.names:
            return value
        number = _number(value)
        if number is None or self.bounds == (-inf, inf):
            wrong(nearest(str(value), list(self.names), "choice") if self.names else f"expected a number, got {value!r}")
        if not self.bounds[0] <= number <= self.bounds[1]:
            wrong(f"expected a number from {self.bounds[0]:g} to {self.bounds[1]:g}, got {value}")
        if self.whole and number != int(number):
            wrong(f"expected a whole number, got {value}")
        return int(number) if self.whole else number


def _number(value: Value) -> float | None:
    """YAML reads 1e-6, without a point, as a word; here it is the number that it looks like."""
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


KINDS: dict[str, Kind] = {
    "solver": Kind("unip", names=tuple(FAMILIES)),
    "order": Kind(2, bounds=(1, max(highest for highest, _ in FAMILIES.values())), whole=True, after=1),
    "lower_final_order": Kind(False, plan_only=True),
    "prediction": Kind("data", names=get_args(Prediction), bounds=(0, 1)),
    "derivative": Kind("exact", names=get_args(Derivative), after=2),
    "derivative_scale": Kind(0.0, bounds=(-1, 1), after=1, last=False),
    "corrector": Kind(False, last=False),
    "start": Kind("multistep", names=get_args(Start), after=1, last=False),
    "epsilon_scale": Kind(1.0, bounds=(0.5, 2)),
    "compensation": Kind(1.0, bounds=(-2, 4), after=2),
    "churn": Kind(0.0, bounds=(0, 1), last=False),
    "momentum": Kind(1.0, bounds=(0.1, 1), after=1, last=False),
    "dualfast": Kind(0.0, bounds=(-2, 2), after=1),
    "history": Kind(0.0, bounds=(-1, 5), after=1),
    "history_rate": Kind(0.75, bounds=(0.05, 1), after=2),
    "input_shift": Kind(0.0, bounds=(-2, 2)),
    "guidance": Kind(1.0, bounds=(0, 10)),
    "analytic_first_step": Kind(False, plan_only=True),
    "ridge": Kind(1e-4, bounds=(1e-12, 1e6), plan_only=True),
}
"""The decisions of a space, in the order in which they are described: fields of `Decision`, and what `Candidate` has besides."""


def typed(choice: Choice, kind: Kind) -> Choice:
    """The choice with its values in the decision's type; raises a finding for a value that the decision cannot have."""
    if choice.choose:
        values = []
        for i, value in enumerate(choice.choose):
            try:
                values.append(kind.parsed(value))
            except PydanticCustomError as error:
                wrong(error.message(), "choose", i)
        choice = choice.model_copy(update={"choose": tuple(values)})
    elif kind.whole or kind.bounds == (-inf, inf):
        wrong("needs a list of values, not a range", "low")
    else:
        for key in ("low", "high"):
            try:
                kind.parsed(getattr(choice, key))
            except PydanticCustomError as error:
                wrong(error.message(), key)
    if kind.plan_only and choice.per == "step":
        wrong("is chosen once a plan, not per step", "per")
    return choice
