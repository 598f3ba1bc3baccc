"""Container images without a registry: a root file system becomes an OCI tar that containerd imports.

Holds the images of the cluster's own parts (pause, DNS, volumes), each a static binary or a few of the machine's
programs; they are made once into the cache.
"""

import hashlib
import io
import json
import platform
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from localcluster import parts
from localcluster.node import PAUSE
from localcluster.recipes import recipe_of

COREDNS = "registry.local/coredns:1"
PROVISIONER = "registry.local/local-path-provisioner:1"
SHELL = "registry.local/shell:1"

LONG_AGO = "2026-01-01T00:00:00Z"  # the same bytes for the same content
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def pause_image() -> Path:
    """Return the image of what holds a pod's namespaces open."""
    program = parts.pause()
    return _once(program.parent / "image.tar", PAUSE, {"/pause": program}, entrypoint=["/pause"])


def coredns_image() -> Path:
    """Return the image of the cluster's DNS server."""
    return _image_of("coredns", COREDNS)


def provisioner_image() -> Path:
    """Return the image of what makes PersistentVolumeClaims bind."""
    return _image_of("local-path-provisioner", PROVISIONER)


def shell_image() -> Path:
    """Return the image in which the provisioner makes and removes a volume's folder."""
    return program_image(SHELL, ["sh", "mkdir", "rm"])


def program_image(name: str, programs: Sequence[str]) -> Path:
    """Return an image of a few of this machine's own programs, with the libraries that they are linked with."""
    found = {f"/bin/{program}": _program(program) for program in programs}
    libraries = {str(library): library for program in found.values() for library in _libraries(program)}
    files = {**found, **libraries}
    contents = (f"{inside} {file.stat().st_mtime_ns} {file.stat().st_size}" for inside, file in sorted(files.items()))
    stamp = hashlib.sha256("\n".join((name, *contents)).encode()).hexdigest()[:12]
    return _once(parts.cache_root() / f"programs-{stamp}" / "image.tar", name, files, entrypoint=[next(iter(found))])


def write_oci_tar(out: Path, *, name: str, rootfs: Path, config: Mapping[str, object]) -> None:
    """Write a root file system as an image of one layer, under a full name with its tag."""
    architecture = ARCHITECTURES.get(platform.machine(), platform.machine())
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        layer = Path(folder) / "layer.tar"
        with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as tar:
            for entry in sorted(rootfs.iterdir()):
                tar.add(entry, arcname=entry.name, filter=_timeless)
        with layer.open("rb") as content:
            layer_digest = f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"
        # buildah reuses layers only of an image that tells when and how it came to be.
        image = _json(
            {
                "architecture": architecture,
                "os": "linux",
                "created": LONG_AGO,
                "config": dict(config),
                "history": [{"created": LONG_AGO, "created_by": "lora-operator local cluster"}],
                "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
            }
        )
        layer_entry = _descriptor("layer.v1.tar", layer_digest, layer.stat().st_size)
        manifest = _json(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": _descriptor("config.v1+json", _digest(image), len(image)),
                "layers": [layer_entry],
            }
        )
        names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
        described = _descriptor("manifest.v1+json", _digest(manifest), len(manifest))
        here = {"platform": {"architecture": architecture, "os": "linux"}, "annotations": names}
        index = _json({"schemaVersion": 2, "manifests": [{**described, **here}]})
        partial = Path(folder) / "image.tar"
        with tarfile.open(partial, "w") as tar:
            _add(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
            _add(tar, "index.json", index)
            _add(tar, _blob(_digest(manifest)), manifest)
            _add(tar, _blob(_digest(image)), image)
            tar.add(layer, arcname=_blob(layer_digest))
        partial.rename(out)


def _image_of(binary: str, name: str) -> Path:
    program = parts.ensure([binary])[binary]
    out = parts.cache_root() / f"{recipe_of(binary).name}-{recipe_of(binary).key()}" / f"{binary}.tar"
    return _once(out, name, {f"/{binary}": program}, entrypoint=[f"/{binary}"])


def _once(out: Path, name: str, files: Mapping[str, Path], *, entrypoint: Sequence[str]) -> Path:
    """Make an image of a few files unless it is in the cache."""
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent) as folder:
            for inside, file in files.items():
                target = Path(folder) / inside.lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
            Path(folder, "tmp").mkdir(mode=0o1777)
            config = {"Entrypoint": list(entrypoint), "Env": ["PATH=/bin"]}
            write_oci_tar(out, name=name, rootfs=Path(folder), config=config)
    return out


def _program(name: str) -> Path:
    path = shutil.which(name)
    if path is None:
        raise FileNotFoundError(f"{name} is not on PATH")
    return Path(path).resolve()


def _libraries(program: Path) -> list[Path]:
    """Return the shared libraries that a program is linked with, its loader among them."""
    told = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False).stdout
    return [Path(match) for match in re.findall(r"(?:=> |^\s*)(/\S+) \(0x", told, flags=re.MULTILINE)]


def _timeless(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mtime = 0
    return entry


def _json(content: Mapping[str, object]) -> bytes:
    return json.dumps(content).encode()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _descriptor(kind: str, digest: str, size: int) -> dict[str, object]:
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest, "size": size}


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
