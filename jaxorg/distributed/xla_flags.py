"""The options of XLA that jaxorg computes by. They are read when JAX first computes."""

from __future__ import annotations

import os

_FLAGS = (
    # jaxlib 0.10.2 and later send some CPU reductions through a fusion path that can return wrong
    # numbers (jax-ml/jax#39103); naming no fusion type turns the path off. Older releases abort on
    # the unknown flag, so pyproject.toml asks for 0.10.2.
    "--xla_cpu_experimental_ynn_fusion_type=",
    # On a GPU the same program gives the same numbers each time it runs, and is the same each time
    # that it is compiled. Without Triton's products, which want tuning, it compiles in half the
    # time, too (docs/performance.md).
    "--xla_gpu_exclude_nondeterministic_ops=true",
    "--xla_gpu_autotune_level=0",
    "--xla_gpu_enable_triton_gemm=false",
)


def add() -> None:
    """Add them to `XLA_FLAGS`, but those that are given there."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    given = {flag.partition("=")[0] for flag in flags}
    flags += [flag for flag in _FLAGS if flag.partition("=")[0] not in given]
    os.environ["XLA_FLAGS"] = " ".join(flags)
