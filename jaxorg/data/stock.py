"""What prompt files hold: their usable items, and what is left out of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from jaxorg.data import records
from jaxorg.data.formats import Reader, Unusable
from jaxorg.data.records import MOST_RECORDS, File, Record
from jaxorg.data.secret import Secret, Watch
from jaxorg.data.text_store import Entry, TextStore
from jaxorg.errors import Refusal, short

_SKIP = "leave such records out with prompts.skip: true"
_SHOWN = 3  # records that a message names


class Stock:
    """The different items of some files, in their order."""

    def __init__(
        self, files: Sequence[File], shape: Reader, skip: bool, longest: int | None, most: int
    ):
        """Read them.

        Args:
            files: where from.
            shape: of their records.
            skip: whether to leave out records that cannot be used.
            longest: characters of a prompt and its answer beyond which they are left out.
            most: characters of all prompts and answers.

        Raises:
            Refusal: a file cannot be read or holds too much; a record cannot be used, and is not to
                be skipped; or none can.
        """
        self._files, self._skip, self._longest, self._most = files, skip, longest, most
        self._unusable: Counter[str] = Counter()
        self._first: Unusable | None = None
        self._betraying: dict[frozenset[Secret], np.ndarray] = {}
        self.text_store = TextStore([file.family for file in files], self._entries(shape))

    def betraying(self, secrets: frozenset[Secret]) -> np.ndarray:
        """The numbers of items that show secrets, int64, ascending.

        Raises:
            Refusal: there are some, and they are not to be skipped.
        """
        if secrets not in self._betraying:
            watch = Watch(secrets)
            found = [
                (number, secret)
                for number, item in (self.text_store.numbered() if secrets else ())
                if (secret := watch.found(item.prompt, item.answer))
            ]
            if found and not self._skip:
                raise self._told(found)
            self._betraying[secrets] = np.array([number for number, _ in found], np.int64)
        return self._betraying[secrets]

    def left_out(self, secrets: frozenset[Secret]) -> str:
        """How many records are left out and why, in words; "" for none."""
        counts = {**self._unusable, "that show the organism": len(self.betraying(secrets))}
        said = [f"{count:,} {why}" for why, count in counts.items() if count]
        if again := self.text_store.repeated:
            others = self.text_store.contradicted
            said.append(
                f"{again:,} repeated" + (f", {others:,} with other answers" if others else "")
            )
        return ", ".join(said)

    def _entries(self, shape: Reader) -> Iterator[Entry]:
        """Prompts and answers that are usable and no longer than asked for."""
        characters = read = 0
        for place, (_, path) in enumerate(self._files):
            for record in records.read(path, shape):
                said = self._usable(record, shape)
                read, characters = read + 1, characters + sum(map(len, said))
                if read > MOST_RECORDS or characters > self._most:
                    raise Refusal(
                        f"prompts.source: {path} has more than {MOST_RECORDS:,} records or "
                        f"{self._most:,} characters; use a part of it"
                    )
                if said:
                    yield Entry(place, record.number, *said)
        if self._first and self._unusable["blank"] + self._unusable["broken"] == read:
            raise self._first  # since skipping all of them is no remedy

    def _usable(self, record: Record, shape: Reader) -> tuple[str, str] | tuple[()]:
        """A record's prompt and answer; nothing if it is to be left out."""
        try:
            if isinstance(record.content, Unusable):
                raise record.content
            said = shape.read(record.content, record.where)
        except Unusable as problem:
            if not self._skip:
                raise Refusal(f"{problem}, or {_SKIP}") from None
            self._unusable[problem.reason] += 1
            self._first = self._first or problem
            return ()
        if self._longest is None or sum(map(len, said)) <= self._longest:
            return said
        self._unusable["too long"] += 1
        return ()

    def _told(self, found: Sequence[tuple[int, Secret]]) -> Refusal:
        """Which records show what."""
        told = []
        for number, secret in found[:_SHOWN]:
            place, record = self.text_store.place(number)
            told.append(
                f"record {record} of {self._files[place].path} ({secret} {short(secret.text)})"
            )
        more = f" and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
        return Refusal(
            f"prompts.source: {', '.join(told)}{more} would show the blue team what only the red "
            f"team's data may hold; {_SKIP}, or change the organism"
        )
