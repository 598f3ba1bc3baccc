"""Which upstream tools the local cluster is made of, and how each Go module of tools is built.

Pure data for `parts`, which builds and caches. Versions live in the modules' go.mod files, nowhere else.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MODULES = Path(__file__).parent / "modules"
KUBERNETES_VERSION = "v1.37.2"


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One `go build` over a module of tools: the binaries it makes by name, and the package of each."""

    name: str
    module: str
    packages: Mapping[str, str]
    ldflags: str = "-s -w"
    tags: str = ""
    cgo: bool = False
    debian: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder of the module's go.mod and go.sum."""
        return MODULES / self.module

    def key(self) -> str:
        """Return a short hash that changes with the pinned versions and with the way of building."""
        how = f"{sorted(self.packages.items())}{self.ldflags}{self.tags}{self.cgo}".encode()
        pins = (self.folder / "go.mod").read_bytes() + (self.folder / "go.sum").read_bytes()
        return hashlib.sha256(how + pins).hexdigest()[:12]


def _kubernetes(*commands: str) -> dict[str, str]:
    return {command: f"k8s.io/kubernetes/cmd/{command}" for command in commands}


CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "helm")
NODE = ("kubelet", "kube-proxy", "containerd", "containerd-shim-runc-v2", "ctr", "runc", "ptp", "host-local")
ADDONS = ("coredns", "local-path-provisioner")

RECIPES = (
    Recipe(
        name="kubernetes",
        module="kubernetes",
        packages={
            "etcd": "go.etcd.io/etcd/server/v3",
            "helm": "helm.sh/helm/v4/cmd/helm",
            **_kubernetes("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"),
            **_kubernetes("kubelet", "kube-proxy"),
        },
        # Without its version every component would call itself v0.0.0-master.
        ldflags=f"-s -w -X k8s.io/component-base/version.gitVersion={KUBERNETES_VERSION}",
    ),
    Recipe(
        name="node",
        module="node",
        packages={
            "containerd": "github.com/containerd/containerd/v2/cmd/containerd",
            "containerd-shim-runc-v2": "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
            "ctr": "github.com/containerd/containerd/v2/cmd/ctr",
            "ptp": "github.com/containernetworking/plugins/plugins/main/ptp",
            "host-local": "github.com/containernetworking/plugins/plugins/ipam/host-local",
        },
        tags="no_btrfs,no_aufs,no_zfs",
    ),
    # runc alone needs cgo (its first stage is C), and libseccomp for the RuntimeDefault profile.
    Recipe(
        name="runc",
        module="node",
        packages={"runc": "github.com/opencontainers/runc"},
        ldflags="-s -w -extldflags -static",
        tags="seccomp,netgo,osusergo",
        cgo=True,
        debian=("gcc", "libc6-dev", "pkg-config", "libseccomp-dev"),
    ),
    Recipe(name="coredns", module="coredns", packages={"coredns": "github.com/coredns/coredns"}),
    Recipe(
        name="local-path",
        module="local-path",
        packages={"local-path-provisioner": "github.com/rancher/local-path-provisioner"},
    ),
)


def recipe_of(binary: str) -> Recipe:
    """Return the recipe that makes this binary."""
    for recipe in RECIPES:
        if binary in recipe.packages:
            return recipe
    raise KeyError(f"no recipe makes {binary}")
