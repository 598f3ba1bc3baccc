"""Adapters made on the spot, good and bad, for every tier of tests.

    make_adapter()                                  a good adapter for TINY_LLAMA: rank 8, q_proj and v_proj
    make_adapter(rank=64)                           a rank above most engines'
    make_adapter(config={"use_dora": True})         any field of adapter_config.json; None deletes one
    make_adapter(base=replace(TINY_LLAMA, hidden=64))   an adapter of another base
    make_adapter().spoilt(nan=True)                 NaN in the last value of the last tensor
    make_adapter().truncated(100)                   the weights without their last 100 bytes
    make_adapter().pickle_only()                    adapter_model.bin in the place of the safetensors
    make_adapter().write(folder)                    as files; `.files` has them as bytes, for a Hub

The values are small, seeded and not zero, so that an engine's answer differs from the base's.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lora_operator import adapter

PREFIX = "base_model.model."


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseShape:
    """The sizes of a dense decoder; `config()` is its config.json."""

    model_type: str = "llama"
    hidden: int = 128
    inner: int = 384
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    vocabulary: int = 2048
    tied: bool = False

    def config(self) -> dict[str, object]:
        """Return config.json as transformers writes it, as far as anything here reads it."""
        return {
            "architectures": [f"{self.model_type.capitalize()}ForCausalLM"],
            "model_type": self.model_type,
            "hidden_size": self.hidden,
            "intermediate_size": self.inner,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocabulary,
            "tie_word_embeddings": self.tied,
        }

    @property
    def linear(self) -> tuple[str, ...]:
        """The projections of a layer; Phi-3 has those side by side that read the same."""
        if self.model_type == "phi3":
            return ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
        return ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

    def weights(self) -> dict[str, tuple[int, ...]]:
        """Return name and shape of every tensor of the base's checkpoint."""
        shapes = {
            f"{self.module(layer, name)}.weight": self.of(name) for layer in range(self.layers) for name in self.linear
        }
        norms = {f"model.layers.{layer}.input_layernorm.weight": (self.hidden,) for layer in range(self.layers)}
        ends = {"model.embed_tokens.weight": self.of("embed_tokens"), "model.norm.weight": (self.hidden,)}
        head = {} if self.tied else {"lm_head.weight": self.of("lm_head")}
        return {**shapes, **norms, **ends, **head}

    def of(self, name: str) -> tuple[int, int]:
        """Return a module's (out, in), or (vocabulary, hidden) of embeddings and head."""
        attention, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (attention, self.hidden),
            "k_proj": (kv, self.hidden),
            "v_proj": (kv, self.hidden),
            "qkv_proj": (attention + 2 * kv, self.hidden),
            "o_proj": (self.hidden, attention),
            "gate_proj": (self.inner, self.hidden),
            "up_proj": (self.inner, self.hidden),
            "gate_up_proj": (2 * self.inner, self.hidden),
            "down_proj": (self.hidden, self.inner),
            "embed_tokens": (self.vocabulary, self.hidden),
            "lm_head": (self.vocabulary, self.hidden),
        }[name]

    @staticmethod
    def module(layer: int, name: str) -> str:
        """Return the full name of a projection."""
        return f"model.layers.{layer}.{'self_attn' if name[0] in 'qkvo' else 'mlp'}.{name}"


