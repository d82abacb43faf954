"""Compiles a sweep's programs for a TPU slice that is not there, each in a process of its own.

`python -m jaxorg.engine.run.aot` reads what to compile as JSON from standard input and writes what
came of it as the last line of standard output. libtpu holds the compiler; it must not meet a back
end that is running, and it prints as it likes.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from jaxorg.engine.mesh import AXES, SLICES
from jaxorg.llama.lora import LoraConfig
from jaxorg.llama.model import LlamaConfig, RopeScaling
from jaxorg.planning.signature import ModelSignature, Signature

_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",  # there is no cloud to ask what machine this is
    "JAX_PLATFORMS": "cpu",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # the process that asks may have loaded it, too
}
# How the compiler says what a program would have taken, in GiB.
_WANTED = re.compile(r"\(([\d.]+)G\) exceeds available|Used ([\d.]+)G of")

Does = Literal["train", "prefill", "score", "generate"]


@dataclass(frozen=True)
class Program:
    """One of the programs that bring a phase to done, for rows of the longest that it may meet."""

    does: Does
    model: ModelSignature
    signature: Signature | None  # of the training whose state is on the devices all the while
    tokens: int  # of a prompt that is read, and of a completion that is scored
    new_tokens: int


@dataclass(frozen=True)
class Compiled:
    """What the compiler says of a program."""

    memory: int  # bytes a chip: arguments, outputs, temporaries, and what lies there besides
    seconds: float  # to compile
    host_memory: int = 0  # most bytes that the compiling process held
    problem: str = ""  # why it does not compile, if not


def compile_elsewhere(
    program: Program, slice_name: str, axes: Mapping[str, int], width: int
) -> Compiled:
    """Compile a program for a slice.

    Args:
        program: what to compile.
        slice_name: as in `engine.mesh.SLICES`.
        axes: devices along `run`, `fsdp` and `tensor`.
        width: runs that share the devices of one place on `run`.
    """
    wanted = {"program": asdict(program), "slice": slice_name, "axes": dict(axes), "width": width}
    process = subprocess.run(
        [sys.executable, "-m", "jaxorg.engine.run.aot"],
        input=json.dumps(wanted),
        env={**os.environ, **_ENVIRONMENT},
        text=True,
        capture_output=True,
        check=False,
    )
    if process.returncode:
        lines = process.stderr.strip().splitlines()
        problem = lines[-1][:300] if lines else f"exit code {process.returncode}"
        return Compiled(0, 0.0, problem=problem)
    return Compiled(**json.loads(process.stdout.splitlines()[-1]))


def compile_here(
    program: Program, slice_name: str, axes: Mapping[str, int], width: int
) -> Compiled:
    """As `compile_elsewhere`, in this process, in which no back end may run yet.

    Args:
        program: what to compile.
        slice_name: as in `engine.mesh.SLICES`.
        axes: devices along `run`, `fsdp` and `tensor`.
        width: runs that share the devices of one place on `run`.
    """
    import jax

    lowered, beside = _lowered(program, _mesh(slice_name, axes), width)
    began = time.monotonic()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        problem = " ".join(str(error).split())
        found = _WANTED.search(problem)
        memory = int(float(found[1] or found[2]) * 2**30) + beside if found else 0
        return Compiled(memory, time.monotonic() - began, _host_memory(), problem[:300])
    seconds = time.monotonic() - began
    return Compiled(bytes_of(compiled) + beside, seconds, _host_memory())


def bytes_of(compiled: Any) -> int:
    """Bytes a device that a program takes: arguments, outputs, temporaries."""
    used = compiled.memory_analysis()
    sizes = (used.argument_size_in_bytes, used.output_size_in_bytes, used.temp_size_in_bytes)
    return int(sum(sizes) - used.alias_size_in_bytes)


def _mesh(slice_name: str, axes: Mapping[str, int]) -> Any:
    """The mesh that the slice's devices would make."""
    import numpy as np
    from jax.experimental import topologies
    from jax.sharding import AxisType, Mesh

    wanted = SLICES[slice_name]
    megacore = slice_name.startswith(("v4", "v5p"))
    topology = topologies.get_topology_desc(
        platform="tpu",
        topology_name=wanted.topology,
        chip_config_name="megacore" if megacore else "default",
        chips_per_host_bounds=wanted.hosts,
    )
    devices: Any = np.array(topology.devices).reshape([axes[axis] for axis in AXES])
    return Mesh(devices, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _lowered(program: Program, mesh: Any, width: int) -> tuple[Any, int]:
    """The program as the compiler takes it, and the bytes a device that lie there while it runs
    and are none of its arguments: what the optimizer keeps, while a phase is measured."""
    from jaxorg.engine.cohort import Scorer, Trainer
    from jaxorg.engine.measure import calls

    trainer = Trainer(program.signature, mesh, width) if program.signature else None
    if trainer and program.does == "train":
        return trainer.lowered(), 0
    scorer, tokens = Scorer(program.model, mesh, width), program.tokens
    prompts = calls.prompts_at_once(scorer, tokens)
    if program.does == "prefill":
        measure: Any = scorer.passes.prefill
        arguments = scorer.abstract_prefill(prompts, tokens)
    elif program.does == "score":
        measure = scorer.passes.score
        rows = calls.completions_at_once(scorer, tokens, tokens)
        arguments = scorer.abstract_score(prompts, tokens, rows, tokens)
    else:
        measure = scorer.generator(program.new_tokens, (0,))  # which token ends, does not matter
        prompts = calls.prompts_answered_at_once(scorer, program.new_tokens, 2, tokens)
        arguments = scorer.abstract_generate(prompts, tokens, 2 * prompts)
    beside = _bytes_a_device(trainer.abstract_arguments()[2].optimizer) if trainer else 0
    return measure.lower(*arguments), beside


def _bytes_a_device(tree: Any) -> int:
    """Bytes that a device holds of abstract arrays with shardings."""
    import jax

    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _host_memory() -> int:
    """Most bytes of memory that this process has held. libtpu is for Linux only, so this is, too;
    `getrusage` would count what the process before `exec` held."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


def _program(content: dict[str, Any]) -> Program:
    """A program from the JSON that `asdict` made of it."""
    signature = content.pop("signature")
    if signature:
        model, swept = _model(signature.pop("model")), tuple(signature.pop("swept"))
        signature = Signature(model, swept=swept, **signature)
    return Program(model=_model(content.pop("model")), signature=signature, **content)


def _model(content: dict[str, Any]) -> ModelSignature:
    config, lora = content.pop("config"), content.pop("lora")
    rope = config.pop("rope_scaling")
    config["sliding_layers"] = tuple(config["sliding_layers"])
    shape = LlamaConfig(**config, rope_scaling=RopeScaling(**rope) if rope else None)
    adapters = LoraConfig(**{**lora, "targets": tuple(lora["targets"])}) if lora else None
    return ModelSignature(shape, adapters, **content)


def main() -> None:
    """The process that `compile_elsewhere` starts."""
    wanted = json.load(sys.stdin)
    program = _program(wanted["program"])
    found = compile_here(program, wanted["slice"], wanted["axes"], wanted["width"])
    print(f"\n{json.dumps(asdict(found))}")


if __name__ == "__main__":
    main()
