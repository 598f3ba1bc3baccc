"""A spec becomes the arguments of trl and peft; what no engine serves, or the spec says elsewhere, stays out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from lora_operator.api.served_lora import lora_arguments, served_config
from lora_operator.api.training import Method
from lora_operator.protocol.training import Reason
from lora_trainer import extra_args, recipe, servable, spec
from lora_trainer.result import Refusal
from lora_trainer.spec import TrainSpec

KNOWN: Mapping[str, Any] = {
    "adam_epsilon": float,
    "gradient_checkpointing_kwargs": dict[str, Any] | str | None,
    "neftune_noise_alpha": float | None,
    "eval_on_start": bool,
}


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
    return recipe.arguments(wanted, output_dir="/out/state", dtype=dtype, accelerator=accelerator, bar=False)


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


TRACKERS = ["comet_ml", "mlflow", "tensorboard", "wandb"]


@pytest.mark.parametrize("asked", ["tensorboard", ["tensorboard", "mlflow"], "none", "all", None])
def test_trackers_that_are_installed_may_be_asked_for(asked: object) -> None:
    extra_args.check_trackers(asked, installed=["mlflow", "tensorboard"], known=TRACKERS)


@pytest.mark.parametrize("asked", ["wandb", ["tensorboard", "wandb"]])
def test_a_tracker_that_is_not_installed_is_named_with_its_field_and_what_brings_it(asked: object) -> None:
    with pytest.raises(Refusal) as refused:
        extra_args.check_trackers(asked, installed=["tensorboard"], known=TRACKERS)
    assert str(refused.value) == (
        "training.extraArgs.report_to: wandb is not installed in the trainer's environment, which has tensorboard; "
        "install it there: pip install wandb"
    )
    with pytest.raises(Refusal, match=r"which has no tracker; install it there: pip install comet-ml$"):
        extra_args.check_trackers("comet_ml", installed=[], known=TRACKERS)


def test_a_tracker_that_nobody_knows_is_told_with_the_nearest() -> None:
    with pytest.raises(
        Refusal, match=r"report_to: transformers knows no tracker 'tensorbord', but comet_ml, .*; did you"
    ):
        extra_args.check_trackers("tensorbord", installed=[], known=TRACKERS)


def test_extra_args_are_read_as_yaml_scalars() -> None:
    extra = {
        "adam_epsilon": "1e-8",
        "logging_first_step": "true",
        "gradient_checkpointing_kwargs": "{use_reentrant: false}",
        "neftune_noise_alpha": 5,
        "train_sampling_strategy": "group_by_length",
        "optim_args": "a: b: c",
    }
    found = arguments(spec_with(training={"extraArgs": extra}))
    assert {key: found[key] for key in extra} == {
        "adam_epsilon": 1e-8,
        "logging_first_step": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "neftune_noise_alpha": 5,
        "train_sampling_strategy": "group_by_length",
        "optim_args": "a: b: c",
    }


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("adam_epsiln", "trl's SFTConfig has no such argument; did you mean adam_epsilon?"),
        ("zzz", "trl's SFTConfig has no such argument"),
        ("max_seq_length", "is gone from trl and transformers; use training.maxLength"),
        ("warmup_ratio", "is gone from trl and transformers; use training.warmupSteps"),
        ("learning_rate", "say it in training.learningRate"),
        ("max_grad_norm", "say it in training.maxGradNorm"),
        ("evaluation_strategy", "is gone from trl and transformers; use evaluation"),
        ("logging_dir", "is gone from trl and transformers; use the environment variable TENSORBOARD_LOGGING_DIR"),
        ("group_by_length", 'is gone from trl and transformers; use train_sampling_strategy: "group_by_length"'),
        ("hub_token", "say it in output.hub.tokenSecretRef"),
        ("enable_jit_checkpoint", "may not be set, an interrupted training would look done"),
        ("chat_template_path", "may not be set, it may train lm_head"),
    ],
)
def test_an_extra_arg_that_may_not_be_is_refused_by_name(key: str, sentence: str) -> None:
    known = dict.fromkeys(("learning_rate", "hub_token", "enable_jit_checkpoint"), str)
    with pytest.raises(Refusal) as refused:
        extra_args.check({key: "1"}, config="SFTConfig", known={**KNOWN, **known})
    assert refused.value.reason is Reason.CONFIG_INVALID
    assert str(refused.value).startswith(f"training.extraArgs.{key}: {sentence}")


def test_a_known_extra_arg_is_taken() -> None:
    given = {"adam_epsilon": 1e-8, "neftune_noise_alpha": 5, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    extra_args.check(given, config="SFTConfig", known=KNOWN)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("adam_epsilon", "small", "Input should be a valid number, not 'small'"),
        ("adam_epsilon", True, "Input should be a valid number, not True"),
        ("eval_on_start", 1, "Input should be a valid boolean, not 1"),
        ("gradient_checkpointing_kwargs", 7, "Input should be a valid dictionary or Input should be a valid string"),
    ],
)
def test_an_extra_arg_of_another_type_is_refused_by_name(key: str, value: object, sentence: str) -> None:
    with pytest.raises(Refusal) as refused:
        extra_args.check({key: value}, config="SFTConfig", known=KNOWN)
    assert str(refused.value).startswith(f"training.extraArgs.{key}: {sentence}")


@pytest.mark.parametrize(
    ("key", "value", "config", "sentence"),
    [
        ("adam_beta2", 2, "SFTConfig", "must be 0 or more, and below 1, not 2"),
        ("dataloader_num_workers", -1, "SFTConfig", "must be 0 or more, not -1"),
        ("per_device_eval_batch_size", 0, "SFTConfig", "must be 1 or more, not 0"),
        ("pad_to_multiple_of", 0, "SFTConfig", "must be 1 or more, not 0"),
        ("loss_type", "sigmoid", "SFTConfig", "'sigmoid' is none of nll, dft, chunked_nll"),
        ("loss_type", ["ipo", "hing"], "DPOConfig", "'hing' is none of sigmoid, "),
        ("log_level", "banana", "SFTConfig", "'banana' is none of passive, "),
        (
            "train_sampling_strategy",
            "group_by_lenght",
            "SFTConfig",
            "did you mean group_by_length?",
        ),  # codespell:ignore
        ("do_train", False, "SFTConfig", "may not be set, the program trains"),
    ],
)
def test_an_extra_arg_that_nothing_could_use_is_refused_by_name(
    key: str, value: object, config: str, sentence: str
) -> None:
    with pytest.raises(Refusal) as refused:
        extra_args.check({key: value}, config=config, known={key: Any})
    assert str(refused.value).startswith(f"training.extraArgs.{key}: ")
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("key", "value", "config"),
    [("adam_beta2", 0.95, "SFTConfig"), ("loss_type", "dft", "SFTConfig"), ("loss_type", ["ipo", "sft"], "DPOConfig")],
)
def test_an_extra_arg_that_can_be_used_is_taken(key: str, value: object, config: str) -> None:
    extra_args.check({key: value}, config=config, known={key: Any})


def test_a_plain_adapter_is_the_default() -> None:
    found = lora_arguments(spec_with().lora)
    assert (found["target_modules"], found["bias"], found["init_lora_weights"]) == ("all-linear", "none", True)


def test_the_adapters_shape_reaches_peft() -> None:
    lora = {"r": 4, "loraAlpha": 8, "targetModules": ["q_proj", "v_proj"], "initLoraWeights": "Gaussian"}
    found = lora_arguments(spec_with(lora=lora).lora)
    assert (found["r"], found["lora_alpha"], found["target_modules"]) == (4, 8, ["q_proj", "v_proj"])
    assert found["init_lora_weights"] == "gaussian"


def test_a_rank_above_the_engines_is_refused_before_training() -> None:
    wanted = spec_with(lora={"r": 64}, engine={"maxLoraRank": 16})
    with pytest.raises(Refusal, match="--max-lora-rank") as refused:
        servable.check_config(wanted)
    assert refused.value.reason is Reason.NOT_SERVABLE


@pytest.mark.parametrize("init", ["Pissa", "PissaNiter16", "Olora"])
def test_what_is_converted_is_served_with_twice_the_rank(init: str) -> None:
    wanted = spec_with(lora={"r": 8, "loraAlpha": 16, "initLoraWeights": init, "rankPattern": {"q_proj": 4}})
    found = served_config(wanted.lora)
    assert (found["r"], found["lora_alpha"], found["rank_pattern"]) == (16, 32, {"q_proj": 8})
    assert found["init_lora_weights"] is True
    servable.check_config(wanted)


def test_twice_the_rank_may_be_above_the_engines() -> None:
    wanted = spec_with(lora={"r": 16, "initLoraWeights": "Pissa"}, engine={"maxLoraRank": 16})
    with pytest.raises(Refusal, match="RankTooHigh"):
        servable.check_config(wanted)


def test_rslora_keeps_its_scale_when_it_is_converted() -> None:
    lora = spec_with(lora={"r": 8, "loraAlpha": 16, "useRslora": True, "initLoraWeights": "Pissa"}).lora
    found = served_config(lora)
    assert found["lora_alpha"] / found["r"] ** 0.5 == pytest.approx(lora.lora_alpha / lora.r**0.5)


PREFERENCE = {"source": {"configMapRef": {"name": "data", "key": "x.csv"}}, "format": "Preference"}


def test_dpo_has_its_own_arguments_and_none_of_sft() -> None:
    wanted = spec_with(dataset=PREFERENCE, training={"beta": "0.05"}).model_copy(update={"method": Method.DPO})
    found = arguments(wanted)
    assert found["beta"] == 0.05
    assert not {"packing", "assistant_only_loss", "completion_only_loss"} & set(found)


@pytest.mark.parametrize(("accelerator", "optim"), [(True, "paged_adamw_32bit"), (False, "adamw_torch")])
def test_a_paged_optimiser_is_replaced_where_the_device_has_none_and_it_is_said(accelerator: bool, optim: str) -> None:
    wanted = spec_with(training={"optim": "PagedAdamw32bit"})
    assert arguments(wanted, accelerator=accelerator)["optim"] == optim
    said = recipe.optimiser(wanted, accelerator=accelerator)[1]
    assert said == ("" if accelerator else _SAID)


_SAID = "training.optim: PagedAdamw32bit needs an accelerator; AdamwTorch is used on this CPU"


@pytest.mark.parametrize(("accelerator", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_four_bits_and_what_is_computed_in_are_explicit(accelerator: bool, dtype: str) -> None:
    wanted = spec_with(quantization={"bnb4bitUseDoubleQuant": True})
    assert recipe.quantization_arguments(wanted, accelerator=accelerator) == {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": dtype,
    }
    assert recipe.quantization_arguments(spec_with(), accelerator=accelerator) is None


@pytest.mark.parametrize(
    "lora", [{}, {"useRslora": True}, {"initLoraWeights": "Gaussian"}, {"targetModules": ["q_proj"]}]
)
def test_what_the_spec_can_say_is_servable_by_its_config(lora: Mapping[str, object]) -> None:
    wanted = spec_with(lora=lora, engine={"maxLoraRank": 16})
    servable.check_config(wanted)
