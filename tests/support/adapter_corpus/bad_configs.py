"""Adapters whose config asks for what vLLM refuses, never reads, or computes otherwise than PEFT."""

from dataclasses import replace

from lora_operator import adapter
from lora_operator.adapter import Code
from support.adapter_corpus.case import ALL, CPU, MANY_NAMES, NULL_TARGETS, Case, bad, with_config
from support.adapters import TINY_PHI3, make_adapter, with_null

_OWN_TENSORS = "PEFT saves tensors of its own along, which vLLM refuses: without them, it is not what was trained"

_TWO_LIBRARIES = "vLLM matches with another library than PEFT's: only what is surely the same in both is run"
_NO_LIST = "PEFT writes a list; what iterates like one is a mistake that another version may take otherwise"

_FIELDS = (
    bad("rank 0", Code.MALFORMED_CONFIG, with_config(r=0)),
    bad("a negative rank", Code.MALFORMED_CONFIG, with_config(r=-8)),
    bad("rank 8.0", Code.MALFORMED_CONFIG, with_config(r=8.0)),
    bad("rank true", Code.MALFORMED_CONFIG, with_config(r=True)),
    bad("rank as a text", Code.MALFORMED_CONFIG, with_config(r="8")),
    bad("no rank", Code.MALFORMED_CONFIG, with_config(r=None)),
    bad("no alpha", Code.MALFORMED_CONFIG, with_config(lora_alpha=None)),
    bad("alpha as a text", Code.MALFORMED_CONFIG, with_config(lora_alpha="16")),
    bad("a rank of 0 in rank_pattern", Code.MALFORMED_CONFIG, with_config(rank_pattern={"c_attn": 0})),
    bad("a rank of 4.5 in rank_pattern", Code.MALFORMED_CONFIG, with_config(rank_pattern={"c_attn": 4.5})),
    bad("rank_pattern a list", Code.MALFORMED_CONFIG, with_config(rank_pattern=["q_proj"])),
    bad("alpha_pattern with a text", Code.MALFORMED_CONFIG, with_config(alpha_pattern={"q_proj": "4"})),
    bad("dropout 2", Code.MALFORMED_CONFIG, with_config(lora_dropout=2)),
    bad("no targets", Code.MALFORMED_CONFIG, with_config(target_modules=[])),
    bad("targets a number", Code.MALFORMED_CONFIG, with_config(target_modules=7)),
    bad("targets missing", Code.MALFORMED_CONFIG, with_config(target_modules=None)),
    bad("targets a broken regex", Code.MALFORMED_CONFIG, with_config(target_modules="(q_proj")),
    bad("dropout as a text", Code.MALFORMED_CONFIG, with_config(lora_dropout="0.1")),
    bad("rank_pattern null", Code.MALFORMED_CONFIG, lambda: with_null("rank_pattern")),
    bad("targets in a list of lists", Code.MALFORMED_CONFIG, with_config(target_modules=[["q_proj"]])),
    bad("layers transformed by a number with a point", Code.MALFORMED_CONFIG, with_config(layers_to_transform=1.0)),
    bad("layers transformed by texts", Code.MALFORMED_CONFIG, with_config(layers_to_transform=["0", "1"])),
    bad(
        "too many targets for an empty name among them",
        Code.MALFORMED_CONFIG,
        with_config(target_modules=["q_proj", "v_proj", "", *(f"c{number}" for number in range(17))]),
    ),
    *(
        bad(f"{field} an object", Code.MALFORMED_CONFIG, with_config(**{field: value}, **others), why=_NO_LIST)
        for field, value, others in (
            ("target_modules", {f"c{number}": 1 for number in range(20)}, {}),
            ("layers_pattern", {"layers": 1}, {"layers_to_transform": [0, 1]}),
        )
    ),
    bad(
        "a number among the targets",
        Code.MALFORMED_CONFIG,
        with_config(target_modules=["q_proj", "v_proj", 7]),
        why=_NO_LIST,
    ),
    bad("layers_pattern false", Code.MALFORMED_CONFIG, with_config(layers_pattern=False), why=_NO_LIST),
    bad(
        "layers_pattern a regex",
        Code.PATTERN_NOT_SUPPORTED,
        with_config(layers_to_transform=[0, 1], layers_pattern=["lay[a-z]+"]),
        why="which number it ends before can't be told without running it, and names say as much",
    ),
    bad(
        "a rank of true in rank_pattern",
        Code.MALFORMED_CONFIG,
        with_config(rank_pattern={"c_attn": True}),
        why="a rank is a number",
    ),
    bad("a field of Python's own", Code.MALFORMED_CONFIG, with_config(self=1)),
    bad("another field of Python's own", Code.MALFORMED_CONFIG, lambda: with_null("cls")),
    bad("an EVA config with a rho below 1", Code.MALFORMED_CONFIG, with_config(eva_config={"rho": 0.1})),
    bad("an EVA config with a rho of null", Code.MALFORMED_CONFIG, with_config(eva_config={"rho": None})),
    bad("an EVA config with a tau of 5", Code.MALFORMED_CONFIG, with_config(eva_config={"tau": 5.0})),
    bad("an EVA config that is a list", Code.MALFORMED_CONFIG, with_config(eva_config=[1])),
    bad(
        "targets a regex beside layers",
        Code.MALFORMED_CONFIG,
        with_config(target_modules=".*(q|v)_proj", layers_to_transform=[0, 1]),
    ),
    bad("a pattern of layers without layers", Code.MALFORMED_CONFIG, with_config(layers_pattern="layers")),
    bad(
        "targets null, and others trained than PEFT fills in",
        Code.NOT_TARGETED,
        lambda: make_adapter(targets=["q_proj", "o_proj"]).with_file(adapter.CONFIG, NULL_TARGETS),
    ),
    bad(
        "targets null for an architecture for which PEFT fills nothing in",
        Code.MALFORMED_CONFIG,
        lambda: make_adapter(base=TINY_PHI3, targets=["qkv_proj"]).with_file(adapter.CONFIG, NULL_TARGETS),
        base=TINY_PHI3,
    ),
)

