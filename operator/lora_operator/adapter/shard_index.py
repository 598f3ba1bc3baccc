"""The index of weights in several files: read as hostile input, for the names in it are paths to whoever follows them.

Neither vLLM nor PEFT loads such an adapter, so it is refused in any case; this says what is wrong with it beside that.
"""

import json
from collections.abc import Mapping

from .findings import Code, Findings
from .header import Header
from .names import INDEX, is_shard

INDEX_LIMIT = 16 * 1024 * 1024


def check_index(data: bytes, headers: Mapping[str, Header], findings: Findings) -> None:
    """Report an index that is none, names a file that is no shard beside it, or places a tensor where it is not."""
    places = _decode(data, findings)
    for tensor, shard in (places or {}).items():
        if not isinstance(shard, str) or not is_shard(shard):
            _report(findings, tensor, shard, "the plain name of a shard, adapter_model-00001-of-00002.safetensors")
        elif shard not in headers or tensor not in headers[shard].tensors:
            _report(findings, tensor, shard, "a shard that is there, and has the tensor")


def _decode(data: bytes, findings: Findings) -> dict[str, object] | None:
    problem = f"{len(data)} bytes"
    if len(data) <= INDEX_LIMIT:
        try:
            decoded = json.loads(data.decode("utf-8"))
        except (ValueError, RecursionError):
            problem = "not JSON in UTF-8"
        else:
            places = decoded.get("weight_map") if isinstance(decoded, dict) else None
            if isinstance(places, dict):
                return places
            problem = "no weight_map in it"
    _report(findings, INDEX, problem, "a JSON object with a weight_map, at most 16 MiB")
    return None


def _report(findings: Findings, where: str, found: object, expected: str) -> None:
    findings.error(
        Code.MALFORMED_INDEX,
        where,
        found=found,
        expected=expected,
        fix="save the adapter into one file, without an index",
    )
