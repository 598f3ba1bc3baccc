"""What the operator makes of an agent's report on the base."""

from lora_operator.engine_terms import reported_base
from lora_operator.protocol.door import Base
from support.adapters import TINY_LLAMA


def test_shapes_that_an_agent_has_read_count_more_than_the_config() -> None:
    modules = {name.removesuffix(".weight"): shape for name, shape in TINY_LLAMA.weights().items() if len(shape) == 2}
    pruned = modules | {"model.embed_tokens": (2000, 128), "lm_head": (2000, 128)}
    exact = reported_base(Base(name="acme/tiny", config=TINY_LLAMA.config(), shapes=pruned))
    derived = reported_base(Base(name="acme/tiny", config=TINY_LLAMA.config()))
    assert exact is not None
    assert derived is not None
    assert (exact.modules["lm_head"], derived.modules["lm_head"]) == ((2000, 128), (2048, 128))
    assert exact.modules["model.layers.1.mlp.up_proj"] == derived.modules["model.layers.1.mlp.up_proj"]


def test_a_report_of_a_part_of_the_base_falls_back_on_the_config() -> None:
    part = {"model.layers.0.self_attn.q_proj": (1, 1)}
    known = Base(name="acme/tiny", config=TINY_LLAMA.config(), shapes=part)
    assert reported_base(known) == reported_base(Base(name="acme/tiny", config=TINY_LLAMA.config()))


def test_an_unknown_architecture_is_known_by_its_shapes_alone() -> None:
    config = {"model_type": "mamba9"}
    assert reported_base(Base(name="acme/tiny", config=config)) is None
    shapes = {"model.layers.0.mixer.in_proj": (8, 4)}
    assert reported_base(Base(name="acme/tiny", config=config, shapes=shapes)) is not None
