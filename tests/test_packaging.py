"""The wheel holds all that the package needs where there is no checkout, and what is said about
installing it can be done."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXTS = (".md", ".py", ".yaml", ".yml", ".j2")
BUILD = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-c", BUILD, str(folder)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def tracked(*folders: str) -> set[str]:
    """Files of the checkout that belong in the wheel, by the names they have there."""
    paths = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    return {str(path.relative_to(ROOT)) for path in paths if "__pycache__" not in path.parts}


def test_the_wheel_holds_the_package_and_the_sweeps(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    sweeps = {f"jaxorg/{name}" for name in tracked("sweeps")}
    assert "jaxorg/sweeps/quickstart.yaml" in sweeps
    assert "jaxorg/page/page.html.j2" in names
    assert tracked("jaxorg") | sweeps == {name for name in names if name.startswith("jaxorg/")}


def test_the_wheel_makes_the_command(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "jaxorg = jaxorg.__main__:main" in wheel.read(name).decode()


def test_shipped_sweeps_are_found_without_a_checkout(
    wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    wheel.extractall(installed)
    elsewhere.mkdir()
    found = subprocess.run(
        [sys.executable, "-c", "from jaxorg.sweepfile import spec; print(spec.find('quickstart'))"],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == str(installed / "jaxorg" / "sweeps" / "quickstart.yaml")


def test_what_is_said_to_be_installed_can_be() -> None:
    """The package is on no index: extras are installed from the checkout, and there are such."""
    folders = ("docs", "jaxorg", "tpu", "sweeps", ".github")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.*")]
    texts = {p: p.read_text() for p in (*paths, ROOT / "README.md") if p.suffix in TEXTS}
    assert not [path for path, text in texts.items() if re.search(r"pip install .?jaxorg", text)]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    named = {name for text in texts.values() for name in re.findall(r"'\.\[(\w+)\]'", text)}
    named |= {name for t in texts.values() for name in re.findall(r"[{ ]install\('(\w+)'\)", t)}
    assert {"tpu", "cuda13", "parity", "report"} <= named <= set(extras)


def test_commands_of_the_readme_come_after_the_environment_is_entered() -> None:
    text = (ROOT / "README.md").read_text()
    assert -1 < text.index(". .venv/bin/activate") < text.index("python -m jaxorg")
