"""The rows that trl gets of a data set, by each way that one can come; in the heavy environment.

Reads rows of format Messages from stdin; prints `{"jsonl": rows, "parquet": rows, "Hub's jsonl": rows, ...}`.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import hubserver


def main(asked: list[dict[str, object]], folder: Path) -> dict[str, object]:
    """Load them each way."""
    import datasets

    from lora_trainer import data
    from lora_trainer.hub import Patience
    from lora_trainer.spec import TrainSpec

    lines = "".join(json.dumps(row) + "\n" for row in asked)
    (folder / "rows.jsonl").write_text(lines)
    datasets.Dataset.from_list(asked).to_parquet(folder / "rows.parquet")

    def load(source: dict[str, object]) -> list[object]:
        spec = {"baseModel": {"name": "acme/tiny"}, "dataset": {"source": source, "format": "Messages"}}
        return list(data.load(TrainSpec.model_validate(spec), folder=folder, token=None, patience=Patience()).dataset)

    found: dict[str, object] = {kind: load({"path": str(folder / f"rows.{kind}")}) for kind in ("jsonl", "parquet")}
    for kind in ("jsonl", "parquet"):
        HUB.add_dataset(f"acme/{kind}", {f"train.{kind}": (folder / f"rows.{kind}").read_bytes()})
        found[f"Hub's {kind}"] = load({"hub": {"repo": f"acme/{kind}"}})
    return found


if __name__ == "__main__":
    with hubserver.running() as HUB, tempfile.TemporaryDirectory() as scratch:
        # Before the libraries are imported, which read it once.
        os.environ |= {"HF_ENDPOINT": HUB.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        print("\n" + json.dumps(main(json.load(sys.stdin), Path(scratch))))
