"""An OCI tar made from a folder is what the specification says, byte for byte the same each time."""

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

from localcluster import images


def made(folder: Path, out: str) -> Path:
    rootfs = folder / "rootfs"
    rootfs.mkdir(exist_ok=True)
    (rootfs / "program").write_text("#!/bin/sh\n")
    target = folder / out
    images.write_oci_tar(target, name="registry.local/thing:1", rootfs=rootfs, config={"Entrypoint": ["/program"]})
    return target


def blobs(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {member.name: stream.read() for member in tar if (stream := tar.extractfile(member)) is not None}


def followed(content: dict[str, bytes], descriptor: dict[str, Any]) -> bytes:
    blob = content["blobs/" + descriptor["digest"].replace(":", "/")]
    assert descriptor["digest"] == f"sha256:{hashlib.sha256(blob).hexdigest()}"
    assert descriptor["size"] == len(blob)
    return blob


def test_every_digest_and_size_is_true_from_index_to_layer(tmp_path: Path) -> None:
    content = blobs(made(tmp_path, "a.tar"))
    entry = json.loads(content["index.json"])["manifests"][0]
    assert entry["annotations"]["io.containerd.image.name"] == "registry.local/thing:1"
    manifest = json.loads(followed(content, entry))
    config = json.loads(followed(content, manifest["config"]))
    layer = followed(content, manifest["layers"][0])
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    assert config["config"]["Entrypoint"] == ["/program"]


def test_the_same_content_makes_the_same_bytes(tmp_path: Path) -> None:
    first = blobs(made(tmp_path, "a.tar"))
    (tmp_path / "rootfs" / "program").unlink()
    assert blobs(made(tmp_path, "b.tar")) == first
