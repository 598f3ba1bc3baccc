"""The Pod pass: hands one engine pod its shards and hears its agent. One call in flight a pod."""

from .reconcile import reconcile

__all__ = ["reconcile"]
