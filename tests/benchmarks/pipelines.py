"""Every pipeline that diffusers' own tests build from tiny random parts: does it load, does a plan sample in it as the runtime does?

    python -m tests.benchmarks.pipelines --diffusers CHECKOUT [--only WanPipeline ...] [--seconds 300]

CHECKOUT is a clone of huggingface/diffusers, of about the version that is installed; its tests need parameterized and requests_mock, and
some pipelines ftfy. Each is built from the dummy components of its test, and loaded as an object. Text that those tests read with
tokenizers of the Hub is read by letters; with HF_HUB_OFFLINE=1 nothing else is waited for. Pipelines that begin with a picture, a video
or sound are left out. Differences are relative, of a plan of three evaluations against the runtime on the loaded model, with the scheduler
attached and not; the last column says why one is missing, or why its guidance is the pipeline's own, or it is run for every evaluation.
"""

import argparse
import importlib
import inspect
import signal
import sys
import tempfile
import types
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import diffusers
import torch
import transformers
from rich.console import Console
from rich.table import Table

import tests
from solversearch.errors import UserError
from solversearch.models import pipelines
from solversearch.models.options import Options
from solversearch.models.pipelines.asking import FRAMES
from solversearch.models.pipelines.guest import Guest
from solversearch.models.pipelines.library import quiet
from tests import tiny, zoo

TARGET, LIMIT = 60, 1e-5
GIVEN = ("image", "video", "mask", "audio", "control", "conditioning", "pose", "reference", "frames", "action", "layers")
"""Parts of the names of arguments that are no noise and no text."""


class Late(BaseException):
    """A pipeline took too long."""


# Their tests -------------------------------------------------------------------------------------------------------------


def testers(checkout: Path) -> Iterator[tuple[Any, Exception | None]]:
    """A class with dummy components for every pipeline class, or a module that cannot be imported, and why."""
    tests.__path__.append(str(checkout / "tests"))
    seen = set()
    for file in sorted((checkout / "tests" / "pipelines").glob("*/test_*.py")):
        name = f"tests.{'.'.join(file.relative_to(checkout / 'tests').with_suffix('').parts)}"
        try:
            module = importlib.import_module(name)
        except Exception as error:  # whatever another version of diffusers lacks
            yield types.SimpleNamespace(__name__=file.stem), error
            continue
        for kind in vars(module).values():
            own = getattr(kind, "pipeline_class", None) if inspect.isclass(kind) and kind.__module__ == name else None
            if inspect.isclass(own) and hasattr(kind, "get_dummy_components") and (own, kind.__name__.endswith("22")) not in seen:
                seen.add((own, kind.__name__.endswith("22")))
                yield kind, None


def inputs_of(tester: Any) -> dict[str, Any]:
    made = tester()
    arguments = {"device": "cpu", "seed": 0}
    known = inspect.signature(made.get_dummy_inputs).parameters
    return dict(made.get_dummy_inputs(**{name: value for name, value in arguments.items() if name in known}))


def begins_with_noise(inputs: dict[str, Any]) -> bool:
    def is_setting(value: Any) -> bool:
        return all(map(is_setting, value)) if isinstance(value, list | tuple) else value is None or isinstance(value, int | float | str)

    return not any(part in name for name, value in inputs.items() if not is_setting(value) for part in GIVEN)


def letters(*_: Any, **__: Any) -> Any:
    return zoo.letters()


def t5_config(*_: Any, **__: Any) -> Any:
    return transformers.T5Config(vocab_size=1103, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4, relative_attention_num_buckets=8)


def bert(*_: Any, **__: Any) -> Any:
    sizes = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
    return transformers.BertModel(transformers.BertConfig(vocab_size=1124, **sizes)).eval()


def llama(*_: Any, **__: Any) -> Any:
    sizes = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=1000, output_hidden_states=True, **sizes)).eval()


