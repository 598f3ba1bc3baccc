"""Adapters that vLLM loads and answers as PEFT does, however odd they look."""

from dataclasses import replace

import numpy as np

from lora_operator.adapter import CONFIG, Code
from support.adapter_corpus.case import ALL, CPU, MANY_NAMES, NULL_TARGETS, Q0, Case, good, ones, with_config
from support.adapters import TINY_LLAMA, make_adapter, tensor, with_gain

_FULL_NAMES = [f"model.layers.{layer}.self_attn.{name}" for layer in (0, 1) for name in ("q_proj", "v_proj")]
_GPU = replace(CPU, device="cuda", dtype="bfloat16", version="0.33.0")

_PLAIN = (
    good("two targets", make_adapter),
    good("all linear modules", lambda: make_adapter(targets=ALL)),
    good("the highest rank", lambda: make_adapter(rank=16)),
    good("rank 1", lambda: make_adapter(rank=1)),
    good("a rank that is no power of two", lambda: make_adapter(rank=13)),
    *(
        good(f"tensors in {dtype}", lambda dtype=dtype: make_adapter(dtype=dtype))  # type: ignore[misc]
        for dtype in ("BF16", "F16", "F64", "F8_E5M2", "F8_E4M3")
    ),
    good(
        "tensors of several dtypes",
        lambda: make_adapter(tensors={f"{Q0}.lora_A.weight": tensor(np.full((8, 128), 0.01), "BF16")}),
    ),
    *(
        good(f"whole numbers of {dtype}", lambda dtype=dtype: make_adapter(tensors={  # type: ignore[misc]
            f"{Q0}.lora_A.weight": tensor(np.resize([0, 1, 0], (8, 128)), dtype)}), Code.UNSUPPORTED_DTYPE)
        for dtype in ("BOOL", "I8", "U8", "I16", "I32", "I64")
    ),
    good("lora_B zero", lambda: make_adapter(tensors={f"{Q0}.lora_B.weight": tensor(np.zeros((128, 8)))})),
    good("embed_tokens", lambda: make_adapter(targets=["q_proj", "embed_tokens"])),
    good("one module in one layer", lambda: make_adapter(base=replace(TINY_LLAMA, layers=1), targets=["o_proj"]),
         Code.MISSING_TENSOR),
)  # fmt: skip

_SCALING = (
    good("rsLoRA", with_config(use_rslora=True)),
    good("use_rslora a text, which is true", with_config(use_rslora="no"), Code.MALFORMED_CONFIG),
    good("negative alpha", with_config(lora_alpha=-16)),
    good("alpha that is no whole number", with_config(lora_alpha=12.5)),
    good("alpha zero", with_config(lora_alpha=0)),
    good("alpha true", with_config(lora_alpha=True), Code.MALFORMED_CONFIG),
    good("alpha far above the rank", with_config(lora_alpha=512)),
    good("a gated MLP as loud as a trained one can get", lambda: with_gain(1e6)),
    good("a gated MLP just below the largest gain", lambda: with_gain(9e10)),
    good("a gain just below the largest for an engine in float16", lambda: with_gain(9e6),
         engine=replace(CPU, dtype="float16"), askable=False),
    good(
        "rank_pattern by module",
        lambda: make_adapter(ranks={"v_proj": 4}, config={"rank_pattern": {"v_proj": 4}}),
    ),
    good(
        "rank_pattern by full name",
        lambda: make_adapter(
            targets=["q_proj"],
            ranks={"q_proj": 4},
            config={"rank_pattern": {"^model.layers.0.self_attn.q_proj": 4, "layers.1.self_attn.q_proj": 4}},
        ),
    ),
    good(
        "rank_pattern by a regex",
        lambda: make_adapter(ranks={"v_proj": 4}, config={"rank_pattern": {r"model\.layers\.\d+\.self_attn\.v_.*": 4}}),
    ),
    good(
        "rank_pattern with alternatives",
        lambda: make_adapter(
            targets=ALL,
            ranks={"k_proj": 4, "v_proj": 4},
            config={"rank_pattern": {r"(k|v)_proj": 4, "[qo]_proj": 8}},
        ),
    ),
    good("rank_pattern for a module that is not there", with_config(rank_pattern={"c_attn": 4})),
    good("rank_pattern: the first key wins", lambda: make_adapter(
        ranks={"v_proj": 4}, config={"rank_pattern": {"layers.[01].self_attn.v_proj": 4, "v_proj": 8}})),
    good("alpha_pattern", with_config(alpha_pattern={"self_attn.v_proj": 3})),
    good("alpha_pattern by layer", with_config(
        alpha_pattern={"layers.0.self_attn.q_proj": 1, "layers.1.self_attn.q_proj": 64})),
    good("another rank for each of what vLLM keeps in one", lambda: make_adapter(
        targets=["q_proj", "k_proj", "v_proj"], ranks={"k_proj": 2, "v_proj": 16},
        config={"rank_pattern": {"k_proj": 2, "v_proj": 16}})),
    good("alpha_pattern by a regex", with_config(alpha_pattern={r".*\.(q|k)_proj": 3.5})),
    good("a key of alpha_pattern for which the start of a name is enough",
         with_config(alpha_pattern={"model)|(zzz": 64})),
    good("alpha_pattern with a negative value", with_config(alpha_pattern={"q_proj": -2})),
    good(
        "rank_pattern, alpha_pattern and rsLoRA",
        lambda: make_adapter(
            ranks={"v_proj": 4},
            config={"rank_pattern": {"v_proj": 4}, "alpha_pattern": {"v_proj": 3, "q_.*": 5}, "use_rslora": True},
        ),
    ),
)  # fmt: skip

