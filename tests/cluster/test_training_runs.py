"""A training from apply to its end: the Job, the result, the LoRAAdapter, and what is left when it goes."""

from __future__ import annotations

from typing import Any

import pytest

from hubserver import Hub
from localcluster import ControlPlane
from lora_operator.labels import TRAINING_JOB
from support.job_actor import publishing
from support.operating import Operator
from support.trainings import Trainings, conditions

Object = dict[str, Any]


@pytest.fixture(scope="module")
def trainings(kinds: ControlPlane, hub: Hub, operator: Operator) -> Trainings:
    """Return a namespace for the trainings of this module."""
    ground = Trainings(kinds, hub, "training-runs")
    ground.prepare()
    return ground


def test_a_training_that_publishes_is_complete_and_served(trainings: Trainings, hub: Hub) -> None:
    trainings.apply(trainings.job("served", output__adapter={"name": "bot"}))
    pod = trainings.pod("served")
    trainings.actor.run(pod)
    trainings.until("served", "Training")
    commit = hub.add_model("acme/served", {"adapter_config.json": b"{}"})
    trainings.actor.end(pod, publishing("acme/served", commit))

    done = trainings.until("served", "Published")

    assert conditions(done) == {
        "Ready": "True",
        "Validated": "True",
        "Trained": "True",
        "Published": "True",
        "Complete": "True",
        "Failed": "False",
    }
    assert done["status"]["artifact"]["commit"] == commit
    assert done["status"]["adapterRef"] == {"name": "bot"}
    adapter = trainings.get("loraadapter", "bot")
    assert adapter is not None
    assert adapter["spec"]["source"]["hub"]["revision"] == commit
    assert adapter["metadata"]["labels"][TRAINING_JOB] == "served"
    assert "ownerReferences" not in adapter["metadata"]
