"""Compiles a training program for a TPU slice that is not there, in a process of its own.

`python -m jaxorg.engine.aot` reads what to compile as JSON from standard input and writes what came
of it as the last line of standard output. libtpu holds the compiler; it must not meet a back end
that is running, and it prints as it likes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from jaxorg.engine.mesh import AXES, SLICES
from jaxorg.llama.lora import LoraConfig
from jaxorg.llama.model import LlamaConfig, RopeScaling
from jaxorg.signature import ModelStatic, Static

_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",  # there is no cloud to ask what machine this is
    "JAX_PLATFORMS": "cpu",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # the process that asks may have loaded it, too
}


@dataclass(frozen=True)
class Compiled:
    """What the compiler says of a program."""

    memory: int  # bytes a chip: arguments, outputs and temporaries, aliased ones once
    seconds: float  # to compile
    problem: str = ""  # why it does not compile, if not


def compile_elsewhere(
    static: Static, slice_name: str, axes: Mapping[str, int], width: int
) -> Compiled:
    """Compile the training program of a signature for a slice.

    Args:
        static: the program's signature.
        slice_name: as in `engine.mesh.SLICES`.
        axes: devices along `run`, `fsdp` and `tensor`.
        width: runs that share the devices of one place on `run`.
    """
    wanted = {"static": asdict(static), "slice": slice_name, "axes": dict(axes), "width": width}
    process = subprocess.run(
        [sys.executable, "-m", "jaxorg.engine.aot"],
        input=json.dumps(wanted),
        env={**os.environ, **_ENVIRONMENT},
        text=True,
        capture_output=True,
        check=False,
    )
    if process.returncode:
        lines = process.stderr.strip().splitlines()
        return Compiled(0, 0.0, lines[-1][:300] if lines else f"exit code {process.returncode}")
    return Compiled(**json.loads(process.stdout.splitlines()[-1]))


def compile_here(static: Static, slice_name: str, axes: Mapping[str, int], width: int) -> Compiled:
    """As `compile_elsewhere`, in this process, in which no back end may run yet."""
    import jax
    import numpy as np
    from jax.experimental import topologies
    from jax.sharding import AxisType, Mesh

    from jaxorg.engine.cohort import Trainer

    wanted = SLICES[slice_name]
    megacore = slice_name.startswith(("v4", "v5p"))
    topology = topologies.get_topology_desc(
        platform="tpu",
        topology_name=wanted.topology,
        chip_config_name="megacore" if megacore else "default",
        chips_per_host_bounds=wanted.hosts,
    )
    shape = [axes[axis] for axis in AXES]
    devices: Any = np.array(topology.devices).reshape(shape)
    mesh = Mesh(devices, AXES, axis_types=(AxisType.Auto,) * len(AXES))
    trainer = Trainer(static, mesh, width)
    train: Any = trainer.train
    began = time.monotonic()
    try:
        program = train.lower(*trainer.abstract_arguments()).compile()
    except jax.errors.JaxRuntimeError as error:
        return Compiled(0, time.monotonic() - began, " ".join(str(error).split())[:300])
    seconds = time.monotonic() - began
    used = program.memory_analysis()
    sizes = (used.argument_size_in_bytes, used.output_size_in_bytes, used.temp_size_in_bytes)
    return Compiled(sum(sizes) - used.alias_size_in_bytes, seconds)


def _static(content: dict[str, Any]) -> Static:
    """A signature from the JSON that `asdict` made of it."""
    model = content.pop("model")
    config, lora = model.pop("config"), model.pop("lora")
    rope = config.pop("rope_scaling")
    shape = LlamaConfig(**config, rope_scaling=RopeScaling(**rope) if rope else None)
    adapters = LoraConfig(**{**lora, "targets": tuple(lora["targets"])}) if lora else None
    return Static(ModelStatic(shape, adapters, **model), **content)


def main() -> None:
    """The process that `compile_elsewhere` starts."""
    wanted = json.load(sys.stdin)
    static = _static(wanted["static"])
    found = compile_here(static, wanted["slice"], wanted["axes"], wanted["width"])
    print(f"\n{json.dumps(asdict(found))}")


if __name__ == "__main__":
    main()
