"""A pipeline's own `__call__`, run with a probe for its scheduler and stand-ins for its networks.

Nothing of a family is known here: packing, guidance, signs, units of time, several networks by time are the pipeline's. The probe tells
it the times, is given what it would step with, and answers with any state; a stand-in sees what its network is called with.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from math import isclose
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor, nn

from solversearch.errors import UserError, short
from solversearch.models.pipelines.library import quiet

Arguments = dict[str, Any]
"""Of a network's forward, by name."""
Respond = Callable[[str, Arguments], Any]
"""What the network of that name returns for its arguments."""
NextState = Callable[[int, Tensor, Tensor], Tensor]
"""The next state, for the number of a step, the output that the pipeline steps with, and the state; or raises `Done`."""
NETWORKS = ("transformer", "transformer_2", "unet", "unconditional_transformer")


class Done(BaseException):
    """Leaves the pipeline before it decodes; no `except Exception` of a pipeline keeps it."""


class Misfit(Exception):
    """Why a pipeline cannot be run so."""


class Time(NamedTuple):
    """Of a step: what timesteps and sigmas of a scheduler say. t may be a tensor, which is learned."""

    t: Any
    level: float


class Call(NamedTuple):
    """Arguments of `__call__` but for the number of steps, and what `encode_prompt` returns one after the other, where that is known."""

    arguments: dict[str, Any]
    encoded: list[Any] | None = None


class _Stepped(tuple[Tensor, ...]):
    prev_sample = pred_original_sample = property(lambda self: self[0])


class Returned(tuple[Any, ...]):
    """What a network returns, as pipelines read it: by [0], or by .sample."""

    sample = property(lambda self: self[0])


class Probe:
    """Mixed into the class of the stock scheduler, whose settings it keeps: pipelines ask isinstance, config and signatures."""

    order = 1
    init_noise_sigma = property(lambda self: 1.0, lambda self, value: None)
    step_index = property(lambda self: self._at, lambda self, value: None)
    begin_index = property(lambda self: 0)
    _times: Sequence[Time]
    _answer: NextState
    _at: int

    def set_timesteps(
        self, num_inference_steps: Any = None, device: Any = None, timesteps: Any = None, sigmas: Any = None, mu: Any = None, **others: Any
    ) -> None:
        if self._at:
            raise Misfit("it starts its scheduler again in the middle, as those do that sample a video in chunks")
        self.mu = None if mu is None else float(mu)
        self.timesteps = torch.stack([torch.as_tensor(time.t, dtype=torch.float32, device=device) for time in self._times])
        self.sigmas = torch.tensor([*(time.level for time in self._times), 0.0], dtype=torch.float32)
        self.num_inference_steps = len(self._times)

    def set_begin_index(self, begin_index: int = 0) -> None:
        pass

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        return sample  # states are in the frame of the plan; preconditioning is the model's

    def step(self, model_output: Tensor, timestep: Any, sample: Any, *more: Any, **others: Any) -> _Stepped:
        if not isinstance(sample, Tensor) or sample.ndim == 0:  # CogVideoXDPM's has two times before it
            sample = next(each for each in more if isinstance(each, Tensor) and each.ndim > 1)
            timestep = more[0] if not isinstance(timestep, Tensor | int | float) else timestep
        if self._at == len(self._times):
            raise Misfit("it takes more steps than it is asked for")
        known = _number(self._times[self._at].t)
        told = known if timestep is None else _number(timestep)
        if not isclose(told, known, rel_tol=0.01, abs_tol=0.01):
            raise Misfit(f"it samples at other times than its scheduler tells it ({told:g})")
        if model_output.shape != sample.shape and model_output.shape[1] == 2 * sample.shape[1]:
            model_output = model_output[:, : sample.shape[1]]  # the rest is a variance
        if model_output.shape != sample.shape:
            raise Misfit(f"it steps with an output of the shape {tuple(model_output.shape)} for a state of {tuple(sample.shape)}")
        x = self._answer(self._at, model_output, sample).to(sample.dtype, copy=True)
        self._at += 1
        return _Stepped((x, x))

    @property
    def _step_index(self) -> NoReturn:
        raise Misfit("it sets its scheduler back and takes each step twice")

    def __deepcopy__(self, memo: Any) -> NoReturn:
        raise Misfit("it samples two states with copies of one scheduler, as those do that make pictures and sound")


