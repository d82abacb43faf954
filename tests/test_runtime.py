"""What a process is told before JAX starts."""

import os

import pytest

from jaxorg.distributed import runtime


def test_flags_that_are_given_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_autotune_level=4 --xla_dump_to=")
    for _ in range(2):
        runtime.start()
    flags = os.environ["XLA_FLAGS"].split()
    assert flags[:2] == ["--xla_gpu_autotune_level=4", "--xla_dump_to="]
    assert "--xla_gpu_exclude_nondeterministic_ops=true" in flags
    assert "--xla_cpu_experimental_ynn_fusion_type=" in flags
    names = [flag.partition("=")[0] for flag in flags]
    assert len(set(names)) == len(names)