_RANKS = (
    bad("rank too high", Code.RANK_TOO_HIGH, lambda: make_adapter(rank=64)),
    bad("rank too high in rank_pattern alone", Code.RANK_TOO_HIGH, with_config(rank_pattern={"c_attn": 64})),
    bad("config says another rank", Code.RANK_MISMATCH, with_config(r=4)),
    bad("rank_pattern that is not in the tensors", Code.RANK_MISMATCH, with_config(rank_pattern={"v_proj": 4})),
    bad("a regex in rank_pattern that is not in the tensors", Code.RANK_MISMATCH,
        with_config(rank_pattern={r".*\.v_.*": 4})),
    bad("tensors of a rank_pattern that the config lacks", Code.RANK_MISMATCH,
        lambda: make_adapter(ranks={"v_proj": 4})),
    bad("a key of rank_pattern for which the start of a name is enough", Code.RANK_MISMATCH,
        with_config(rank_pattern={"model)|(zzz": 4})),
)  # fmt: skip

_PATTERNS = (
    bad("alpha_pattern about like a name, as vLLM reads it", Code.PATTERN_NOT_SUPPORTED,
        with_config(alpha_pattern={"(v_prox){e<=1}": 64})),
    *(
        bad(f"alpha_pattern that vLLM reads otherwise: {key}", Code.PATTERN_NOT_SUPPORTED,
            with_config(alpha_pattern={key: 128}))
        for key in ("(?:v_prox){s<=1}", "(v_prox){1<=e<=2}", "[[:alpha:]]_proj", "[^[:digit:]]_proj")
    ),
    *(
        bad(f"alpha_pattern with more than the regexes that both read alike: {key}", Code.PATTERN_NOT_SUPPORTED,
            with_config(alpha_pattern={key: 64}), why=_TWO_LIBRARIES)
        for key in ("q++_proj", "q_proj(?#x)", "q_proj{", "q_proj{x}", r"(?<=\.)q_proj", "(?>q)_proj")
    ),
    bad("a pattern that begins with a count", Code.MALFORMED_CONFIG, with_config(alpha_pattern={"{2}q_proj": 4})),
    bad("a pattern with two groups of one name", Code.MALFORMED_CONFIG,
        with_config(alpha_pattern={"(?P<a>q)(?P<a>_)proj": 4})),
)  # fmt: skip