_TARGETS = (
    good("full names as targets", with_config(target_modules=_FULL_NAMES)),
    good("targets that the base lacks", with_config(target_modules=["q_proj", "v_proj", "c_attn"])),
    good("targets with an empty name among them", with_config(target_modules=["q_proj", "v_proj", ""])),
    good("all-linear in capitals", lambda: make_adapter(targets=ALL, config={"target_modules": "ALL-LINEAR"})),
    good("all-linear", lambda: make_adapter(targets=ALL, config={"target_modules": "all-linear"})),
    good("targets by a regex", with_config(target_modules=".*(q|v)_proj")),
    good("targets by a regex with classes", with_config(target_modules=r"model\.layers\.[0-9]+\.self_attn\.[qv]_proj")),
    good(
        "targets as Unsloth writes them",
        with_config(
            target_modules=r"(?:.*?(?:language|text).*?(?:self_attn|mlp).*?(?:q_proj|v_proj).*?)"
            r"|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:(?:q_proj|v_proj)))"
        ),
    ),
    good("targets by a regex that looks ahead", with_config(target_modules=r"^(?!.*vision).*\.(?:q|v)_proj$")),
    good(
        "targets by a regex that looks ahead after a name",
        with_config(target_modules=r"^(model)(?!.*(lm_head|output|emb|wte|shared)).*\.(q|v)_proj"),
    ),
    good("targets an object", with_config(target_modules={"q_proj": 1, "v_proj": 2}), Code.MALFORMED_CONFIG),
    good("exclude_modules an object", with_config(exclude_modules={"a": 1}), Code.MALFORMED_CONFIG),
    good(
        "targets null: PEFT fills in what was trained",
        lambda: make_adapter().with_file(CONFIG, NULL_TARGETS),
        Code.MALFORMED_CONFIG,
    ),
    good(
        "LoRA on parameters that the base lacks",
        with_config(target_parameters=["experts.x", "mlp.experts.down"]),
        Code.UNSUPPORTED_VARIANT,
    ),
    good("nothing excluded, by an object", with_config(exclude_modules={})),
    good("nothing excluded, by false", with_config(exclude_modules=False)),
    good("excluded elsewhere", with_config(exclude_modules=["lm_head"])),
    good("excluded elsewhere by a regex", with_config(exclude_modules=r".*vision.*")),
    good(
        "one layer transformed",
        lambda: make_adapter(base=replace(TINY_LLAMA, layers=1), config={"layers_to_transform": [0]}),
    ),
    good("layers transformed that are not there, and are", with_config(layers_to_transform=[-1, 0, 1, 7])),
    good(
        "layers transformed, of a name with dots",
        with_config(layers_to_transform=[0, 1], layers_pattern=["model.layers"]),
    ),
    good(
        "layers transformed, of an empty name and another",
        with_config(layers_to_transform=[0, 1], layers_pattern=["", "layers"]),
    ),
    good(
        "layers transformed, with a point and by true",
        with_config(layers_to_transform=[0.0, True]),
        Code.MALFORMED_CONFIG,
    ),
    good(
        "layer 0 transformed, by false",
        lambda: make_adapter(base=replace(TINY_LLAMA, layers=1), config={"layers_to_transform": False}),
        Code.MALFORMED_CONFIG,
    ),
    *(
        good(f"targets by a regex that only re runs: {regex}", with_config(target_modules=regex))
        for regex in (
            r".*(?<!vision)\.self_attn\.(q|v)_proj",
            r"(?i).*\.(Q|v)_PROJ",
            r".*\.[qv]++_proj",
            r".*\.(q|v)_proj(?#x)",
            r".*\.(?P<a>q|v)_proj(?P=a)?",
            r"model\.(?:layers(?!\.9)).*\.(q|v)_proj",
        )
    ),
    good(
        "nearly too many targets for an empty name among them",
        with_config(target_modules=["q_proj", "v_proj", "", *(f"c{number}" for number in range(16))]),
    ),
    good(
        "many full names of layers that are transformed, and more",
        with_config(target_modules=MANY_NAMES, layers_to_transform=[0, 1]),
    ),
    good(
        "one layer transformed, and which names are layers",
        lambda: make_adapter(
            base=replace(TINY_LLAMA, layers=1), config={"layers_to_transform": 0, "layers_pattern": "layers"}
        ),
    ),
    good(
        "no tensors for a target: PEFT starts it at zero",
        with_config(target_modules=["q_proj", "v_proj", "o_proj"]),
        Code.MISSING_TENSOR,
    ),
)

