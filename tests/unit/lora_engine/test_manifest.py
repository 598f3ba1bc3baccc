"""The manifest: what is held, which shards are written, and what stays because nobody can tell."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from lora_operator.lora_engine.secret import next_data
from lora_operator.lora_engine.shards import Holders, Manifest, plan_manifest
from lora_operator.protocol.manifest import SHARDS, Entry, File, Shard, shard_of
from support.objects import make_entry

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def held(*entries: Entry, revision: int = 5) -> dict[int, Shard | None]:
    """Return the eight shards that hold these entries."""
    by_name = sorted(entries, key=lambda entry: entry.engine_name)
    return {
        index: Shard(
            index=index,
            revision=revision,
            entries=tuple(entry for entry in by_name if shard_of(entry.engine_name) == index),
        )
        for index in range(SHARDS)
    }


def planned(holders: Holders, present: dict[int, Shard | None], *, adopted: bool = True) -> Manifest:
    return plan_manifest(holders, present, adopted=adopted, now=NOW)


def test_a_new_manifest_is_eight_shards_whose_revisions_are_above_any_before() -> None:
    manifest = planned({}, {}, adopted=False)

    assert [shard.index for shard in manifest.writes] == list(range(SHARDS))
    assert {shard.revision for shard in manifest.writes} == {int(NOW.timestamp())}


def test_only_the_shard_that_changes_is_written_one_revision_higher() -> None:
    old, new = make_entry("support"), make_entry("sales")

    manifest = planned({"uid-support": None, "uid-sales": (new,)}, held(old))

    [shard] = manifest.writes
    assert shard.index == shard_of(new.engine_name)
    assert shard.revision == 6
    assert new in shard.entries
    assert [owner.name for owner in manifest.changed] == ["sales"]


def test_what_an_adapter_has_not_said_yet_is_what_the_manifest_has() -> None:
    entry = make_entry()

    assert planned({"uid-support": None}, held(entry)).entries == (entry,)
    assert planned({"uid-support": None}, held(entry)).writes == ()


def test_an_adapter_that_wants_nothing_or_is_gone_is_dropped() -> None:
    entry = make_entry()

    for holders in ({"uid-support": ()}, {}):
        [shard] = planned(holders, held(entry)).writes
        assert shard.entries == ()


def test_the_old_version_stays_as_long_as_it_is_wanted() -> None:
    old, new = make_entry(version="a"), make_entry(version="b")

    assert set(planned({"uid-support": (old, new)}, held(old)).entries) == {old, new}
    assert planned({"uid-support": (new,)}, held(old, new)).entries == (new,)


def test_an_unreadable_shard_is_not_written_before_every_adapter_has_spoken() -> None:
    entry = make_entry()
    present = held(entry) | {shard_of(entry.engine_name): None}

    waiting = planned({"uid-support": None}, present)
    known = planned({"uid-support": (entry,)}, present)

    assert waiting.writes == ()
    assert waiting.problem is not None
    assert waiting.problem.reason == "ManifestUnreadable"
    [shard] = known.writes
    assert shard.entries == (entry,)
    assert shard.revision == int(NOW.timestamp())
    assert known.problem is None


def test_a_shard_that_would_not_fit_is_told_and_the_old_one_stays() -> None:
    files = tuple(File(path=f"{'x' * 200}{index}", sha256="a" * 64, size=1) for index in range(4000))
    big = make_entry(files=files)

    manifest = planned({"uid-support": (big,)}, held())

    assert manifest.writes == ()
    assert manifest.problem is not None
    assert manifest.problem.reason == "ManifestFull"


WANTS = st.dictionaries(st.sampled_from("abcdef"), st.none() | st.sets(st.sampled_from("0123")), max_size=6)


@given(first=WANTS, second=WANTS)
def test_what_is_written_is_a_fixed_point_and_revisions_only_grow(
    first: dict[str, set[str] | None], second: dict[str, set[str] | None]
) -> None:
    present: dict[int, Shard | None] = {}
    for wants in (first, second):
        holders = {
            f"uid-{name}": None if versions is None else tuple(make_entry(name, version=v) for v in sorted(versions))
            for name, versions in wants.items()
        }
        manifest = planned(holders, present, adopted=bool(present))
        before = dict(present)
        present |= {shard.index: shard for shard in manifest.writes}

        assert planned(holders, present).writes == ()
        assert all(
            shard.revision > old.revision for shard in manifest.writes if (old := before.get(shard.index)) is not None
        )


def test_the_door_keeps_its_keys() -> None:
    first = next_data({}, (), tokens={}, api_key=None, now=NOW)

    assert set(first) == {"token", "tls.crt", "tls.key"}
    assert next_data(first, (), tokens={}, api_key=None, now=NOW) == first


def test_hub_tokens_are_there_as_long_as_an_entry_needs_them() -> None:
    door = next_data({}, (), tokens={}, api_key=None, now=NOW)
    entries = (make_entry(credential="hub-1"), make_entry("sales", credential="hub-2"))

    data = next_data(
        door | {"hub-2": "kept", "hub-3": "dropped"}, entries, tokens={"hub-1": "new"}, api_key=None, now=NOW
    )

    assert data == door | {"hub-1": "new", "hub-2": "kept"}


def test_a_half_lost_door_gets_all_its_keys_anew() -> None:
    first = next_data({}, (), tokens={}, api_key=None, now=NOW)

    second = next_data({"token": first["token"]}, (), tokens={}, api_key=None, now=NOW)

    assert second["token"] != first["token"]
    assert set(second) == set(first)