_NOT_LINEAR = (
    *(
        bad(f"targets with {name} among them", Code.MALFORMED_CONFIG,
            with_config(target_modules=["q_proj", "v_proj", name]))
        for name in ("self_attn", "mlp", "input_layernorm", "act_fn", "rotary_emb", "0", "layers", "model.norm")
    ),
    *(
        bad(f"targets by a regex that means more than linear layers: {regex}", Code.MALFORMED_CONFIG,
            with_config(target_modules=regex))
        for regex in (".*", ".*self_attn.*", ".*attn.*|.*mlp.*",
                      "^(model)(?!.*(lm_head|output|emb|wte|shared)).*")
    ),
)  # fmt: skip

_SCOPE = (
    bad("targets narrower than the tensors", Code.NOT_TARGETED, with_config(target_modules=["q_proj"])),
    bad("a regex narrower than the tensors", Code.NOT_TARGETED, with_config(target_modules=r".*\.q_proj")),
    bad("a regex that matches only a part", Code.NOT_TARGETED, with_config(target_modules="q_proj|v_proj")),
    bad("all-linear in a list", Code.NOT_TARGETED, with_config(target_modules=["all-linear"])),
    bad("targets that end within a name", Code.NOT_TARGETED, with_config(target_modules=["attn.q_proj", "v_proj"])),
    bad("layers of a name that is not there", Code.NOT_TARGETED,
        with_config(layers_to_transform=[0, 1], layers_pattern="h")),
    bad("layers of an empty name", Code.NOT_TARGETED, with_config(layers_to_transform=[0, 1], layers_pattern=[""])),
    bad("layers transformed by true", Code.NOT_TARGETED, with_config(layers_to_transform=True)),
    bad("many full names, beside the layers transformed", Code.NOT_TARGETED, with_config(
        target_modules=MANY_NAMES, layers_to_transform=[0])),
    bad("a regex that refers back to what is not there", Code.NOT_TARGETED,
        with_config(target_modules=r".*\.(q)\1_proj")),
    bad("a regex that looks behind, narrower than the tensors", Code.NOT_TARGETED,
        with_config(target_modules=r".*(?<=self_attn\.)q_proj")),
    bad("excluded by a regex that looks behind", Code.NOT_TARGETED,
        with_config(exclude_modules=r".*(?<=self_attn\.)v_proj")),
    bad("excluded though in the file", Code.NOT_TARGETED, with_config(exclude_modules=["v_proj"])),
    bad("excluded by a regex though in the file", Code.NOT_TARGETED, with_config(exclude_modules=r".*v_proj")),
    bad("layers narrower than the tensors", Code.NOT_TARGETED, with_config(layers_to_transform=1)),
    bad("embeddings beside all-linear", Code.NOT_TARGETED,
        lambda: make_adapter(targets=[*ALL, "embed_tokens"], config={"target_modules": "all-linear"})),
    bad("missing tensors with a random init", Code.MISSING_TENSOR,
        with_config(target_modules=["q_proj", "v_proj", "o_proj"], init_lora_weights=False)),
    bad("missing tensors with no init", Code.MISSING_TENSOR, lambda: with_null(
        "init_lora_weights", target_modules=["q_proj", "v_proj", "o_proj"])),
)  # fmt: skip