TINY_LLAMA = BaseShape()
TINY_QWEN2 = BaseShape(model_type="qwen2")
TINY_PHI3 = BaseShape(model_type="phi3", tied=True)
TensorData = tuple[str, tuple[int, ...], bytes]


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """An adapter as the bytes of its files; each method gives a changed copy."""

    files: Mapping[str, bytes]

    @property
    def config(self) -> dict[str, object]:
        """adapter_config.json, decoded."""
        config: dict[str, object] = json.loads(self.files[adapter.CONFIG])
        return config

    @property
    def sha256(self) -> dict[str, str]:
        """The hex sha256 of each file."""
        return {name: hashlib.sha256(data).hexdigest() for name, data in self.files.items()}

    @property
    def digest(self) -> str:
        """The adapter's digest."""
        return adapter.digest(self.sha256)

    def write(self, folder: Path) -> Path:
        """Write the files into *folder*, made if it is missing, and return it."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in self.files.items():
            (folder / name).write_bytes(data)
        return folder

    def parts(self) -> adapter.Adapter:
        """Return the adapter as the operator has it: config, sizes, hashes and headers."""
        facts = {name: adapter.FileFacts(len(data), self.sha256[name]) for name, data in self.files.items()}
        weights = adapter.weights_files(self.files)
        headers = {name: self.files[name] for name in weights if name.endswith(".safetensors")}
        index = self.files.get("adapter_model.safetensors.index.json")
        return adapter.from_parts(self.files.get(adapter.CONFIG), files=facts, headers=headers, index_bytes=index)

    def with_file(self, name: str, data: bytes | None) -> "AdapterFiles":
        """Replace a file, or leave it out."""
        files = {other: content for other, content in self.files.items() if other != name}
        return AdapterFiles(files if data is None else {**files, name: data})

    def truncated(self, count: int = 1) -> "AdapterFiles":
        """Cut the last *count* bytes off the weights."""
        return self.with_file(adapter.WEIGHTS, self.files[adapter.WEIGHTS][:-count])

    def tampered(self) -> "AdapterFiles":
        """Change the lowest bit of the last value: still well formed, but not what was published."""
        data = bytearray(self.files[adapter.WEIGHTS])
        data[-4] ^= 1
        return self.with_file(adapter.WEIGHTS, bytes(data))

    def spoilt(self, *, nan: bool = False, value: float = float("inf")) -> "AdapterFiles":
        """Put NaN, or *value*, into the last element of the weights."""
        data = self.files[adapter.WEIGHTS]
        header = adapter.parse_header(data, len(data))
        dtype = list(header.tensors.values())[-1].dtype
        element = encode(np.array([np.nan if nan else value]), dtype)
        return self.with_file(adapter.WEIGHTS, data[: -len(element)] + element)

    def pickle_only(self) -> "AdapterFiles":
        """Have adapter_model.bin alone: the beginning of a pickle, which nothing may open."""
        return self.with_file(adapter.WEIGHTS, None).with_file("adapter_model.bin", b"\x80\x02.")


def make_adapter(
    *,
    base: BaseShape = TINY_LLAMA,
    rank: int = 8,
    targets: Sequence[str] = ("q_proj", "v_proj"),
    ranks: Mapping[str, int] | None = None,
    dtype: str = "F32",
    config: Mapping[str, object] | None = None,
    tensors: Mapping[str, TensorData | None] | None = None,
    seed: int = 0,
) -> AdapterFiles:
    """Make an adapter as PEFT saves it; *ranks* by target; *config* and *tensors* change, or (None) delete, entries."""
    random = np.random.default_rng(seed)
    made: dict[str, TensorData | None] = {}
    for module, name in _modules(base, targets):
        out, into = base.of(name)
        size = (ranks or {}).get(name, rank)
        embedding = name == "embed_tokens"
        pair = {"A": (size, out if embedding else into), "B": (into if embedding else out, size)}
        for half, shape in pair.items():
            tail = f"lora_embedding_{half}" if embedding else f"lora_{half}.weight"
            made[f"{PREFIX}{module}.{tail}"] = tensor(random.normal(scale=0.05, size=shape), dtype)
    made |= tensors or {}
    settings = _config(rank, targets) | dict(config or {})
    kept = {key: value for key, value in settings.items() if value is not None or key in _NULLS}
    return AdapterFiles(
        {
            adapter.CONFIG: json.dumps(kept, indent=2).encode(),
            adapter.WEIGHTS: safetensors({name: data for name, data in sorted(made.items()) if data is not None}),
        }
    )


def with_null(name: str, **config: object) -> AdapterFiles:
    """Make the plain adapter with null in a field, which `make_adapter` would leave out."""
    made = make_adapter(config=config)
    return made.with_file(adapter.CONFIG, json.dumps(made.config | {name: None}).encode())


def with_gain(gain: float, *, base: BaseShape = TINY_LLAMA, rank: int = 8) -> AdapterFiles:
    """Make an adapter of the gated MLP alone; each of its modules multiplies an input of ones by *gain* at most."""
    random = np.random.default_rng(0)
    made = {}
    for module, name in _modules(base, ("gate_proj", "up_proj", "down_proj")):
        out, into = base.of(name)
        largest = (gain / (2 * rank * into)) ** 0.5
        for half, shape in (("A", (rank, into)), ("B", (out, rank))):
            values = largest * random.uniform(-1, 1, size=shape)
            values.flat[0] = largest
            made[f"{PREFIX}{module}.lora_{half}.weight"] = tensor(values)
    return make_adapter(base=base, rank=rank, targets=("gate_proj", "up_proj", "down_proj"), tensors=made)


def tensor(values: np.ndarray, dtype: str = "F32") -> TensorData:
    """Encode an array as a tensor for `make_adapter(tensors=...)` and `safetensors()`."""
    return dtype, values.shape, encode(values, dtype)


def encode(values: np.ndarray, dtype: str) -> bytes:
    """Encode numbers as the bytes of *dtype*; float8 only for what its few bits can hold."""
    if dtype == "BF16":
        return (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    if dtype == "F8_E5M2":
        return (values.astype("<f2").view("<u2") >> 8).astype("u1").tobytes()
    if dtype == "F8_E4M3":
        # 2^-5 for each finite number: what matters in tests is whether it is finite.
        return np.where(np.isfinite(values), 0x10, 0x7F).astype("u1").tobytes()
    return values.astype(_AS_NUMPY[dtype]).tobytes()


_AS_NUMPY = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "u1",
}  # fmt: skip


def safetensors(tensors: Mapping[str, TensorData], *, extra: bytes = b"") -> bytes:
    """Write a safetensors file; *extra* bytes go after the last tensor."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, (dtype, shape, data) in tensors.items():
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + len(data)]}
        position += len(data)
    return with_header(json.dumps(entries), b"".join(data for _, _, data in tensors.values()) + extra)


