"""What is in the cache is whole, is made once, and old versions make room."""

import os
from pathlib import Path

import pytest

from machine import cache


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_an_entry_is_built_once_and_found_again() -> None:
    built = []

    def build(partial: Path) -> None:
        built.append(partial)
        partial.mkdir()

    assert cache.build_once("thing-1", build) == cache.build_once("thing-1", build)
    assert len(built) == 1


def test_what_a_failed_build_left_is_not_taken_for_the_entry() -> None:
    def fails(partial: Path) -> None:
        partial.mkdir()
        (partial / "half").touch()
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        cache.build_once("thing-1", fails)

    entry = cache.build_once("thing-1", lambda partial: partial.mkdir())
    assert list(entry.iterdir()) == []


def test_only_the_entries_last_asked_for_are_kept() -> None:
    for age, name in enumerate(("new", "old", "older")):
        (cache.root() / f"thing-{name}").mkdir()
        os.utime(cache.root() / f"thing-{name}", (1000 - age, 1000 - age))
    cache.build_once("thing-older", lambda _: pytest.fail("it is there"))

    cache.keep_newest("thing-*", count=2)

    assert sorted(entry.name for entry in cache.root().glob("thing-*")) == ["thing-new", "thing-older"]


def test_the_digest_tells_where_one_part_ends_and_the_next_begins() -> None:
    assert cache.digest("ab", "c") != cache.digest("a", "bc")
    assert cache.digest("ab", b"c") == cache.digest(b"ab", "c")
