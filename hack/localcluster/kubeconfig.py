"""Files that tell kubectl and every client where the cluster is and who is calling.

Written by the control plane (administrator, users, ServiceAccounts) and for the nodes' agents.
"""

import json
from pathlib import Path

from localcluster.pki import Identity


def write(path: Path, *, server: str, ca: Path, token: str = "", identity: Identity | None = None) -> Path:
    """Write a kubeconfig with a bearer token or a client certificate; JSON is YAML too."""
    user: dict[str, str] = {"token": token} if token else {}
    if identity is not None:
        user = {"client-certificate": str(identity.certificate), "client-key": str(identity.key)}
    name = "lora-operator-local"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority": str(ca)}}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
        "current-context": name,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps(config, indent=2) + "\n")
    return path
