"""Models that others made of a base: a PEFT adapter's folder, or a whole model's of its shape."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from jaxorg.errors import Refusal, short
from jaxorg.llama import checkpoint, files
from jaxorg.llama.checkpoint import Weights
from jaxorg.llama.peft_adapter import WEIGHTS, read_adapter
from jaxorg.llama.peft_config import CONFIG
from jaxorg.llama.peft_merged import PEFT_VERSION, merged
from jaxorg.llama.tokenizer_file import TokenizerFile
from jaxorg.storage.weight_reader import WeightReader

_KEY = "organism.folder"
_DRAWN = "initializer_range"  # says how new weights are drawn, and nothing of those that are there


@dataclass(frozen=True)
class Brought:
    """A folder with what others made of a base. How texts are read and ended is the base's."""

    path: str

    def digest(self) -> str:
        """A hash of the files that its weights come from, and of how an adapter is read.

        Raises:
            Refusal: there is no such folder, or it holds neither an adapter nor a model.
        """
        if not self._is_adapter:
            config = files.find(self._folder, "config.json")
            if config is None:
                raise Refusal(
                    f"{_KEY}: {short(self.path)} is no folder with an {CONFIG} or a config.json; "
                    f"give one that PEFT or Transformers saved"
                )
            return files.digest([config, *checkpoint.weight_files(self._folder)])
        found = [path for name in (CONFIG, WEIGHTS) if (path := files.find(self._folder, name))]
        return f"peft {PEFT_VERSION} {files.digest(found)}"

    def reader(self, base: Path, below: WeightReader, shapes: Weights) -> WeightReader:
        """Reads its whole weights, an adapter merged into the base's.

        Args:
            base: the base's folder.
            below: reads the base's weights.
            shapes: of these, as abstract arrays.

        Raises:
            Refusal: files are broken, or were not made of a model like the base.
        """
        self._check_tokenizer(base)
        if self._is_adapter:
            return merged(below, read_adapter(self._folder, checkpoint.read_config(base)))
        self._check_shape(base)
        return checkpoint.reader(self._folder, shapes)

    @property
    def _folder(self) -> Path:
        return Path(self.path)

    @property
    def _is_adapter(self) -> bool:
        return os.path.lexists(self._folder / CONFIG)  # False for any impossible name

    def _check_shape(self, base: Path) -> None:
        ours, theirs = (vars(checkpoint.read_config(each)) for each in (base, self._folder))
        for name, value in ours.items():
            if theirs[name] != value and name != _DRAWN:
                raise Refusal(
                    f"{_KEY}: {short(self.path)} has {name} {short(theirs[name])}, and base.model "
                    f"{short(value)}; give the base that it was made of"
                )

    def _check_tokenizer(self, base: Path) -> None:
        """Refuse another tokenizer than the base's; adapters need not come with one."""
        if self._is_adapter and not files.find(self._folder, "tokenizer.json"):
            return
        if TokenizerFile(self._folder).content != TokenizerFile(base).content:
            raise Refusal(
                f"{_KEY}: {short(self.path)} has another tokenizer.json than base.model; give the "
                f"base that it was made of"
            )
