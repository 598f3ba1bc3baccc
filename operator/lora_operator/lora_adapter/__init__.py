"""The LoRAAdapter pass: resolve, judge, say what is wanted, tell how far it is."""

from .reconcile import reconcile

__all__ = ["reconcile"]
