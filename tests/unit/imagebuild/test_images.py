"""An image's key follows everything that goes into it; what a build is lent says where packages come from."""

import json
import tarfile
from pathlib import Path

import pytest

from imagebuild import base, buildah, images, wrappers
from machine import ocitar


def test_the_tag_follows_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*images.PROJECT_FILES, "constraints/build.txt", "constraints/operator.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("[project]\nversion = '1'\n")
    dockerfile = tmp_path / images.OPERATOR.dockerfile
    source = tmp_path / "operator/lora_operator/plan.py"
    for file in (dockerfile, source):
        file.parent.mkdir(parents=True)
        file.write_text("a")
    monkeypatch.setattr(images, "REPOSITORY", tmp_path)
    before = images.content_tag([images.OPERATOR])
    (source.parent / "__pycache__").mkdir()
    (source.parent / "__pycache__/plan.pyc").write_text("compiled")

    assert images.content_tag([images.OPERATOR]) == before
    source.write_text("b")
    assert images.content_tag([images.OPERATOR]) != before
    assert before.startswith("1-")


def test_both_trainers_have_keys_of_their_own() -> None:
    assert images.content_key(images.THIN_TRAINER) != images.content_key(images.FULL_TRAINER)


def test_the_context_lets_in_every_file_that_an_image_is_made_of() -> None:
    let_in = {line[1:] for line in (images.REPOSITORY / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    assert {*images.SOURCES, "constraints/*.txt"} <= let_in
    assert {name for name in images.PROJECT_FILES if not name.startswith(".")} <= let_in


@pytest.mark.parametrize("image", [*images.LOCAL, images.MERGER, images.FULL_TRAINER])
def test_every_image_runs_as_a_numbered_user_other_than_root(image: images.Image) -> None:
    stages = (images.REPOSITORY / image.dockerfile).read_text().split("\nFROM ")
    ending = [stage for stage in stages if "ENTRYPOINT" in stage]
    assert ending
    assert all("USER 10001:10001" in stage for stage in ending)


def test_pip_in_a_build_uses_the_machines_index_and_proxy_and_nothing_else_of_its_settings() -> None:
    listing = (
        "global.index-url='https://mirror.test/simple'\n"
        "global.timeout='9'\n"
        ":env:.default-timeout='180'\n"
        "global.find-links='/somewhere'\n"
        "install.user='true'\n"
    )
    config = buildah.pip_config(listing, ca_bundle="/ca.crt").splitlines()
    assert config[:2] == ["[global]", "cert = /ca.crt"]
    assert "index-url = https://mirror.test/simple" in config
    assert config[-1] == "timeout = 180"
    assert not [line for line in config if "somewhere" in line or "user" in line]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("sources.list", "# deb http://old.test/debian bookworm main\ndeb https://m.test/debian bookworm main\n"),
        ("sources.list.d/debian.sources", "Types: deb\nURIs: https://m.test/debian/\nSuites: bookworm\n"),
    ],
)
def test_the_base_comes_from_the_mirror_that_apt_uses(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    assert base.mirror(tmp_path) == "https://m.test/debian"


def test_without_apt_debootstrap_takes_its_own_mirror(tmp_path: Path) -> None:
    assert base.mirror(tmp_path) is None


def test_without_root_the_way_around_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(PermissionError, match="docker or podman"):
        base.ensure()


def test_an_archive_names_its_image_and_keeps_the_files_times(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "module.py").write_text("x = 1\n")
    written = int((root / "module.py").stat().st_mtime)

    ocitar.write(tmp_path / "x.tar", reference="registry.local/x:1", root=root, config={"Cmd": ["python3"]})

    with tarfile.open(tmp_path / "x.tar") as archive:
        index = json.loads(read(archive, "index.json"))
        manifest = json.loads(read(archive, blob(index["manifests"][0])))
        config = json.loads(read(archive, blob(manifest["config"])))
        with tarfile.open(fileobj=archive.extractfile(blob(manifest["layers"][0]))) as layer:
            assert layer.getmember("module.py").mtime == written
    assert index["manifests"][0]["annotations"]["io.containerd.image.name"] == "registry.local/x:1"
    assert config["config"] == {"Cmd": ["python3"]}
    assert config["rootfs"]["diff_ids"] == [manifest["layers"][0]["digest"]]
    assert not list(tmp_path.glob("*.layer"))


def test_a_wrapper_survives_a_path_with_spaces() -> None:
    text = wrappers.script(
        wrappers.COMMANDS["lora-train"], checkout=Path("/a b"), root=Path("/c d"), environment=Path("/e")
    )
    assert "'/a b/hack/imagebuild/enter.sh' '/c d' /e ro /opt/lora/env/bin/python -m lora_trainer" in text


def blob(descriptor: dict[str, str]) -> str:
    return f"blobs/{descriptor['digest'].replace(':', '/')}"


def read(archive: tarfile.TarFile, name: str) -> bytes:
    stream = archive.extractfile(name)
    assert stream is not None
    return stream.read()
