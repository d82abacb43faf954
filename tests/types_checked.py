"""What jaxtyping's import hook checks, and how: calls against what annotations say of shapes."""

from pathlib import Path

from beartype import BeartypeConf, beartype

ROOT = Path(__file__).resolve().parents[1]
# Other modules have no arrays to check, and where text is read each call that is checked costs.
SHAPED = [
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for file in sorted((ROOT / "jaxorg").rglob("*.py"))
    if "from jaxtyping import" in file.read_text(encoding="utf-8")
]

check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as for mypy
