"""A tiny Llama-style model made on the spot: real enough for vLLM, transformers and peft, 4 MB, and nobody's weights.

`python -m tinymodel OUT_DIR` (under the heavy environment's Python) makes one; `tinymodel.cached.ensure()` (from any
Python) returns one from the cache.
"""

SEED = 0
HIDDEN = 128
