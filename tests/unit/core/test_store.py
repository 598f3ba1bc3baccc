"""The store: the newest version wins wherever it came from, and nothing deleted comes back."""

from __future__ import annotations

from typing import Any

from lora_operator import labels
from lora_operator.labels import Key, key_of
from lora_operator.store import Store
from support.objects import make_adapter, make_engine, make_pod

Object = dict[str, Any]
ENGINE = Key("LoRAEngine", "models", "llama")


def at(version: int, obj: Object) -> Object:
    """Return an object as of a resourceVersion."""
    return obj | {"metadata": obj["metadata"] | {"resourceVersion": str(version)}}


def seen(*objects: Object) -> Store:
    store = Store()
    for obj in objects:
        store.saw(obj)
    return store


def test_an_older_version_that_comes_late_changes_nothing() -> None:
    new, old = at(12, make_adapter(servedName="new")), at(9, make_adapter(servedName="old"))
    store = seen(new)

    assert not store.saw(old)
    assert not store.saw(new)
    assert store.get(key_of(new)) == new


def test_versions_compare_as_numbers() -> None:
    store = seen(at(9, make_adapter()))

    assert store.saw(at(10, make_adapter()))


def test_what_was_deleted_does_not_come_back_by_an_older_sight_of_it() -> None:
    adapter = make_adapter()
    store = seen(at(5, adapter))
    assert store.gone(at(8, adapter))

    assert not store.saw(at(7, adapter))
    assert store.get(key_of(adapter)) is None
    assert store.kind("LoRAAdapter") == []


def test_a_namesake_takes_the_place_of_one_that_is_gone_and_outlives_the_late_word_of_its_end() -> None:
    first, second = make_adapter(), make_adapter()
    second["metadata"]["uid"] = "another"
    store = seen(at(5, first), at(9, second))

    assert not store.gone(at(8, first))
    assert (store.get(key_of(first)) or {})["metadata"]["uid"] == "another"


def test_objects_are_found_by_what_they_refer_to_and_no_longer_once_they_do_not() -> None:
    adapter, foreign = make_adapter(), make_adapter("other", engine="another")
    store = seen(make_engine(), at(5, adapter), at(6, foreign))
    assert [key_of(obj) for obj in store.referring("LoRAAdapter", "engine", ENGINE)] == [key_of(adapter)]

    store.saw(at(7, make_adapter(engine="another")))
    assert store.referring("LoRAAdapter", "engine", ENGINE) == []
    store.gone(at(8, foreign))
    assert len(store.referring("LoRAAdapter", "engine", Key("LoRAEngine", "models", "another"))) == 1


def test_an_engine_in_another_namespace_is_found_by_its_namespace() -> None:
    adapter = make_adapter(namespace="team-a", engineRef={"name": "llama", "namespace": "models"})

    assert len(seen(adapter).referring("LoRAAdapter", "engine", ENGINE)) == 1


def test_pods_are_found_by_the_label_that_the_engine_s_patch_gives_them() -> None:
    bare = make_pod("bare")
    del bare["metadata"]["labels"][labels.ENGINE]

    assert [obj["metadata"]["name"] for obj in seen(make_pod("a"), bare).referring("Pod", "engine", ENGINE)] == ["a"]


def test_a_list_brings_what_is_new_and_takes_what_is_gone() -> None:
    kept, lost, found = at(5, make_adapter("kept")), at(6, make_adapter("lost")), at(7, make_adapter("found"))
    store = seen(kept, lost)

    changed = store.replace("LoRAAdapter", [kept, found], version=10)

    assert sorted(key.name for key in changed) == ["found", "lost"]
    assert [key.name for key in store.kind("LoRAAdapter")] == ["found", "kept"]


def test_a_list_does_not_take_what_was_made_after_it() -> None:
    made_since = at(11, make_adapter("new"))
    store = seen(made_since)

    assert store.replace("LoRAAdapter", [], version=10) == []
    assert store.get(key_of(made_since)) is not None


def test_managed_fields_are_not_kept() -> None:
    adapter = make_adapter()
    adapter["metadata"]["managedFields"] = [{"manager": "kubectl"}]

    assert "managedFields" not in (seen(adapter).get(key_of(adapter)) or {})["metadata"]
