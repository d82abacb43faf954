"""A few of the faults of disks and terminals that `make torture` injects at every operation."""

import shutil
import subprocess
import sys

import faults
import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="faults are injected on Linux only")
@pytest.mark.skipif(not shutil.which("cc"), reason="faults are injected by what cc compiles")
def test_after_a_fault_a_sweep_says_one_line_and_goes_on_to_the_same_tables() -> None:
    few = ["--kind", faults.SHORT, "--kills", "3", "--sample", "1", "--jobs", "1"]
    command = [sys.executable, faults.__file__, *few]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    for name in faults.FAULTS:
        assert f"| {name} |" in found.stdout
