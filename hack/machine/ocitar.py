"""A root file system as an OCI archive of one layer, for `buildah pull` and `ctr images import`.

Written by hand because the base has no builder under it yet; every other image is a Dockerfile's.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

EPOCH = "1970-01-01T00:00:00Z"
_OCI = "application/vnd.oci.image"


def write(archive: Path, *, reference: str, root: Path, config: Mapping[str, object]) -> None:
    """Write `root` as the image `reference`; a root that has not changed gives the same layer."""
    layer = archive.with_name(f"{archive.name}.layer")
    try:
        _pack(layer, root)
        with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
            _write_parts(tar, reference=reference, layer=layer, config=config)
    finally:
        layer.unlink(missing_ok=True)


def _write_parts(tar: tarfile.TarFile, *, reference: str, layer: Path, config: Mapping[str, object]) -> None:
    digest = _sha256(layer)
    tar.add(layer, arcname=f"blobs/sha256/{digest}")
    # Without `created` and a history entry, buildah fails later, when it caches layers on top of this one.
    about = {
        "architecture": "amd64",
        "os": "linux",
        "created": EPOCH,
        "config": dict(config),
        "history": [{"created": EPOCH, "created_by": "lora-operator base"}],
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": _blob(tar, about, media_type=f"{_OCI}.config.v1+json"),
        "layers": [_descriptor(f"{_OCI}.layer.v1.tar", digest=digest, size=layer.stat().st_size)],
    }
    described = _blob(tar, manifest, media_type=f"{_OCI}.manifest.v1+json")
    described["annotations"] = {
        "io.containerd.image.name": reference,
        "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
    }
    index = {"schemaVersion": 2, "mediaType": f"{_OCI}.index.v1+json", "manifests": [described]}
    _file(tar, "index.json", json.dumps(index).encode())
    _file(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')


def _blob(tar: tarfile.TarFile, content: Mapping[str, object], *, media_type: str) -> dict[str, object]:
    data = json.dumps(content, sort_keys=True).encode()
    digest = hashlib.sha256(data).hexdigest()
    _file(tar, f"blobs/sha256/{digest}", data)
    return _descriptor(media_type, digest=digest, size=len(data))


def _descriptor(media_type: str, *, digest: str, size: int) -> dict[str, object]:
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}


def _file(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def _pack(layer: Path, root: Path) -> None:
    with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(root.iterdir()):
            tar.add(path, arcname=path.name, filter=_whole_seconds)


def _whole_seconds(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    # Times are kept: Python takes a .pyc for stale when its source's time differs, and would compile at every start.
    entry.mtime = int(entry.mtime)
    return entry


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
