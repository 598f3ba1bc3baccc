"""The LoRAEngine pass: adopts a Deployment, writes its manifest (as the only one), and tells how it stands."""

from .reconcile import reconcile

__all__ = ["reconcile"]
