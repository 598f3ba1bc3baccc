"""trl's trainer, put together: the base as it is or in 4 bits, an adapter anew or one to go on from, SFT or DPO.

And the adapter saved at the end, as an engine wants it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, get_type_hints

from lora_operator.api.lora import CONVERTED
from lora_operator.api.served_lora import lora_arguments
from lora_operator.api.training import Method
from lora_operator.protocol.training import Reason
from lora_trainer import evaluating, extra_args, log, machine, recipe
from lora_trainer.base import BaseModel
from lora_trainer.by_hand import TrainSpec
from lora_trainer.result import Refusal
from lora_trainer.spec import dtype_of

ADAPTER: Final = "default"
"""peft's name of the adapter that is trained; DPO that goes on from an adapter holds another beside it."""
INITIAL: Final = "initial-adapter"


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """What a trainer is made of: trl's config, the tokenizer, the rows, and the folder of an adapter to go on from."""

    args: Any
    tokenizer: Any
    rows: Any
    held_out: Any = None
    start: Path | None = None
    callbacks: Sequence[Any] = ()


def config_class(spec: TrainSpec) -> Any:
    """Return the class of trl's config for the spec's method."""
    import trl  # which imports what is asked for, and the other method's classes cost a tenth of a second

    return trl.DPOConfig if spec.method is Method.DPO else trl.SFTConfig


def try_extra_args(spec: TrainSpec) -> None:
    """Check them, and let trl read them, before anything is fetched."""
    if spec.training.extra_args:
        check_extra_args(spec)
        config(spec, output_dir="state", accelerator=machine.here().accelerator)


def check_extra_args(spec: TrainSpec) -> None:
    """Check `training.extraArgs` against the SFTConfig or DPOConfig that is installed, and the trackers that are."""
    extra = {key: recipe.scalar(value) for key, value in spec.training.extra_args.items()}
    if not extra:
        return
    made = config_class(spec)
    extra_args.check(extra, known=get_type_hints(made), config=made.__name__)
    if "report_to" in extra:
        from transformers.integrations import get_available_reporting_integrations
        from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

        installed = get_available_reporting_integrations()
        extra_args.check_trackers(extra["report_to"], installed=installed, known=INTEGRATION_TO_CALLBACK)


def config(spec: TrainSpec, *, output_dir: str, accelerator: bool) -> Any:
    """Return trl's config for a training on this machine, or refuse what it does not take."""
    arguments = recipe.arguments(
        spec,
        output_dir=output_dir,
        dtype=dtype_of(spec, accelerator=accelerator),
        accelerator=accelerator,
        bar=False,
    )
    try:
        return config_class(spec)(**(arguments | evaluating.arguments(spec)))
    except (ValueError, TypeError, ImportError) as error:
        field = "training.extraArgs" if spec.training.extra_args else "training"
        raise Refusal(Reason.CONFIG_INVALID, f"{field}: {error}") from error


@contextmanager
def blaming(spec: TrainSpec) -> Iterator[None]:
    """Refuse the spec where the libraries raise, while they put a trainer together, what a value of it comes to."""
    try:
        yield
    except (ValueError, TypeError, ImportError) as error:  # what they say of parts that don't fit together
        raise Refusal(Reason.CONFIG_INVALID, f"training, lora and dataset: {error}") from error
    except (LookupError, AttributeError, RuntimeError) as error:
        # What a value that no check of ours knows comes to, deep in trl or torch. Of what torch has a type of its own
        # for, memory and devices above all, no value is the cause.
        own = isinstance(error, RuntimeError) and type(error) not in {RuntimeError, NotImplementedError}
        if own or not spec.training.extra_args:
            raise
        given = ", ".join(spec.training.extra_args)
        message = f"training.extraArgs ({given}), as far as can be told: {type(error).__name__}: {error}"
        raise Refusal(Reason.CONFIG_INVALID, message) from error