class Guest:
    """A pipeline object that visits are paid to. It is taken as a copy, so that the caller's keeps its scheduler and networks.

    networks are its parts that are called while it samples; modules without weights do where a visit answers for them.
    Raises `UserError` in the pipeline's words where it refuses what it is called with, and `Misfit` for a pipeline of another kind.
    """

    def __init__(self, pipe: Any, device: str) -> None:
        kind = type(pipe)
        known = {"__module__": kind.__module__, "_execution_device": property(lambda self: torch.device(device))}
        self.pipe: Any = object.__new__(type(kind.__name__, (kind,), known))  # diffusers looks through all modules for it
        self.pipe.__dict__.update(pipe.__dict__)
        self.name, self.stock = kind.__name__, pipe.scheduler
        self._respond: Respond = _unasked
        self.networks: dict[str, Any] = {name: part for name in NETWORKS if isinstance(part := getattr(pipe, name, None), nn.Module)}
        self.parameters = inspect.signature(kind.__call__).parameters
        self.mu: float | None = None
        for name, part in self.networks.items():
            setattr(self.pipe, name, shell(part, device, self._forward(name)))
        self.pipe.set_progress_bar_config(disable=True)

    def _forward(self, name: str) -> Callable[..., Any]:
        signature = inspect.signature(type(self.networks[name]).forward)
        rest = next((each.name for each in signature.parameters.values() if each.kind is each.VAR_KEYWORD), None)

        def forward(module: nn.Module, *given: Any, **named: Any) -> Any:
            arguments = dict(signature.bind(module, *given, **named).arguments)
            del arguments[next(iter(signature.parameters))]
            return Returned((self._respond(name, arguments | arguments.pop(rest, {}) if rest else arguments),))

        return forward

    def visit(self, call: Call, times: Sequence[Time], answer: NextState, respond: Respond) -> Any:
        """What one `__call__` returns, with gradients where they are asked for; None where `answer` or `respond` raised `Done`.

        A single time is told twice: some pipelines divide by half the number of steps.
        """
        kind, times = type(self.stock), [*times, *times] if len(times) == 1 else times
        probe: Any = object.__new__(type(kind.__name__, (Probe, kind), {"__module__": kind.__module__}))
        probe.__dict__.update(self.stock.__dict__ | {"_times": times, "_answer": answer, "_at": 0, "mu": None})
        self.pipe.scheduler, self._respond = probe, respond
        arguments = call.arguments | {"num_inference_steps": len(times)}
        if "generator" in self.parameters:
            arguments["generator"] = torch.Generator().manual_seed(0)
        results = iter(call.encoded or ())
        known = nullcontext() if call.encoded is None else self._encoding(lambda *given, **named: kept(next(results)))
        try:
            with quiet(), known:
                result = inspect.unwrap(type(self.pipe).__call__)(
                    self.pipe, **{key: list(value) if isinstance(value, list) else value for key, value in arguments.items()}
                )
        except Done:
            return None
        except (UserError, Misfit):
            raise
        except ValueError as error:
            raise UserError(f"{self.name} refuses what it is asked for: {short(error, 160)}") from error
        except NameError as error:  # of a package that diffusers imports only where it is there
            raise UserError(f"{self.name} asks for a package that is not there: pip install {error.name}") from error
        except (RuntimeError, TypeError, AttributeError, LookupError, AssertionError, ArithmeticError) as error:
            raise Misfit(f"its call fails with a probe for its scheduler ({type(error).__name__}: {short(error, 160)})") from error
        finally:
            self.mu = probe.mu if probe.mu is not None else self.mu
        if probe._at < len(times):
            raise Misfit("it does not step with its scheduler, or ends before")
        return result

    @contextmanager
    def _encoding(self, encode_prompt: Callable[..., Any]) -> Iterator[None]:
        """While that is the pipeline's encode_prompt."""
        self.pipe.__dict__["encode_prompt"] = encode_prompt
        try:
            yield
        finally:
            del self.pipe.__dict__["encode_prompt"]

    @torch.no_grad()
    def encode(self, call: Call) -> list[Any]:
        """What `encode_prompt` returns, one after the other, until a network is called."""
        own, results = self.pipe.encode_prompt, []

        def encode_prompt(*given: Any, **named: Any) -> Any:
            results.append(kept(own(*given, **named)))
            return results[-1]

        def leave(*given: Any) -> NoReturn:
            raise Done

        with self._encoding(encode_prompt):
            self.visit(call, [Time(500.0, 1.0)], leave, leave)
        return results


def mapped(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """The same containers, of what the function makes of the tensors in them."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: mapped(each, function) for key, each in value.items()}
    return type(value)(mapped(each, function) for each in value) if type(value) in (list, tuple) else value


def kept(value: Any) -> Any:
    """A copy that nobody writes into."""
    return mapped(value, lambda tensor: tensor.detach().clone())


def shell(module: nn.Module, device: str, forward: Callable[..., Any] | None = None, dtype: torch.dtype | None = None) -> Any:
    """A module of the same settings and weights that is said to be on the device, and of the dtype, and whose forward is another."""
    kind = type(module)
    own: dict[str, Any] = {"__module__": kind.__module__, "device": property(lambda self: torch.device(device))}
    own |= ({"forward": forward} if forward else {}) | ({"dtype": property(lambda self: dtype)} if dtype else {})
    twin: Any = object.__new__(type(kind.__name__, (kind,), own))
    twin.__dict__.update(module.__dict__ | {"_compiled_call_impl": None})
    for name in ("forward", "_hf_hook", "_old_forward"):  # of accelerate
        twin.__dict__.pop(name, None)
    for name in ("_forward_hooks", "_forward_pre_hooks"):
        twin.__dict__[name] = type(module.__dict__[name])()
    return twin


def _unasked(name: str, arguments: Arguments) -> NoReturn:
    raise Misfit(f"its {name} is called outside of sampling")


def _number(value: Any) -> float:
    return float(torch.as_tensor(value).detach().flatten()[0])