_VARIANTS = (
    bad("DoRA", Code.DORA_NOT_SUPPORTED, with_config(use_dora=True)),
    bad("bias all", Code.BIAS_NOT_SUPPORTED, with_config(bias="all")),
    bad("bias null", Code.BIAS_NOT_SUPPORTED, lambda: with_null("bias")),
    bad("bias lora_only", Code.BIAS_NOT_SUPPORTED, with_config(bias="lora_only")),
    bad("lora_bias", Code.BIAS_NOT_SUPPORTED, with_config(lora_bias=True)),
    bad("modules_to_save", Code.MODULES_TO_SAVE_NOT_SUPPORTED, with_config(modules_to_save=["lm_head"])),
    *(
        bad(f"init {init}", Code.INIT_NOT_SUPPORTED, with_config(init_lora_weights=init))
        for init in ("pissa", "pissa_niter_16", "olora", "corda", "LoftQ")
    ),
    bad("an init in other letters than PEFT's", Code.UNSUPPORTED_VARIANT, with_config(init_lora_weights="EVA")),
    bad("an orthogonal init of an odd rank", Code.MALFORMED_CONFIG,
        lambda: make_adapter(rank=5, config={"init_lora_weights": "orthogonal"})),
    bad("an orthogonal init of an odd rank in rank_pattern", Code.MALFORMED_CONFIG, lambda: make_adapter(
        ranks={"v_proj": 5}, config={"rank_pattern": {"v_proj": 5}, "init_lora_weights": "orthogonal"})),
    bad("an init that is an empty text", Code.UNSUPPORTED_VARIANT, with_config(init_lora_weights="")),
    bad("an init that is a number", Code.UNSUPPORTED_VARIANT, with_config(init_lora_weights=1)),
    bad("an unknown init", Code.UNSUPPORTED_VARIANT, with_config(init_lora_weights="magic")),
    bad("aLoRA", Code.UNSUPPORTED_VARIANT, with_config(alora_invocation_tokens=[1, 2])),
    bad("layer replication", Code.UNSUPPORTED_VARIANT, with_config(layer_replication=[[0, 2]])),
    bad("BD-LoRA by its defaults", Code.UNSUPPORTED_VARIANT, with_config(use_bdlora={})),
    bad("BD-LoRA", Code.UNSUPPORTED_VARIANT, with_config(use_bdlora={"nblocks": 2})),
    bad("QALoRA", Code.UNSUPPORTED_VARIANT, with_config(use_qalora=True)),
    bad("trained tokens", Code.UNSUPPORTED_VARIANT, with_config(trainable_token_indices=[5])),
    bad("no trained tokens, in a list", Code.UNSUPPORTED_VARIANT, with_config(trainable_token_indices=[])),
    bad("no trained tokens, by false", Code.UNSUPPORTED_VARIANT, with_config(trainable_token_indices=False)),
    bad("VeLoRA", Code.UNSUPPORTED_VARIANT, with_config(velora_config={}), why=_OWN_TENSORS),
    bad("MonteCLoRA false", Code.UNSUPPORTED_VARIANT, with_config(monteclora_config=False), why=_OWN_TENSORS),
    bad("MonteCLoRA", Code.UNSUPPORTED_VARIANT, with_config(monteclora_config={}), why=_OWN_TENSORS),
    bad("megatron", Code.UNSUPPORTED_VARIANT, with_config(megatron_config={"a": 1})),
    bad("arrow", Code.UNSUPPORTED_VARIANT, with_config(arrow_config={"top_k": 2})),
    bad("kasa by its defaults", Code.UNSUPPORTED_VARIANT, with_config(kasa_config={})),
    bad("kasa", Code.UNSUPPORTED_VARIANT, with_config(kasa_config={"beta": 1})),
    bad("LoRA on parameters of a layer", Code.UNSUPPORTED_VARIANT, with_config(target_parameters=["q_proj.weight"])),
    *(
        bad(f"LoRA on parameters of PEFT's own layers: {name}", Code.UNSUPPORTED_VARIANT,
            with_config(target_parameters=[name]))
        for name in ("lora_A.default.weight", "default.weight")
    ),
    bad("LoRA on parameters of any layer", Code.UNSUPPORTED_VARIANT, with_config(target_parameters=["weight"])),
    bad("LoRA on parameters, by an empty text", Code.UNSUPPORTED_VARIANT, with_config(target_parameters="")),
    bad("embeddings tied by PEFT", Code.UNSUPPORTED_VARIANT,
        lambda: make_adapter(targets=["embed_tokens"], config={"ensure_weight_tying": True}),
        why="this base ties none, but a config.json that would tell that is not always at hand"),
    bad("no peft_type", Code.UNSUPPORTED_VARIANT, with_config(peft_type=None)),
    bad("peft_type in lower case", Code.UNSUPPORTED_VARIANT, with_config(peft_type="lora")),
    bad("another method", Code.UNSUPPORTED_VARIANT, with_config(peft_type="IA3")),
    bad("a task in lower case", Code.UNSUPPORTED_VARIANT, with_config(task_type="causal_lm")),
    bad("an unknown task", Code.UNSUPPORTED_VARIANT, with_config(task_type="CHAT")),
    bad("a module that the engine leaves out", Code.MODULE_NOT_SERVED,
        lambda: make_adapter(targets=["q_proj", "o_proj"]), engine=replace(CPU, target_modules=("qkv_proj",)),
        askable=False),
    bad("another engine", Code.UNKNOWN_ENGINE, make_adapter, engine=replace(CPU, type="TGI"), askable=False),
)  # fmt: skip

BAD_CONFIGS: tuple[Case, ...] = (*_FIELDS, *_RANKS, *_PATTERNS, *_NOT_LINEAR, *_SCOPE, *_VARIANTS)
