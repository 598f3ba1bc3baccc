"""The coalescing queue: a key once, never twice at a time, again if it was added while its pass ran."""

from __future__ import annotations

import asyncio

from lora_operator.labels import Key
from lora_operator.workqueue import BASE_DELAY, MAX_DELAY, WorkQueue

A, B = Key("LoRAAdapter", "team-a", "a"), Key("LoRAAdapter", "team-a", "b")


async def is_empty(queue: WorkQueue) -> bool:
    """Tell whether nothing is handed out: asking is given one turn of the loop, and then taken back."""
    asking = asyncio.ensure_future(queue.get())
    for _ in range(3):
        await asyncio.sleep(0)
    if asking.done():
        return False
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    return True


async def test_a_key_that_is_added_often_is_handed_out_once() -> None:
    queue = WorkQueue()
    for _ in range(5):
        queue.add(A)

    assert len(queue) == 1
    assert await queue.get() == A
    assert await is_empty(queue)


async def test_keys_come_in_the_order_in_which_they_were_added() -> None:
    queue = WorkQueue()
    queue.add(B)
    queue.add(A)

    assert [await queue.get(), await queue.get()] == [B, A]


async def test_a_key_that_runs_is_not_handed_out_again_before_it_is_done() -> None:
    queue = WorkQueue()
    queue.add(A)
    await queue.get()

    queue.add(A)
    queue.add(A)
    assert await is_empty(queue)
    queue.done(A)

    assert await queue.get() == A
    queue.done(A)
    assert await is_empty(queue)


async def test_a_pass_that_waits_is_told_when_its_key_is_added_but_not_of_a_later_time() -> None:
    queue = WorkQueue()
    queue.add(A)
    woken = queue.woken(await queue.get())

    queue.add(A, after=60)
    assert not woken.is_set()
    queue.add(A)
    assert woken.is_set()


async def test_the_earliest_time_that_was_asked_for_holds() -> None:
    queue = WorkQueue()
    queue.add(A, after=600)
    assert await is_empty(queue)
    queue.add(A)
    queue.add(A, after=600)

    assert await queue.get() == A
    queue.done(A)
    assert await is_empty(queue)


async def test_of_the_times_asked_for_during_a_pass_the_earliest_holds() -> None:
    queue = WorkQueue()
    queue.add(A)
    await queue.get()
    queue.add(A, after=600)
    queue.add(A)
    queue.done(A)

    assert await queue.get() == A


async def test_one_who_waits_for_a_key_gets_one_that_is_added_later() -> None:
    queue = WorkQueue()
    waiting = asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    queue.add(A)

    assert await waiting == A


async def test_failures_come_back_later_and_later_up_to_a_bound_until_a_pass_goes_well() -> None:
    queue = WorkQueue()
    first = queue.retry(A)
    delays = [queue.retry(A) for _ in range(30)]
    queue.forget(A)

    assert BASE_DELAY / 2 <= first <= BASE_DELAY
    assert MAX_DELAY / 2 <= delays[-1] <= MAX_DELAY
    assert delays[5] > first
    assert queue.retry(A) <= BASE_DELAY
