"""The base model as the rules see it: the shape of every module that a LoRA can sit on.

Best made from the base's own safetensors headers, which is exact for every architecture, else derived from its
config.json for the families of `families.py`. What can't be told is None, never a guess: the caller then says that
shapes can't be checked.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from .families import DEFAULT_TARGETS, FAMILIES, family_of
from .family import Family, blocks_of
from .header import Header, Tensor

# Dtypes in which several numbers may share one element, so that the shape is not the module's.
_PACKED = frozenset({"U8", "I8", "U16", "I16", "I32", "U32", "I64", "U64", "BOOL"})
_PACKED_NAMES = (".qweight", ".qzeros", ".weight_packed")
_DIMENSION_LIMIT = 2**31


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a weight of the base lies: *start* is its first byte in the file at *path*."""

    path: Path
    start: int
    tensor: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A decoder. *modules* maps a module's full name to its weight's (rows, columns) = (out, in)."""

    layers: int
    modules: Mapping[str, tuple[int, int]]
    # Its other modules, as far as they are known: PEFT refuses a config that means one of them.
    others: frozenset[str] = frozenset()
    # Those on which PEFT puts a LoRA where the config means them, and vLLM takes none: what sees, and the like.
    unserved: frozenset[str] = frozenset()
    embedding: str = "model.embed_tokens"
    head: str = "lm_head"
    # The beginning of its modules' names before transformers 4.52, and now; PEFT and vLLM take both.
    formerly: tuple[str, str] = ("", "")
    # On which of embedding and head vLLM takes a LoRA; None: an architecture that is not known.
    takes: frozenset[str] | None = None
    # Whether its modules are surely called as PEFT calls them: a checkpoint of an unknown architecture may differ.
    named: bool = True
    # transformers' model_type, where it is one of `families.FAMILIES`.
    family: str | None = None
    # Where the values of its embedding and head lie, by each name that an adapter may have for them; if that is known.
    stored: Mapping[str, Stored] = field(default_factory=dict, compare=False)

    @property
    def serves_embeddings(self) -> bool | None:
        """Whether vLLM takes a LoRA on the embedding; None for an unknown family."""
        return None if self.takes is None else self.embedding in self.takes

    def present_name(self, module: str) -> str:
        """Return what transformers calls *module* now, where that is a name that PEFT and vLLM know to be older."""
        old, new = self.formerly
        return new + module.removeprefix(old) if old and module.startswith(old) else module

    @property
    def default_targets(self) -> tuple[str, ...]:
        """What PEFT takes for null as target_modules; nothing where it takes none."""
        return DEFAULT_TARGETS.get(self.family or "", ())

    @property
    def engine_serves_lora(self) -> bool:
        """Whether vLLM's own class for the architecture takes LoRAs at all, as far as that is known."""
        return self.family is None or FAMILIES[self.family].serves_lora


def base_from_config(config: Mapping[str, object]) -> Base | None:
    """Derive the shapes from a config.json as transformers would; None for a family or a config we don't know."""
    family = family_of(config)
    derived = family.shapes(config) if family else None
    if family is None or derived is None:
        return None
    layers, modules = derived
    return _base(layers, modules, family, config)


def base_from_headers(headers: Iterable[Header], config: Mapping[str, object] | None = None) -> Base | None:
    """Take the shapes from the headers of all of the base's shards; None for packed weights, or a missing shard.

    *config* tells the family, and with it how modules are called and what vLLM takes; without it only Llama's layout
    can be told to be whole.
    """
    matrices: dict[str, tuple[int, int]] = {}
    norms: set[str] = set()
    for name, shape in _weights(headers):
        if shape is None:
            return None
        if len(shape) == 1:
            norms.add(name)
        else:
            matrices[name] = shape[0], shape[1]
    family = _family(config or {})
    if family:
        return base_from_shapes(_as_named(matrices, family), config)
    unknown = base_from_shapes(matrices, config)
    return unknown and replace(unknown, others=unknown.others | norms)


def find_stored(headers: Mapping[Path, Header], config: Mapping[str, object]) -> Mapping[str, Stored]:
    """Return where embedding and head lie in the files whose *headers* are given."""
    family = _family(config) or FAMILIES["llama"]
    places: dict[str, Stored] = {}
    for path, header in headers.items():
        for name, tensor in header.tensors.items():
            module = name.removesuffix(".weight")
            if module != name and (named := _called(module, family)) in (family.embedding, family.head):
                places[named] = Stored(path, header.data_start + tensor.begin, tensor)
    if family.embedding in places:
        places.setdefault(family.head, places[family.embedding])
    old, new = family.formerly
    return places | {name.replace(new, old, 1): place for name, place in places.items() if new and name.startswith(new)}


