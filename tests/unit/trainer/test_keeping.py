"""When a checkpoint is due, when a preemption may end what goes on, and when a resumed training is the same one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from lora_operator.protocol.training import ExitCode, Reason, Result
from lora_trainer import checkpoints, keeping
from lora_trainer.checkpoints import Checkpoint, Seal
from lora_trainer.keeping import Keeping, Plan
from lora_trainer.preemption import Preemption, Preemptions
from lora_trainer.ranks import World
from lora_trainer.result import Refusal, exit_code


def checkpoint(probe: float | None) -> Checkpoint:
    return Checkpoint(folder=Path("checkpoint-7"), seal=Seal(step=7, max_steps=9, probe=probe))


@pytest.mark.parametrize("found", [2.0, 2.03, 1.97])
def test_the_recorded_loss_lets_a_training_go_on(found: float) -> None:
    keeping.check_probe(checkpoint(2.0), found)


@pytest.mark.parametrize("found", [2.3, 7.0, 0.1, float("nan")])
def test_another_loss_does_not(found: float) -> None:
    with pytest.raises(Refusal, match="resumed from the checkpoint of step 7, but the loss") as refused:
        keeping.check_probe(checkpoint(2.0), found)
    assert refused.value.reason is Reason.TRAINING_FAILED


def test_a_checkpoint_without_a_recorded_loss_is_taken() -> None:
    keeping.check_probe(checkpoint(None), 5.0)


@pytest.mark.parametrize(
    ("epoch", "step", "ends"), [(1.0, 10, True), (1.5, 15, False), (3 * (1 / 3), 10, True), (1.5, 20, True)]
)
def test_an_epoch_ends_with_its_last_step_or_the_training(epoch: float, step: int, *, ends: bool) -> None:
    assert keeping.ends_epoch(epoch, step, 20) is ends


@pytest.fixture
def preemptions() -> Iterator[Preemptions]:
    before = signal.getsignal(signal.SIGTERM)
    found = Preemptions()
    found.listen()
    yield found
    signal.signal(signal.SIGTERM, before)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_ends_what_can_be_ended(preemptions: Preemptions) -> None:
    with pytest.raises(Preemption):
        terminate()


def test_sigterm_is_held_until_it_is_asked_for(preemptions: Preemptions) -> None:
    with preemptions.held("the step is finished"):
        terminate()
        assert preemptions.requested
    with pytest.raises(Preemption):
        preemptions.check()


def test_waiting_for_the_hub_ends_at_sigterm_even_where_it_is_held(preemptions: Preemptions) -> None:
    with preemptions.held("publishing first"):
        terminate()
        with pytest.raises(Preemption):
            preemptions.sleep(600)


def test_what_is_held_within_what_is_held_stays_held(preemptions: Preemptions) -> None:
    with preemptions.held("outer"):
        with preemptions.held("inner"):
            terminate()
        terminate()
    assert preemptions.requested


@pytest.mark.parametrize(("step", "code"), [(12, ExitCode.PREEMPTED), (None, ExitCode.FAILED)])
def test_75_is_a_preemption_that_left_a_checkpoint_and_only_that(step: int | None, code: ExitCode) -> None:
    assert exit_code(Result(reason=Reason.PREEMPTED, checkpoint_step=step)) is code


class Evaluating:
    """A trainer of transformers in the midst of an evaluation."""

    is_in_train = True

    def __init__(self, root: Path) -> None:
        self.root, self.model, self.saved = root, None, 0

    def _save_checkpoint(self, _model: None, _trial: None) -> None:
        self.saved += 1
        folder = self.root / "checkpoint-8"
        folder.mkdir()
        (folder / "adapter_model.safetensors").write_bytes(b"weights")


STATE = SimpleNamespace(global_step=8, max_steps=12, best_model_checkpoint=None)


def keeping_of(trainer: Evaluating, preemptions: Preemptions, *, resumed: Checkpoint | None = None) -> Keeping:
    plan = Plan(root=trainer.root, interval_seconds=3600, keep=2, by_epoch=True, resumed=resumed)
    return Keeping(plan=plan, trainer=trainer, preemptions=preemptions, world=World())


def test_an_evaluation_ends_between_two_batches_and_its_step_is_saved_as_not_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "probe", lambda _: 1.5)
    trainer, preemptions = Evaluating(tmp_path), Preemptions()
    keeper = keeping_of(trainer, preemptions)
    keeper.look_up(STATE)
    assert trainer.saved == 0
    preemptions.requested = True
    with pytest.raises(Preemption):
        keeper.look_up(STATE)
    found = checkpoints.newest(tmp_path)
    assert found is not None
    assert (found.seal.step, found.seal.evaluated) == (8, False)

    # The next attempt evaluates again, and is ended there again: what it goes on from is saved already.
    with pytest.raises(Preemption):
        keeping_of(trainer, preemptions, resumed=found).look_up(STATE)
    assert trainer.saved == 1


def test_after_the_training_an_evaluation_saves_nothing(tmp_path: Path) -> None:
    trainer, preemptions = Evaluating(tmp_path), Preemptions()
    trainer.is_in_train, preemptions.requested = False, True
    keeping_of(trainer, preemptions).look_up(STATE)
    assert trainer.saved == 0
