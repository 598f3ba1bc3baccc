"""Debian packages that the images and the local cluster need, installed where that is possible.

Sits in front of everything that shells out to ip, nft, buildah or debootstrap: either the package is there
afterwards, or the error names it, so that nobody meets a bare "command not found" later.
"""

import functools
import os
import shutil
import subprocess

from machine import lock
from machine.progress import console


class MissingPackagesError(RuntimeError):
    """Packages are missing and cannot be installed from here."""


def ensure(*packages: str) -> None:
    """Install the given Debian packages if they are missing, or say by name what to install."""
    missing = [package for package in packages if not installed(package)]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise MissingPackagesError(
            f"please install the Debian packages {' '.join(missing)} (or your distribution's equivalents): "
            "they can be installed automatically only by root with apt-get"
        )
    with lock.held(lock.meeting_place() / "apt.lock"):
        _update()
        console.print(f"installing Debian packages: {' '.join(missing)}")
        _apt_get("install", "--yes", "--no-install-recommends", *missing)


def ensure_programs(**packages: str) -> None:
    """Install the Debian package of each program that is not on PATH (program="package")."""
    ensure(*(package for program, package in packages.items() if shutil.which(program) is None))


def installed(package: str) -> bool:
    """Tell whether dpkg, where there is one, has this package installed."""
    if shutil.which("dpkg-query") is None:
        return False
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout == "installed"


@functools.cache
def _update() -> None:
    console.print("refreshing the lists of Debian packages")
    _apt_get("update")


def _apt_get(*arguments: str) -> None:
    # The lock timeout waits for someone else's apt instead of failing beside it.
    command = ["apt-get", "--quiet", "-o", "DPkg::Lock::Timeout=300", *arguments]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MissingPackagesError(f"{' '.join(command)} failed:\n{done.stderr.strip()[-2000:]}")
