"""lora-merge: folds a LoRA adapter into its base as a stream, in memory that does not grow with the model.

    from lora_merger.merging import MergeRequest, merge
    merged = merge(MergeRequest(base="models/llama", adapter="hf://acme/support-lora@v1", out=Path("merged")))

`__main__.py` is the command; `merging.py` is the order of the steps; `plan.py` and `arithmetic.py` are pure. Nothing is
imported here: the command has something to settle before numpy is.
"""
