"""The rows that trl gets of a data set, by each way that one can come; in the heavy environment.

Reads rows of format Messages from stdin; prints `{"jsonl": rows, "parquet": rows, "Hub's jsonl": rows, ...}`, and, for
a Hub that does not give them, the sentence that the program says.
"""

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import hubserver


def main(asked: list[dict[str, object]], folder: Path, hub: hubserver.Hub) -> dict[str, object]:
    """Load them each way."""
    import datasets
    from huggingface_hub import HfApi

    from lora_trainer import data
    from lora_trainer.hub import Patience
    from lora_trainer.result import Refusal
    from lora_trainer.spec import TrainSpec

    patience, lines = Patience(seconds=0), "".join(json.dumps(row) + "\n" for row in asked)
    (folder / "rows.jsonl").write_text(lines)
    datasets.Dataset.from_list(asked).to_parquet(folder / "rows.parquet")

    def load(source: Mapping[str, object]) -> object:
        spec = {"baseModel": {"name": "acme/tiny"}, "dataset": {"source": source, "format": "Messages"}}
        try:
            return list(data.load(TrainSpec.model_validate(spec), folder=folder, token=None, patience=patience).dataset)
        except Refusal as refusal:
            return str(refusal)

    found: dict[str, object] = {kind: load({"path": str(folder / f"rows.{kind}")}) for kind in ("jsonl", "parquet")}
    for kind in ("jsonl", "parquet"):
        hub.add_dataset(f"acme/{kind}", {f"train.{kind}": (folder / f"rows.{kind}").read_bytes()})
        found[f"Hub's {kind}"] = load({"hub": {"repo": f"acme/{kind}"}})

    rows = {"hub": {"repo": "acme/jsonl"}}
    hub.fault("/api/datasets/acme/jsonl/auth-check", status=403, code="GatedRepo")
    found["gated"] = load(rows)
    HfApi(endpoint=hub.url, token="hf_write").upload_file(  # what was loaded before is of the commit before
        path_or_fileobj=lines.encode() * 2, path_in_repo="train.jsonl", repo_id="acme/jsonl", repo_type="dataset"
    )
    hub.fault("/datasets/acme/jsonl/resolve/", status=403, times=-1)
    found["not to be had"] = load(rows)
    return found


if __name__ == "__main__":
    with hubserver.running() as running, tempfile.TemporaryDirectory() as scratch:
        # Before the libraries are imported, which read it once.
        os.environ |= {"HF_ENDPOINT": running.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        print("\n" + json.dumps(main(json.load(sys.stdin), Path(scratch), running)))
