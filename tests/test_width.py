"""How many runs share a device: what is timed, and when to stop."""

from dataclasses import replace

import pytest
from tiny import TINY

from jaxorg.engine import width
from jaxorg.engine.cohort import Trainer
from jaxorg.engine.mesh import make_mesh, parse
from jaxorg.llama.lora import LoraConfig
from jaxorg.signature import ModelStatic, Static

FULL = Static(ModelStatic(TINY), 12, 2, "adamw", "constant")
ADAPTERS = ModelStatic(TINY, LoraConfig(2), shared_frozen=True, dtype="bfloat16")
KINDS = {
    "full": FULL,
    "packed": replace(FULL, packing=True),
    "bf16 state": replace(FULL, state_dtype="bfloat16"),
    "adapters of one base": replace(FULL, model=ADAPTERS),
    "adapters of several": replace(FULL, model=replace(ADAPTERS, shared_frozen=False)),
}


QUICK = ("full", "packed", "adapters of one base")


@pytest.mark.parametrize(
    "static",
    [
        pytest.param(static, id=name, marks=() if name in QUICK else pytest.mark.long)
        for name, static in KINDS.items()
    ],
)
def test_every_kind_of_program_can_be_timed(static: Static) -> None:
    assert width._tokens_a_second(Trainer(static, make_mesh(parse("cpu-2")), 2)) > 0


@pytest.mark.parametrize(
    ("rates", "runs", "chosen"),
    [([1, 2, 4, 8], 8, 4), ([1, 2, 4, 8], 3, 2), ([1, 2, 2.05, 9], 16, 2), ([1, 0.9], 16, 1)],
)
def test_the_width_doubles_for_as_long_as_that_pays(
    rates: list[float], runs: int, chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter(rates)
    monkeypatch.setattr(width, "_tokens_a_second", lambda _: next(left))
    assert width.measured_width(FULL, make_mesh(parse("cpu-2")), runs) == chosen
