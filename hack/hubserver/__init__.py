"""A small faithful Hugging Face Hub for tests and the local cluster: repositories, commits, LFS, permissions, faults.

It speaks what `huggingface_hub` speaks, without Xet (set HF_HUB_DISABLE_XET=1 in its clients).
In a test: `async with hubserver.serve() as hub` or, for synchronous code, `with hubserver.running() as hub`.
"""

from hubserver.gitobjects import RepoKey
from hubserver.server import Hub, running, serve
from hubserver.tokens import DEFAULT_TOKENS, Token

__all__ = ["DEFAULT_TOKENS", "Hub", "RepoKey", "Token", "running", "serve"]
