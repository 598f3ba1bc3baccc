"""As many processes train as were asked for: one that is alone without being meant to be is refused, or starts more."""

from __future__ import annotations

import pytest

from lora_operator.api.training_run import Parallelism
from lora_operator.protocol.training import ExitCode, Reason, Result
from lora_trainer import launch, ranks
from lora_trainer.ranks import World
from lora_trainer.result import Refusal, exit_code

TWO = Parallelism(proc_per_node=2)
NODES = Parallelism(nodes=2, proc_per_node=4)


@pytest.mark.parametrize(
    ("wanted", "environ", "found"),
    [
        pytest.param(None, {}, World(), id="one process"),
        pytest.param(Parallelism(), {}, World(), id="one process, said so"),
        pytest.param(None, {"WORLD_SIZE": "2", "RANK": "1"}, World(size=2, rank=1), id="as many as torchrun started"),
        pytest.param(TWO, {"WORLD_SIZE": "2", "RANK": "0"}, World(size=2), id="as many as were asked for"),
        pytest.param(TWO, {}, World(launch=2), id="two have to be started"),
        pytest.param(None, {"PET_NPROC_PER_NODE": "2"}, World(launch=2), id="Kubeflow asks for two"),
        pytest.param(NODES, {"PET_NNODES": "2"}, World(launch=4), id="four on each node"),
        pytest.param(None, {"PET_NPROC_PER_NODE": "4", "PET_NNODES": "2"}, World(launch=4), id="JobSet's variables"),
    ],
)
def test_the_processes_are_those_that_were_asked_for(
    wanted: Parallelism | None, environ: dict[str, str], found: World
) -> None:
    assert ranks.world(wanted, environ) == found


@pytest.mark.parametrize(
    ("wanted", "environ", "words"),
    [
        (TWO, {"WORLD_SIZE": "1", "RANK": "0"}, "2 processes are asked for, but the launcher started 1"),
        (None, {"PET_NPROC_PER_NODE": "2", "WORLD_SIZE": "1"}, "2 processes are asked for, but the launcher started 1"),
        (TWO, {"WORLD_SIZE": "4"}, "2 processes are asked for, but the launcher started 4"),
        (NODES, {}, "parallelism.nodes: 2 nodes are asked for, and nothing says where they are: set PET_NNODES"),
        (None, {"WORLD_SIZE": "many"}, "WORLD_SIZE='many' is no number"),
    ],
)
def test_another_number_of_processes_is_refused(
    wanted: Parallelism | None, environ: dict[str, str], words: str
) -> None:
    with pytest.raises(Refusal, match="is") as refused:
        ranks.world(wanted, environ)
    assert refused.value.reason is Reason.CONFIG_INVALID
    assert words in str(refused.value)


def test_torch_has_to_agree() -> None:
    ranks.agree(World(), initialised=False, size=1)
    ranks.agree(World(size=2), initialised=True, size=2)
    for initialised, size in ((False, 2), (True, 1)):
        with pytest.raises(Refusal, match="2 processes were started, but torch trains with 1"):
            ranks.agree(World(size=2), initialised=initialised, size=size)


def test_torchrun_is_alone_on_one_node_and_finds_the_others_by_its_own_variables() -> None:
    assert launch.command(2, ["--spec", "s"], environ={})[1:] == [
        *("-m", "lora_trainer.torchrun", "--standalone", "--nproc-per-node", "2"),
        *("-m", "lora_trainer", "--spec", "s"),
    ]
    assert "--standalone" not in launch.command(2, [], environ={"PET_NNODES": "2"})


@pytest.mark.parametrize(
    ("given", "share"), [({"OMP_NUM_THREADS": "8"}, "4"), ({"OMP_NUM_THREADS": "1"}, "1"), ({}, "1")]
)
def test_processes_share_the_threads(given: dict[str, str], share: str) -> None:
    assert launch.shared(given, 2)["OMP_NUM_THREADS"] == share


def test_the_first_process_speaks_for_all() -> None:
    preempted = Result(reason=Reason.PREEMPTED, checkpoint_step=5)
    said = preempted.model_dump_json(by_alias=True)
    assert exit_code(launch.told(said, code=1, asked=True)) is ExitCode.PREEMPTED
    assert exit_code(launch.told("", code=0, asked=False)) is ExitCode.OK
    assert exit_code(launch.told("", code=1, asked=False)) is ExitCode.FAILED


def test_a_sigterm_of_torchrun_s_own_is_a_failure_of_another_process() -> None:
    preempted = Result(reason=Reason.PREEMPTED, message="SIGTERM; step 3 is kept", checkpoint_step=3)
    found = launch.told(preempted.model_dump_json(by_alias=True), code=1, asked=False)
    assert exit_code(found) is ExitCode.FAILED
    assert found.checkpoint_step == 3
