"""A search space: the decisions of a search, read from YAML and checked for contradictions."""

from functools import cached_property
from os.path import isfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import ValidationInfo, create_model, field_validator, model_validator

from solversearch.errors import UserError, nearest
from solversearch.solvers.mixed import FAMILIES
from solversearch.spaces.grammar import KINDS, Choice, Section, same, typed, wrong
from solversearch.spaces.sections import Cheaper, ComponentChoice, GuidanceInterval, SearchDefaults, Timesteps
from solversearch.spaces.source import load, place

DEFAULT: dict[str, Any] = {
    "name": "default",
    "description": "Free times, and solvers whose coefficients are then fitted and polished.",
    "solver": ["unip", "dpmpp", "deis_rhoab", "ipndm"],
    "order": {"choose": [1, 2, 3], "per": "step"},
    "prediction": ["data", "noise"],
    "corrector": [True, False],
    "ridge": {"low": 1e-6, "high": 1e-2, "log": True},
    "components": {"bands": [1, 3, 5], "channels": [False, True]},
    "search": {"trials": 0},
}
"""`search_spaces/default.yaml`."""


def _fixed(key: str) -> Choice:
    return Choice(choose=(KINDS[key].default,))


class _Times(Section):
    name: str = ""
    description: str = ""
    timesteps: Timesteps = Timesteps()


if TYPE_CHECKING:

    class _Decisions(_Times):
        def __getattr__(self, key: str) -> Choice: ...

else:
    _Decisions = create_model("_Decisions", __base__=_Times, **{key: (Choice, _fixed(key)) for key in KINDS})


class SearchSpace(_Decisions):
    """The decisions of a search (`KINDS`), see `search_spaces/README.md`. What is left out has one value; `SearchSpace()` is the default
    space."""

    guidance_interval: GuidanceInterval = GuidanceInterval()
    components: ComponentChoice = ComponentChoice()
    cheaper: tuple[Cheaper, ...] = ("blocks", "networks", "reuse")
    search: SearchDefaults = SearchDefaults()

    @model_validator(mode="before")
    @classmethod
    def _default(cls, content: Any) -> Any:
        return DEFAULT if content == {} else content

    @field_validator(*KINDS)
    @classmethod
    def _typed(cls, choice: Choice, info: ValidationInfo) -> Choice:
        assert info.field_name is not None
        return typed(choice, KINDS[info.field_name])

    @model_validator(mode="after")
    def _orders(self) -> Self:
        highest = max(FAMILIES[str(name)][0] for name in self.solver.choose)
        for i, order in enumerate(self.order.choose):
            if int(order) > highest:
                names = ", ".join(map(str, self.solver.choose))
                wrong(f"order {order} is impossible: {names} {'has' if len(self.solver.choose) == 1 else 'have'} orders 1 to {highest}",
                      "order", "choose", i)  # fmt: skip
        return self

    @model_validator(mode="after")
    def _conditions(self) -> Self:
        for key in KINDS:
            choice: Choice = getattr(self, key)
            for other, values in choice.when.items():
                where = (key, "when", other)
                if other not in KINDS:
                    wrong(nearest(other, list(KINDS), "decision"), *where)
                parent: Choice = getattr(self, other)
                if not parent.choose:
                    wrong(f"{other} is a range; a condition needs a decision with a list of values", *where)
                if parent.per == "step" and choice.per == "plan":
                    wrong(f"{key} is chosen once a plan, so it cannot depend on {other}, which is chosen per step", *where)
                possible = (*parent.choose, *((KINDS[other].default,) if parent.when else ()))
                for value in values:
                    if not any(same(value, each) for each in possible):
                        wrong(f"{other} is never {value}: it is one of {', '.join(map(str, possible))}", *where)
        for key in KINDS:
            self._follow(key, (key,))
        return self

    def _follow(self, key: str, path: tuple[str, ...]) -> None:
        for other in getattr(self, key).when:
            if other in path:
                wrong(f"conditions go in a circle: {' -> '.join((*path, other))}", path[0], "when")
            self._follow(other, (*path, other))

    @cached_property
    def resolution(self) -> tuple[str, ...]:
        """The decisions, each after those that it depends on."""
        done: list[str] = []

        def visit(key: str) -> None:
            for other in getattr(self, key).when:
                visit(other)
            if key not in done:
                done.append(key)

        for key in KINDS:
            visit(key)
        return tuple(done)

    @classmethod
    def read(cls, path: Path) -> "SearchSpace":
        """Reads a space from YAML, named by its file where it has no name; raises `UserError` with one line: file, line and key."""
        from pydantic import ValidationError

        content, nodes = load(path)
        try:
            space = cls.model_validate(content)
        except ValidationError as error:
            raise UserError(f"{path}{place(error, nodes)}") from None
        return space if space.name else space.model_copy(update={"name": path.stem})

    @classmethod
    def named(cls, name_or_path: str | Path) -> "SearchSpace":
        """A preset by name, or a file by path."""
        if Path(name_or_path).suffix in (".yaml", ".yml") or isfile(name_or_path):  # which bears any name
            return cls.read(Path(name_or_path))
        known = presets()
        if str(name_or_path) not in known:
            raise UserError(nearest(str(name_or_path), list(known), "search space") + "; or the path of a YAML file")
        return cls.read(known[str(name_or_path)])

    @property
    def integer(self) -> bool:
        """Whether times are whole, where the schedule has whole times."""
        return self.timesteps.integer

    @property
    def fits(self) -> bool:
        """Whether candidates are fitted in closed form."""
        return self.search.stages.fit

    def fitting(self, fits: bool) -> "SearchSpace":
        """The space whose candidates are fitted in closed form, or are not, whatever its file says."""
        stages = self.search.stages.model_copy(update={"fit": fits})
        return self.model_copy(update={"search": self.search.model_copy(update={"stages": stages})})

    def decided(self) -> tuple[str, ...]:
        """What the space leaves to be decided: the times, where they are free, and every decision with a choice."""
        return (*(["timesteps"] if self.timesteps.free else []), *(key for key in KINDS if not getattr(self, key).fixed))

    def without(self, name: str) -> "SearchSpace":
        """The space with a decision at its default; published grids in the place of free times."""
        grids = Timesteps.model_validate(["linspace", "quadratic", "logsnr", "karras"])
        return self.model_copy(update={name: grids if name == "timesteps" else _fixed(name)})

    def size(self, nfe: int) -> int:
        """Number of combinations of the values that are listed, conditions left aside; times and ranges are continuous."""
        total = sum(len(family.names) for family in self.timesteps.grids) or 1
        for key in KINDS:
            choice: Choice = getattr(self, key)
            if key != "ridge" or self.fits:
                total *= max(1, len(choice.choose)) ** (nfe if choice.per == "step" else 1)
        return total


def presets() -> dict[str, Path]:
    """The spaces that come with the package, by name: installed they lie in it, in a checkout beside it."""
    here = Path(__file__)
    for folder in (here.parents[1] / "search_spaces", here.parents[2] / "search_spaces"):
        if (folder / "default.yaml").is_file():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {}
