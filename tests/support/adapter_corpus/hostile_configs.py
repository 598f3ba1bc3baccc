"""adapter_config.json as a weapon: what hangs a reader, breaks its output, or is another text for another reader."""

import json

from lora_operator.adapter import CONFIG, Code
from support.adapter_corpus.case import Case, bad, with_config
from support.adapters import AdapterFiles, make_adapter

_ENDLESS = "(((.*)*)*)*X$"


def _text(data: bytes) -> AdapterFiles:
    return make_adapter().with_file(CONFIG, data)


def _json(**changes: object) -> AdapterFiles:
    return _text(json.dumps(make_adapter().config | changes).encode())


_NO_OBJECTS = (
    bad("an empty config", Code.MALFORMED_CONFIG, lambda: _text(b"")),
    bad("a config that is a list", Code.MALFORMED_CONFIG, lambda: _text(b"[]")),
    bad("a config that is null", Code.MALFORMED_CONFIG, lambda: _text(b"null")),
    bad("a config that is a number", Code.MALFORMED_CONFIG, lambda: _text(b"8")),
    bad("a config with an open end", Code.MALFORMED_CONFIG, lambda: _text(b"{")),
    bad("a config in Python's notation", Code.MALFORMED_CONFIG, lambda: _text(b"{'r': 8}")),
    bad("a config that is not UTF-8", Code.MALFORMED_CONFIG, lambda: _text(b'{"r": "\xff"}')),
    bad("a config in UTF-16", Code.MALFORMED_CONFIG,
        lambda: _text(make_adapter().files[CONFIG].decode().encode("utf-16"))),
    bad("a config with a byte order mark", Code.MALFORMED_CONFIG,
        lambda: _text(b"\xef\xbb\xbf" + make_adapter().files[CONFIG])),
    bad("a config with something after its end", Code.MALFORMED_CONFIG,
        lambda: _text(make_adapter().files[CONFIG] + b"{}")),
)  # fmt: skip

_NUMBERS = (
    bad("alpha NaN", Code.MALFORMED_CONFIG, with_config(lora_alpha=float("nan")), poisonous=True),
    bad("alpha Infinity", Code.MALFORMED_CONFIG, with_config(lora_alpha=float("inf")), poisonous=True),
    bad("alpha 1e300", Code.MALFORMED_CONFIG, with_config(lora_alpha=1e300), poisonous=True),
    bad("alpha of 400 digits", Code.MALFORMED_CONFIG, with_config(lora_alpha=10**400)),
    bad("alpha 1e999", Code.MALFORMED_CONFIG, lambda: _text(
        b'{"peft_type": "LORA", "r": 8, "target_modules": ["q_proj", "v_proj"], "lora_alpha": 1e999}'), poisonous=True),
    bad("NaN in alpha_pattern", Code.MALFORMED_CONFIG, with_config(alpha_pattern={"q_proj": float("nan")}),
        poisonous=True),
    bad("NaN in a field that nobody reads", Code.MALFORMED_CONFIG, with_config(eva_config={"rho": float("nan")}),
        askable=False, why="another reader of JSON refuses the file"),
    bad("a rank of 2^63", Code.MALFORMED_CONFIG, with_config(r=2**63)),
    bad("a rank of 10,000 digits", Code.MALFORMED_CONFIG, lambda: _text(b'{"r": ' + b"9" * 10_000 + b"}")),
)  # fmt: skip

_TEXTS = (
    bad("half a surrogate pair in the bias", Code.MALFORMED_CONFIG, lambda: _json(init_lora_weights="\ud800x"),
        poisonous=True),
    bad("half a surrogate pair in a name", Code.MALFORMED_CONFIG, lambda: _json(**{"\udfff": 1}), askable=False,
        why="it hangs an engine whose message quotes it"),
    bad("half a surrogate pair deep inside", Code.MALFORMED_CONFIG, lambda: _json(eva_config={"a": ["\ud800"]}),
        askable=False, why="it hangs an engine whose message quotes it"),
    bad("nested 100,000 deep", Code.MALFORMED_CONFIG, lambda: _text(b'{"a":' * 100_000 + b"1" + b"}" * 100_000)),
    bad("two megabytes", Code.MALFORMED_CONFIG,
        lambda: _text(make_adapter().files[CONFIG].replace(b"{", b'{"a": "' + b"x" * 2 * 2**20 + b'", ', 1)),
        askable=False, why="nobody needs that much, and it costs every reader"),
    bad("a million values", Code.MALFORMED_CONFIG, lambda: _text(b"[" + b"1," * 500_000 + b"1]")),
    bad("a rank twice, the last one wrong", Code.RANK_MISMATCH,
        lambda: _text(make_adapter().files[CONFIG].rstrip().removesuffix(b"}") + b', "r": 4}')),
)  # fmt: skip

# They hang PEFT, so PEFT's answers can't be had.
_REGEXES = tuple(
    bad(f"an endless regex in {field}: {pattern}", Code.PATTERN_NOT_SUPPORTED,
        lambda field=field, pattern=pattern: _json(  # type: ignore[misc]
            **{field: {pattern: 8} if field.endswith("_pattern") else pattern}),
        askable=False, why="PEFT never ends with it")
    for field in ("rank_pattern", "alpha_pattern", "target_modules", "exclude_modules")
    for pattern in (_ENDLESS, "(a+)+$", "([a-z_.0-9]+)*!", "(.|.)*!", "(.|.)" * 40 + "!", ".?" * 40 + "!",
                    r"(?<=a)(a+)+$")
)  # fmt: skip

_MANY = (
    bad("a regex of 100,000 characters", Code.PATTERN_NOT_SUPPORTED, lambda: _json(target_modules="q_proj|" * 15_000),
        askable=False, why="what it costs to run has no bound"),
)  # fmt: skip

HOSTILE_CONFIGS: tuple[Case, ...] = (*_NO_OBJECTS, *_NUMBERS, *_TEXTS, *_REGEXES, *_MANY)
