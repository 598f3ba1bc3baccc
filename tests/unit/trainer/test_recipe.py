"""A spec becomes the arguments of trl and peft; what no engine serves, or the spec says elsewhere, stays out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from lora_operator.protocol.training import Reason
from lora_trainer import recipe, servable, spec
from lora_trainer.result import Refusal
from lora_trainer.spec import TrainSpec

KNOWN = {"max_grad_norm", "adam_epsilon", "assistant_only_loss", "gradient_checkpointing_kwargs", "neftune_noise_alpha"}


def spec_with(*, engine: Mapping[str, object] | None = None, **parts: Mapping[str, object]) -> TrainSpec:
    return TrainSpec.model_validate(
        {
            "baseModel": {"name": "acme/tiny"},
            "dataset": {"source": {"configMapRef": {"name": "data", "key": "x.csv"}}, "format": "Text"},
            "output": {"hub": {"repo": "acme/adapter"}},
            **parts,
            **({"engine": engine} if engine else {}),
        }
    )


def arguments(wanted: TrainSpec, *, accelerator: bool = False) -> dict[str, Any]:
    dtype = spec.dtype_of(wanted, accelerator=accelerator)
    return recipe.sft_arguments(wanted, output_dir="/out/state", dtype=dtype, accelerator=accelerator, bar=False)


def test_the_training_reaches_trl_under_its_own_names() -> None:
    found = arguments(
        spec_with(
            training={"maxSteps": 20, "learningRate": "1e-2", "lrSchedulerType": "ConstantWithWarmup", "maxLength": 64}
        )
    )
    assert found["max_steps"] == 20
    assert found["learning_rate"] == 0.01
    assert found["lr_scheduler_type"] == "constant_with_warmup"
    assert found["max_length"] == 64


def test_without_steps_the_data_set_is_gone_through_three_times() -> None:
    found = arguments(spec_with())
    assert (found["max_steps"], found["num_train_epochs"]) == (-1, 3)


@pytest.mark.parametrize(("accelerator", "dtype", "bf16"), [(True, "bfloat16", True), (False, "float32", False)])
def test_dtype_and_device_are_explicit(accelerator: bool, dtype: str, bf16: bool) -> None:
    found = arguments(spec_with(), accelerator=accelerator)
    assert found["model_init_kwargs"] == {"dtype": dtype}
    assert (found["bf16"], found["use_cpu"]) == (bf16, not accelerator)


def test_extra_args_are_read_as_yaml_scalars() -> None:
    extra = {
        "max_grad_norm": "0.5",
        "adam_epsilon": "1e-8",
        "assistant_only_loss": "true",
        "gradient_checkpointing_kwargs": "{use_reentrant: false}",
        "neftune_noise_alpha": 5,
        "optim": "adamw_torch",
        "optim_args": "a: b: c",
    }
    found = arguments(spec_with(training={"extraArgs": extra}))
    assert {key: found[key] for key in extra} == {
        "max_grad_norm": 0.5,
        "adam_epsilon": 1e-8,
        "assistant_only_loss": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "neftune_noise_alpha": 5,
        "optim": "adamw_torch",
        "optim_args": "a: b: c",
    }


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("max_grad_nrom", "trl's SFTConfig has no such argument; did you mean max_grad_norm?"),
        ("zzz", "trl's SFTConfig has no such argument"),
        ("max_seq_length", "is gone from trl and transformers; use training.maxLength"),
        ("warmup_ratio", "is gone from trl and transformers; use training.warmupSteps"),
        ("learning_rate", "say it in training.learningRate"),
        ("hub_token", "say it in output.hub.tokenSecretRef"),
        ("enable_jit_checkpoint", "may not be set, an interrupted training would look done"),
        ("chat_template_path", "may not be set, it may train lm_head"),
    ],
)
def test_an_extra_arg_that_may_not_be_is_refused_by_name(key: str, sentence: str) -> None:
    with pytest.raises(Refusal) as refused:
        recipe.check_extra_args({key: "1"}, known=KNOWN | {"learning_rate", "hub_token", "enable_jit_checkpoint"})
    assert refused.value.reason is Reason.CONFIG_INVALID
    assert str(refused.value).startswith(f"training.extraArgs.{key}: {sentence}")


def test_a_known_extra_arg_is_taken() -> None:
    recipe.check_extra_args({"max_grad_norm": "0.5"}, known=KNOWN)


def test_a_plain_adapter_is_the_default() -> None:
    found = recipe.lora_arguments(spec_with())
    assert (found["target_modules"], found["bias"], found["init_lora_weights"]) == ("all-linear", "none", True)


def test_the_adapters_shape_reaches_peft() -> None:
    lora = {"r": 4, "loraAlpha": 8, "targetModules": ["q_proj", "v_proj"], "initLoraWeights": "Gaussian"}
    found = recipe.lora_arguments(spec_with(lora=lora))
    assert (found["r"], found["lora_alpha"], found["target_modules"]) == (4, 8, ["q_proj", "v_proj"])
    assert found["init_lora_weights"] == "gaussian"


def test_a_rank_above_the_engines_is_refused_before_training() -> None:
    wanted = spec_with(lora={"r": 64}, engine={"maxLoraRank": 16})
    with pytest.raises(Refusal, match="--max-lora-rank") as refused:
        servable.check_config(wanted, recipe.lora_arguments(wanted))
    assert refused.value.reason is Reason.NOT_SERVABLE


@pytest.mark.parametrize(
    "lora", [{}, {"useRslora": True}, {"initLoraWeights": "Gaussian"}, {"targetModules": ["q_proj"]}]
)
def test_what_the_spec_can_say_is_servable_by_its_config(lora: Mapping[str, object]) -> None:
    wanted = spec_with(lora=lora, engine={"maxLoraRank": 16})
    servable.check_config(wanted, recipe.lora_arguments(wanted))