_STARTS: tuple[object, ...] = ("gaussian", "eva", "orthogonal", "mica", "lora_ga", False, "MiCA", 0, [], {})
_INITS = tuple(good(f"init {start}", with_config(init_lora_weights=start)) for start in _STARTS)

_HARMLESS = (
    good("EVA with its config", with_config(init_lora_weights="eva", eva_config={"rho": 2.0, "tau": 0.99})),
    good("fan_in_fan_out", with_config(fan_in_fan_out=True)),
    good("dropout NaN", with_config(lora_dropout=float("nan")), Code.MALFORMED_CONFIG),
    good("NaN where nobody looks", with_config(loftq_config={"bits": float("nan")}), Code.MALFORMED_CONFIG),
    good("a rank twice, the last one right",
         lambda: make_adapter().with_file(CONFIG, make_adapter().files[CONFIG].replace(b"{", b'{"r": 64, ', 1)),
         Code.MALFORMED_CONFIG),
    good("dropout in training", with_config(lora_dropout=0.3)),
    good("dropout of everything", with_config(lora_dropout=True)),
    good("a model of one's own mapped", with_config(auto_mapping={"base_model_class": "LlamaForCausalLM"})),
    *(
        good(f"task {task}", with_config(task_type=task), Code.NOT_CHECKED)
        for task in ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION", "SEQ_2_SEQ_LM")
    ),
    good("no token trained", with_config(trainable_token_indices={})),
    good("vLLM's own fields", with_config(vllm_lora_scaling_factor=9.0), Code.UNKNOWN_FIELD),
    good("weight tying without embeddings", with_config(ensure_weight_tying=True)),
    good("no task", with_config(task_type=None)),
    good("base named by a path", with_config(base_model_name_or_path="/home/me/models/llama")),
    good("no base named", with_config(base_model_name_or_path=None)),
    good("a field from the future", with_config(use_magic={"a": 1}), Code.UNKNOWN_FIELD),
    good("fields with empty values", with_config(arrow_config=None, from_the_future=False)),
    good("lora_bias null", with_config(lora_bias=None)),
    good("modules_to_save empty", with_config(modules_to_save=[])),
    good("modules_to_save of a classifier that the base lacks", with_config(modules_to_save=["classifier", "score"]),
         Code.MODULES_TO_SAVE_NOT_SUPPORTED),
    good("the base's name a number", with_config(base_model_name_or_path=7), Code.MALFORMED_CONFIG),
    good("a pickle beside it", lambda: make_adapter().with_file("adapter_model.bin", b"\x80\x02.")),
    good(
        "other files beside it",
        lambda: make_adapter().with_file("README.md", b"# card").with_file("training_args.bin", b"\x80"),
    ),
    good("modules beside the one that the engine lists", make_adapter,
         engine=replace(CPU, target_modules=("k_proj", "o_proj")), askable=False),
    good("an older engine", make_adapter, Code.UNKNOWN_ENGINE, engine=replace(CPU, version="0.12.0"), askable=False),
    good("an engine built from a branch", make_adapter, Code.UNKNOWN_ENGINE, engine=replace(CPU, version="main"),
         askable=False),
    good("a newer engine", make_adapter, Code.UNKNOWN_ENGINE, engine=replace(CPU, version="0.99.0"), askable=False),
    good("an engine whose limit is unknown", make_adapter, Code.NOT_CHECKED,
         engine=replace(CPU, max_lora_rank=None), askable=False),
    good("lm_head on a GPU", lambda: make_adapter(targets=["q_proj", "lm_head"]), Code.LM_HEAD_NOT_SUPPORTED,
         engine=_GPU, askable=False),
    good("values that bfloat16 rounds", lambda: make_adapter(tensors={f"{Q0}.lora_A.weight": ones(8, 128)}),
         engine=_GPU, askable=False),
)  # fmt: skip

GOOD_ADAPTERS: tuple[Case, ...] = (*_PLAIN, *_SCALING, *_TARGETS, *_INITS, *_HARMLESS)