def base_from_shapes(shapes: Mapping[str, Sequence[int]], config: Mapping[str, object] | None = None) -> Base | None:
    """Make a base of the (out, in) of its modules, called as PEFT calls them: what an agent reports of its headers."""
    named = {
        name: (shape[0], shape[1])
        for name, shape in shapes.items()
        if len(shape) == 2 and all(0 < size < _DIMENSION_LIMIT for size in shape)
    }
    config = config or {}
    family = _family(config)
    if family is None:
        return _unknown(named)
    derived = family.shapes(config) if config else _llama_of(named)
    if derived is None:
        return None
    layers, expected = derived
    # Tied: the head is the embedding, stored once.
    if family.embedding in named:
        named.setdefault(family.head, named[family.embedding])
    if not expected.keys() <= named.keys():
        return None
    return _base(layers, {name: named[name] for name in expected}, family, config)


def _family(config: Mapping[str, object]) -> Family | None:
    return family_of(config) if config.get("model_type") else FAMILIES["llama"]


def _base(layers: int, modules: Mapping[str, tuple[int, int]], family: Family, config: Mapping[str, object]) -> Base:
    known = config.get("model_type")
    return Base(
        layers=layers,
        modules=modules,
        others=family.others(config, layers),
        unserved=family.unserved_modules(config, layers),
        formerly=family.formerly,
        embedding=family.embedding,
        head=family.head,
        takes=family.takes if known else None,
        family=known if isinstance(known, str) else None,
    )


def _unknown(matrices: Mapping[str, tuple[int, int]]) -> Base | None:
    """Make a base of an architecture that is not known: its checkpoint's names and shapes, and nothing more."""
    layers = {int(part) for name in matrices for part in name.split(".") if part.isdigit() and len(part) < 5}
    return (
        Base(layers=max(layers) + 1, modules=matrices, others=frozenset(blocks_of(matrices)), named=False)
        if layers
        else None
    )


def _as_named(matrices: Mapping[str, tuple[int, int]], family: Family) -> dict[str, tuple[int, int]]:
    """Call the checkpoint's modules what PEFT calls them, and turn those that are kept as (in, out)."""
    named = {}
    for name, (rows, columns) in matrices.items():
        full = _called(name, family)
        turned = family.transposed and full.startswith(f"{family.prefix}.")
        named[full] = (columns, rows) if turned else (rows, columns)
    # GPT-NeoX's checkpoints call the head otherwise than transformers 5 does.
    if "embed_out" in named:
        named.setdefault(family.head, named["embed_out"])
    return named


def _called(name: str, family: Family) -> str:
    """Return what PEFT calls a module of the checkpoint."""
    old, new = family.formerly
    if old:
        name = name.replace(old, new, 1)
    stem = family.prefix.partition(".")[0]
    outside = (family.head, "lm_head", "embed_out")
    return name if name.startswith(f"{stem}.") or name in outside else f"{stem}.{name}"


def _llama_of(named: Mapping[str, tuple[int, int]]) -> tuple[int, dict[str, tuple[int, int]]] | None:
    """Tell what a checkpoint without a config has to hold, if all of it is a Llama's."""
    llama = FAMILIES["llama"]
    numbers = {name.split(".")[2] for name in named if name.startswith(f"{llama.prefix}.")}
    layers = len(numbers)
    modules = {f"{llama.prefix}.{layer}.{name}": (0, 0) for layer in range(layers) for name in llama.layout}
    modules |= {llama.embedding: (0, 0), llama.head: (0, 0)}
    return (layers, modules) if layers and named.keys() <= modules.keys() else None


def _weights(headers: Iterable[Header]) -> Iterator[tuple[str, tuple[int, ...] | None]]:
    """Yield each module that has a matrix, or a norm's row; a shape of None where it is packed and tells nothing."""
    for header in headers:
        for name, tensor in header.tensors.items():
            if name.endswith(_PACKED_NAMES):
                yield name, None
            elif name.endswith(".weight") and len(tensor.shape) in (1, 2):
                packed = len(tensor.shape) == 2 and tensor.dtype in _PACKED
                yield name.removesuffix(".weight"), None if packed else tensor.shape