def qwen(*_: Any, **__: Any) -> Any:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    text = {"vocab_size": 1000, "rope_scaling": {"type": "default", "rope_type": "default", "mrope_section": [1, 1, 2]}} | sizes
    seen = {"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2}
    return transformers.Qwen2VLForConditionalGeneration(transformers.Qwen2VLConfig(text_config=text, vision_config=seen)).eval()


def clip(*_: Any, **__: Any) -> Any:
    made = tiny._clip_tokenizer()
    made.model_max_length = 77
    return made


def built(tester: Any) -> Any:
    """The pipeline of a tester's components, whose tokenizers and settings of the Hub are others."""
    names = ("T5", "Qwen2", "Gemma", "Llama", "XLMRoberta", "Bert", "ByT5", "Roberta")
    others: dict[str, Any] = {f"{name}Tokenizer{fast}": letters for name in names for fast in ("", "Fast")}
    others |= dict.fromkeys(("AutoTokenizer", "AutoProcessor", "Qwen2VLProcessor", "Qwen3VLProcessor", "PreTrainedTokenizerFast"), letters)
    others |= {
        "CLIPTokenizer": clip, "CLIPTokenizerFast": clip, "AutoConfig": t5_config, "BertModel": bert, "LlamaForCausalLM": llama,
        "Qwen2VLForConditionalGeneration": qwen,
        "T5EncoderModel": lambda *_, **__: transformers.T5EncoderModel(t5_config()).eval(),
        "UMT5EncoderModel": lambda *_, **__: transformers.UMT5EncoderModel(transformers.UMT5Config(**t5_config().to_dict())).eval(),
    }  # fmt: skip
    with ExitStack() as stack:
        stack.enter_context(quiet())
        for name, function in others.items():
            if hasattr(transformers, name):
                stack.enter_context(patch.object(getattr(transformers, name), "from_pretrained", function))
        parts = tester().get_dummy_components()
        pipe = tester.pipeline_class(**parts)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
        if isinstance(part, transformers.PreTrainedModel) and (embedding := getattr(part, "get_input_embeddings", lambda: None)()):
            embedding.register_forward_pre_hook(lambda own, given: (given[0] % own.num_embeddings,))  # some know eight tokens
    if pipe.scheduler.config.get("use_flow_sigmas") and pipe.scheduler.config.prediction_type == "epsilon":
        pipe.scheduler.register_to_config(prediction_type="flow_prediction")  # which the models have, and SkyReels' test leaves out
    pipe.set_progress_bar_config(disable=True)
    return pipe


def with_layers(kind: Any, inputs: dict[str, Any]) -> Any:
    """While the default of which layers of a text encoder are read is that of the test, whose encoders have few."""
    call = inspect.unwrap(kind.__call__)
    told = {key: value for key, value in inputs.items() if key == "text_encoder_out_layers"}
    known = [each for each in inspect.signature(call).parameters.values() if each.default is not each.empty]
    return patch.object(call, "__defaults__", tuple(told.get(each.name, each.default) for each in known))


# One pipeline ------------------------------------------------------------------------------------------------------------


def tried(pipe: Any, inputs: dict[str, Any], place: Path) -> list[str]:
    """How it is called, the two differences, and why it is not replayed; raises whatever keeps it from loading."""
    prompts = place / "prompts.txt"
    prompts.write_text("\n".join(tiny.CAPTIONS))
    height, width = inputs.get("height"), inputs.get("width")
    if "height" in inputs and height is None:  # the network's own, which is not the pipeline's default
        height = width = next(iter(Guest(pipe, "cpu").networks.values())).config.sample_size * pipe.vae_scale_factor
    size = {"resolution": f"{width}x{height}"} if width and height else {}
    if "max_sequence_length" in inputs:
        for name, part in pipe.components.items():
            if name.startswith("tokenizer") and part is not None:
                part.model_max_length = inputs["max_sequence_length"]
    count = next((inputs[name] for name in FRAMES if name in inputs), None)
    frames = {"frames": count if count % 4 == 1 else count // 8 * 8 + 1} if isinstance(count, int) else {}
    known = inspect.signature(type(pipe).__call__).parameters
    options: dict[str, Any] = size | frames | ({"prompts": prompts} if "prompt" in known else {})
    if isinstance(inputs.get("negative_prompt"), str):  # which some pipelines cannot do without
        options["negative_prompt"] = inputs["negative_prompt"]
    told = Options(device="cpu", **options)
    model = pipelines.of_object(pipe, told)
    arguments = zoo.asked(pipe, told, tiny.CAPTIONS[0] if "prompt" in known else 0)
    found = ["pass" if "joint batches" in model.lacks else "replay"]
    for attached in (True, False):
        try:
            found.append(f"{zoo.differs(pipe, model, zoo.plan_for(model), arguments, attached):.1e}")
        except (ValueError, UserError) as error:
            found.append(f"refused: {' '.join(str(error).split())[:90]}")
        except (Exception, AssertionError) as error:
            found.append(f"{type(error).__name__}: {' '.join(str(error).split())[:60]}")
    return [*found, model.lacks.partition("), for ")[2]]


def late(*_: Any) -> None:
    raise Late


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--diffusers", type=Path, required=True, help="a clone of huggingface/diffusers")
    parser.add_argument("--only", nargs="*", help="names of pipeline classes")
    parser.add_argument("--seconds", type=int, default=300, help="for one pipeline")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, late)
    table = Table("pipeline", "called by", "attached", "not attached", "why", title=f"diffusers {diffusers.__version__}")
    counts, loaded, right, unknown = [0, 0], set(), set(), set(given.only or ())
    for tester, error in testers(given.diffusers):
        name = tester.__name__ if error else tester.pipeline_class.__name__
        unknown.discard(name)
        if given.only and not error and name not in given.only:
            continue
        signal.alarm(given.seconds)
        row = ["", "", ""]
        try:
            if error:
                raise error
            inputs = inputs_of(tester)
            if not begins_with_noise(inputs):
                continue
            pipe = built(tester)
        except (Exception, Late) as why:
            counts[0] += 1
            row += [f"not built: {type(why).__name__}: {' '.join(str(why).split())[:80]}"]
        else:
            counts[1] += 1
            try:
                with tempfile.TemporaryDirectory() as place, with_layers(type(pipe), inputs):
                    row = tried(pipe, inputs, Path(place))
                loaded.add(name)
                right |= {name} if row[1][0].isdigit() and float(row[1]) <= LIMIT else set()
            except (Exception, Late) as why:
                row += [f"{'' if isinstance(why, UserError) else type(why).__name__ + ': '}{' '.join(str(why).split())[:150]}"]
        finally:
            signal.alarm(0)
        print(name, *row, sep=" | ", flush=True, file=sys.stderr)
        table.add_row(name, *row)
    Console().print(table)
    print(f"{counts[1]} built, {counts[0]} not; {len(loaded)} classes load, of {len(right)} a plan is within {LIMIT:g} of the runtime")
    if unknown:
        raise SystemExit(f"no test of {', '.join(sorted(unknown))}")
    if not given.only and len(loaded) < TARGET:
        raise SystemExit(f"fewer than {TARGET} classes load")


if __name__ == "__main__":
    main()
