"""What organisms and treatments share: a recipe says how a phase trains, and on what.

What only some recipes do has a default here, so that whoever plans or trains phases need not know
which sort a recipe is of.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from jaxorg.config import Config, later, shaping, swept
from jaxorg.data.items import Item
from jaxorg.data.tokenized import Example
from jaxorg.experiments.audit import Audit
from jaxorg.llama.brought import Brought
from jaxorg.organisms.behaviour import Behaviour
from jaxorg.sweepfile.training import Training

if TYPE_CHECKING:
    from jaxorg.organisms.base import Organism
    from jaxorg.treatments.rounds import InRounds


class Source(Hashable, Protocol):
    """Files that something is made of."""

    def digest(self) -> str:
        """What they hold, in a few characters."""


class Recipe(Config):
    """How a phase trains, and on which conversations."""

    VERSION: ClassVar[int] = 1  # raise it when the recipe changes
    # Whose weights it trains: those of the phase before, or the base's.
    starts_from: ClassVar[Literal["before", "base"]]
    own_prompts: ClassVar[bool] = False  # whether none of the source's are among its conversations
    relearns: ClassVar[bool] = False  # its items are the organism's attacks: a reversal only

    kind: str
    label: str = later("")  # a name for people; it changes nothing
    train: Training

    @abstractmethod
    def examples(self, items: Sequence[Item], seed: int) -> Iterable[Example]:
        """The conversations to train on."""

    @abstractmethod
    def behaviour_after(self, before: Behaviour | None) -> Behaviour | None:
        """What evaluators look for in the model that it trains, by what they looked for before."""

    @property
    def brought(self) -> Brought | None:
        """The folder of its model, if others trained it."""
        return None

    def files(self) -> Mapping[str, Source]:
        """The files that it is made of, by the key that names them. In its fingerprint their
        content stands in place of their names."""
        return {}

    @property
    def changes(self) -> bool:
        """Whether it leaves other weights than it finds."""
        return bool(self.train.steps)

    @property
    def asks(self) -> bool:
        """Whether the model that it starts from is asked what it says itself: `Item.said`."""
        return False

    @property
    def asks_organism(self) -> bool:
        """The same of the organism, which others may have trained on since."""
        return False

    @property
    def replaces_answers(self) -> bool:
        """Whether what either says takes the place of the prompts' own answers."""
        return False

    @property
    def supervisor(self) -> str | None:
        """The model whose answers it trains on in place of the prompts' own: its `model`, which
        says what `prompts.teacher` may say."""
        return None

    @property
    def supervisor_request(self) -> str:
        """What that model is asked for before each prompt, if anything."""
        return ""

    @property
    def in_rounds(self) -> InRounds | None:
        """Itself, if it trains in rounds on what the model says."""
        return None

    def put(self, prompt: str, organism: Organism | None) -> str:
        """How a prompt stands in what it trains an organism on."""
        return prompt

    def audit(self) -> Audit | None:
        """How the model that it trains audits experiments, if it does."""
        return None

    def beyond(self, layers: int) -> str:
        """The key that asks for a layer which a model of so many has not; "" if none does."""
        return ""

    def signature(self) -> dict[str, Any]:
        """What of it shapes the training program, as fields of `Signature`."""
        return shaping(self)

    def swept(self) -> dict[str, float]:
        """Its own scalars that enter the program as arrays, by names that no optimizer uses."""
        return swept(self)