def with_header(header: str | bytes, data: bytes = b"") -> bytes:
    """Put any text in the place of the header, padded to 8 bytes as safetensors does."""
    raw = header.encode() if isinstance(header, str) else header
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw + data


def base_header(base: BaseShape = TINY_LLAMA, *, dtype: str = "BF16") -> adapter.Header:
    """Return the header of the base's checkpoint, as a range request brings it."""
    tensors: dict[str, adapter.Tensor] = {}
    position = 0
    for name, shape in base.weights().items():
        end = position + int(np.prod(shape)) * 2
        tensors[name] = adapter.Tensor(dtype, shape, position, end)
        position = end
    return adapter.Header(1000, tensors)


def base_files(base: BaseShape = TINY_LLAMA, *, shards: int = 2) -> dict[str, bytes]:
    """Return a base's files: its config, and weights of zeros in shards."""
    names = sorted(base.weights())
    weights = {
        f"model-{number + 1:05}-of-{shards:05}.safetensors": safetensors(
            {name: tensor(np.zeros(base.weights()[name]), "F16") for name in names[number::shards]}
        )
        for number in range(shards)
    }
    return {"config.json": json.dumps(base.config()).encode(), **weights}


def other_base(base: BaseShape = TINY_LLAMA) -> BaseShape:
    """Return a base of half the width: its adapters load into *base* without a word and answer nonsense."""
    return replace(base, hidden=base.hidden // 2, inner=base.inner // 2, head_dim=base.head_dim // 2)


_NULLS = ("layers_to_transform", "layers_pattern", "modules_to_save", "megatron_config", "revision")


def _config(rank: int, targets: Sequence[str]) -> dict[str, object]:
    """Return adapter_config.json as PEFT 0.21 writes it, as far as anything reads it."""
    return {
        "base_model_name_or_path": "tiny/llama",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layer_replication": None,
        "layers_pattern": None,
        "layers_to_transform": None,
        "lora_alpha": 2 * rank,
        "lora_bias": False,
        "lora_dropout": 0.0,
        "megatron_config": None,
        "megatron_core": "megatron.core",
        "modules_to_save": None,
        "peft_type": "LORA",
        "peft_version": "0.21.2",
        "r": rank,
        "rank_pattern": {},
        "alpha_pattern": {},
        "revision": None,
        "target_modules": list(targets),
        "task_type": "CAUSAL_LM",
        "trainable_token_indices": None,
        "use_dora": False,
        "use_qalora": False,
        "use_rslora": False,
    }


def _modules(base: BaseShape, targets: Sequence[str]) -> list[tuple[str, str]]:
    ends = {"embed_tokens": "model.embed_tokens", "lm_head": "lm_head"}
    layered = [name for name in targets if name not in ends]
    modules = [(base.module(layer, name), name) for layer in range(base.layers) for name in layered]
    return modules + [(full, name) for name, full in ends.items() if name in targets]