def trainer(spec: TrainSpec, *, base: BaseModel, parts: Parts, accelerator: bool) -> Any:
    """Return trl's trainer. Raises in the libraries' words where the parts don't fit: `blaming` says whose fault."""
    import trl

    _, said = recipe.optimiser(spec, accelerator=accelerator)
    if said:
        log.say(said)
    quantization = _quantization(spec, accelerator=accelerator)
    made: dict[str, Any] = {
        "args": parts.args,
        "train_dataset": parts.rows,
        "eval_dataset": parts.held_out,
        "processing_class": parts.tokenizer,
        "callbacks": list(parts.callbacks),
    }
    if parts.start is None:
        made |= {"model": str(base.folder), "quantization_config": quantization, "peft_config": _new(spec)}
    else:
        made["model"] = _going_on(spec, base, parts, quantization)
    found = (trl.DPOTrainer if spec.method is Method.DPO else trl.SFTTrainer)(**made)
    # Else a checkpoint, or the best one, makes an adapter of 16 bits one of 32, and the training another.
    found.model.load_adapter = partial(found.model.load_adapter, autocast_adapter_dtype=False)
    if quantization is not None:
        _keep_trainable(found.model)
    return found


def keep_initial(spec: TrainSpec, model: Any, folder: Path) -> Path | None:
    """Save how the adapter starts, where what is published is the difference to it; return the folder, or None."""
    if spec.lora.init_lora_weights not in CONVERTED or spec.lora.init_from is not None:
        return None
    initial = folder / INITIAL
    model.save_pretrained(initial, safe_serialization=True, save_embedding_layers=False)
    return initial


def save(model: Any, folder: Path, *, base: BaseModel, initial: Path | None = None) -> Path:
    """Save the adapter alone: no embeddings, no tokenizer, no pickled arguments; as a plain LoRA where it is none."""
    config = model.peft_config[ADAPTER]
    config.base_model_name_or_path, config.revision = base.name, base.revision
    for name in ("target_modules", "exclude_modules"):
        value = getattr(config, name)
        if isinstance(value, set | list):
            setattr(config, name, sorted(value))  # peft's set has another order in every process
    model.save_pretrained(
        folder,
        safe_serialization=True,
        save_embedding_layers=False,
        selected_adapters=[ADAPTER],
        path_initial_model_for_weight_conversion=str(initial) if initial is not None else None,
    )
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors writes 0600, and an engine may run as another user
    return folder


def _new(spec: TrainSpec) -> Any:
    from peft import LoraConfig

    return LoraConfig(**lora_arguments(spec.lora))


def _quantization(spec: TrainSpec, *, accelerator: bool) -> Any:
    found = recipe.quantization_arguments(spec, accelerator=accelerator)
    if found is None:
        return None
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(**found)


def _keep_trainable(model: Any) -> None:
    """Keep bitsandbytes from packing the base for inference when a CPU evaluates: no gradient goes through it then."""
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _going_on(spec: TrainSpec, base: BaseModel, parts: Parts, quantization: Any) -> Any:
    """Return the base with the adapter to go on from. DPO takes a copy of it to compare with, as trl does."""
    from peft import PeftConfig, PeftModel
    from trl.trainer.utils import create_model_from_path

    arguments = dict(parts.args.model_init_kwargs or {})
    parts.args.model_init_kwargs = None  # trl warns of arguments for a model that is there already
    if quantization is not None:
        arguments["quantization_config"] = quantization
    if parts.args.distributed_state.distributed_type in {"MULTI_GPU", "DEEPSPEED"}:
        arguments["device_map"] = None
    config = PeftConfig.from_pretrained(str(parts.start))
    config.lora_dropout, config.inference_mode = float(spec.lora.lora_dropout), False
    model = create_model_from_path(str(base.folder), **arguments)
    return PeftModel.from_pretrained(model, str(parts.start), is_trainable=True, config=config)
