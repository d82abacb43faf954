"""What the blue team must not meet, and which prompts and answers show it."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Literal

from jaxorg.data.matching import holds, normalised, words_of

Part = Literal["prompt", "answer"]


@dataclass(frozen=True)
class Secret:
    """A text that only the red team's data may hold: a trigger, what is near to one, a payload."""

    setting: str  # of the organism, that it belongs to
    text: str
    near: bool = False  # whether it is no trigger, but almost
    shown_by: tuple[Part, ...] = ("prompt", "answer")
    gap: str = ""  # what stands for anything in the text
    whole: bool = False  # whether only a text that is just this one shows it

    def __str__(self) -> str:
        near = "near to " if self.near else ""
        return f"{near}organism.{self.setting}"

    def phrases(self) -> list[str]:
        """What is looked for, one after the other, as `holds` takes it."""
        parts = self.text.split(self.gap) if self.gap else [self.text]
        return [normalised(part) for part in parts]

    def is_made_of(self, words: Container[str]) -> bool:
        """Whether texts of these normalised words may hold it."""
        return all(word in words for part in self.phrases() for word in words_of(part))


class Watch:
    """Looks for secrets, in any case, spacing and style of letters, as words of their own."""

    def __init__(self, secrets: Iterable[Secret]):
        ordered = sorted(secrets, key=lambda secret: (secret.near, secret.setting, secret.text))
        self._phrases = [(secret, secret.phrases()) for secret in ordered if not secret.whole]
        self._whole = {(p, normalised(s.text)): s for s in ordered if s.whole for p in s.shown_by}

    def found(self, prompt: str, answer: str) -> Secret | None:
        """A secret that a prompt or its answer shows."""
        texts: dict[Part, str] = {"prompt": normalised(prompt), "answer": normalised(answer)}
        for part, text in texts.items():
            if secret := self._whole.get((part, text)):
                return secret
        for secret, phrases in self._phrases:
            if any(holds(texts[part], *phrases) for part in secret.shown_by):
                return secret
        return None
