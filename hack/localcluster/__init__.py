"""A real Kubernetes on one machine, without Docker, registry or account, for development and tests only.

`control_plane()` runs the control plane alone for tests that need no pods; `Cluster` adds real nodes.
"""

from localcluster.controlplane import ControlPlane, control_plane

__all__ = ["ControlPlane", "control_plane"]
