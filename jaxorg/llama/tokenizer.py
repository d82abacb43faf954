"""Conversations to tokens and back, in the chat format of a Hugging Face tokenizer folder."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from jaxorg.errors import Refusal, short
from jaxorg.llama import tokenizer_settings
from jaxorg.llama.chat_template import ChatTemplate
from jaxorg.llama.tokenizer_file import TokenizerFile
from jaxorg.llama.tokenizer_settings import Settings

CONVERSATIONS_VERSION = 2  # raise it when conversations become other tokens, or tokens other text

# A conversation whose rendering tells what the template writes around an answer.
_QUESTION, _ANSWER = "question", "jaxorgprobe"

# Texts that a text may be encoded behind, so that no prefix space comes before it. Which of them
# tokens run on from depends on the tokenizer.
_BEHIND = ("\n", "x", ".", " ", "0", ")")

_PROMPTS = 256  # whose tokens are remembered: a prompt is often asked for several times in a row

_THOUGHT = re.compile(
    r"[<\[](?P<closes>/?)\|?(?:\w+:)?(?:think(?:ing)?|thoughts?|reasoning)\|?[>\]]", re.IGNORECASE
)


class Conversation(NamedTuple):
    """A prompt and its answer in tokens, of which those from `start` on are what is said."""

    ids: list[int]
    start: int


class Tokenizer:
    """A model's tokenizer with its chat format.

    A conversation is what the template renders, encoded as a whole, and begins with the tokens of
    its prompt: what is trained on is what generation sees. Text that the template writes between
    the prompt and the answer is part of what is said. Text that spells a special token becomes that
    token, as in Transformers. Tokenizers of different folders are equal if they make the same of
    all conversations.
    """

    def __init__(self, file: TokenizerFile, settings: Settings) -> None:
        """Try the template out on a conversation.

        Raises:
            Refusal: the conversation is none that a model could have, or nothing says how a turn
                ends.
        """
        self._file, (self._template, ends, pad) = file, settings
        self._says = file.content, self._template.content, tuple(ends), pad
        self._hash = hash(self._says)
        self._asked = lru_cache(maxsize=_PROMPTS)(self._ask)
        asked, start = self._asked(_QUESTION)
        whole = self._rendered(_QUESTION, _ANSWER)
        lead, found, after = whole.rpartition(_ANSWER)
        if not found:
            raise self._template.refusal("it leaves out the assistant's answer")
        opened = _open_thought(asked.rpartition(_QUESTION)[2]) and not whole.startswith(asked)
        if opened or _open_thought(lead.rpartition(_QUESTION)[2]):
            raise self._template.refusal(
                "an answer would stand inside the thought that it opens; set "
                "base.template_options, such as {enable_thinking: false}, if it knows any"
            )
        self._after = after
        self._turn_end, self._closing, end = self._end_of_turn(whole, after, ends)
        self._end_ids = frozenset((*ends, end))
        first_end = ends[0] if ends else end
        self._pad_id = first_end if pad is None else pad
        self._vocab_size = max(file.largest_id, *self._end_ids, self._pad_id) + 1
        self._context = file.encode(_BEHIND[1])
        said = self._said(self.conversation(_QUESTION, _ANSWER).ids[len(start) :])
        self._lead, found, self._tail = said.partition(_ANSWER)
        if not found:
            raise Refusal(f"{file.path}: it loses letters; download it again")

    @classmethod
    def load(
        cls,
        folder: Path,
        chat_template: str | None = None,
        options: Mapping[str, Any] = MappingProxyType({}),
    ) -> Tokenizer:
        """Reads `tokenizer.json`, `tokenizer_config.json` and what goes with them.

        Args:
            folder: in the Hugging Face layout.
            chat_template: in place of the folder's own.
            options: variables that the template knows besides.

        Raises:
            Refusal: files are missing or broken, or there is no chat template.
        """
        file = TokenizerFile(folder)
        return cls(file, tokenizer_settings.read(folder, file, chat_template, options))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self._says == other._says

    def __hash__(self) -> int:
        return self._hash

    @property
    def template(self) -> ChatTemplate:
        """The chat template."""
        return self._template

    @property
    def vocab_size(self) -> int:
        """One more than the largest token id, those of ends and padding included."""
        return self._vocab_size

    @property
    def pad_id(self) -> int:
        """The token that fills up a batch: the pad token, or the end token where there is none."""
        return self._pad_id

    @property
    def end_ids(self) -> frozenset[int]:
        """The tokens that end a generation."""
        return self._end_ids

    def prompt_ids(self, prompt: str) -> list[int]:
        """The tokens of one user turn, up to where the assistant speaks."""
        return self._asked(prompt)[1]

    def conversation(
        self, prompt: str, answer: str, given: str = "", open_ended: bool = False
    ) -> Conversation:
        """The tokens of a user turn and the assistant's answer, to the end of that turn.

        Args:
            prompt: what the user says.
            answer: what the assistant says.
            given: how it begins, which counts as the prompt does; a text without outer whitespace.
            open_ended: whether the answer may go on, so that its turn does not end.

        Raises:
            Refusal: the template renders this conversation unlike others.
        """
        asked, ids = self._asked(prompt)
        whole = self._rendered(prompt, given + answer)
        if not (whole.startswith(asked) and whole.endswith(self._after)):
            raise self._template.refusal(
                f"the conversation does not begin with its own generation prompt, or does not end "
                f"as others do, for {short(prompt)}"
            )
        end = len(whole) - len(self._after)
        border = len(asked)
        if given:
            at = whole.find(given, border, end)
            if at < 0:
                raise self._template.refusal(f"it leaves out {short(given)}")
            ids = self._continued(ids, whole[: at + len(given)], border)
            border = at + len(given)
        text = whole[:end] if open_ended else whole[:end] + self._turn_end
        found = self._continued(ids, text, border)
        closing = [] if open_ended else self._closing
        return Conversation([*found, *closing], len(ids))

    def cut(self, text: str, count: int) -> str:
        """`text`, or a beginning of it that takes at most `count` tokens as an answer."""
        if self._length(text) <= count:
            return text
        lengths = range(1, len(text) + 1)
        fits = bisect_right(lengths, count, key=lambda n: self._length(text[:n]))
        return text[:fits]

    def filler(self, count: int) -> str:
        """A text of `count` tokens, or hardly more, that says nothing.

        Raises:
            Refusal: the tokenizer makes no tokens of numbers.
        """
        for times in (1, 4, 16):
            text = "0 " * count * times
            if self._length(text) >= count:
                lengths = range(1, len(text) + 1)
                return text[: 1 + bisect_left(lengths, count, key=lambda n: self._length(text[:n]))]
        raise Refusal(f"{self._file.path}: it makes no tokens of numbers; download it again")

    def decode(self, ids: Sequence[int]) -> str:
        """The answer that tokens are, before the first that ends it: without special tokens, and
        without what the template writes around every answer."""
        stop = next((i for i, token in enumerate(ids) if token in self._end_ids), len(ids))
        text = self._said(ids[:stop]).removeprefix(self._lead)
        return text.removesuffix(self._tail) if stop < len(ids) else text

    def _ask(self, prompt: str) -> tuple[str, list[int]]:
        """A user turn up to where the assistant speaks, as text and in tokens."""
        text = self._template.render([_turn("user", prompt)], add_generation_prompt=True)
        return text, self._file.encode(text)

    def _rendered(self, prompt: str, answer: str) -> str:
        messages = [_turn("user", prompt), _turn("assistant", answer)]
        return self._template.render(messages, add_generation_prompt=False)

    def _continued(self, ids: list[int], text: str, border: int) -> list[int]:
        """The tokens of a text that is `ids` up to `border`, as a model would go on from them.

        Where tokens of the whole text run across the border, it goes on with those of the rest.
        """
        whole = self._file.encode(text)
        if whole[: len(ids)] == ids:
            return whole
        for behind in _BEHIND:
            start = self._file.encode(behind)
            found = self._file.encode(behind + text[border:])
            if found[: len(start)] == start:
                return [*ids, *found[len(start) :]]
        raise Refusal(
            f"{self._file.path}: it has no tokens of their own for {short(text[border:])}; use "
            f"another base.chat_template"
        )

    def _length(self, answer: str) -> int:
        """Tokens of an answer that may go on."""
        ids, start = self.conversation(_QUESTION, answer, open_ended=True)
        return len(ids) - start

    def _said(self, ids: Sequence[int]) -> str:
        """The text of an answer's tokens. It is decoded behind another, since many tokenizers leave
        out a space where a text begins."""
        before = self._file.decode(self._context)
        return self._file.decode([*self._context, *ids])[len(before) :]

    def _end_of_turn(
        self, whole: str, after: str, ends: Sequence[int]
    ) -> tuple[str, list[int], int]:
        """What the template writes after an answer up to with the token that ends the turn, what is
        to be added where it ends none, and the end."""
        special = {token for token, is_special in self._file.added().items() if is_special}
        answered = len(whole) - len(after)
        for token, at in self._file.ends(whole):
            if at > answered and token in {*ends, *special}:
                return whole[answered:at], [], token
        if not ends:
            raise self._template.refusal("it ends no turn, and no eos_token is configured")
        return after, [ends[0]], ends[0]


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _open_thought(text: str) -> bool:
    """Whether a text ends inside of a thought that it opened."""
    marks = [not mark["closes"] for mark in _THOUGHT.finditer(text)]
    return bool(marks and marks[-1])
