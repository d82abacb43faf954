"""Asking a model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from jaxorg.config import Config, misfit
from jaxorg.errors import Refusal, install
from jaxorg.escape_controls import escape_controls

if TYPE_CHECKING:
    import openai

Ask = Callable[[Sequence[str]], Sequence[str]]
"""Questions to a model, and its replies in their order."""

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
_HIDDEN = "(not shown)"
_MOST_SAID = 200  # characters of what a server says of an error


class Endpoint(Config):
    """Where a model is asked, and by whose key.

    `key` names an environment variable. What it holds goes to the server, and is neither kept nor
    shown: where the server says it back, it is blotted out.
    """

    base_url: str = Field(min_length=1, max_length=2000)
    key: str | None = "OPENAI_API_KEY"  # None: the server wants none
    timeout: float = Field(default=60.0, gt=0, le=3600)  # seconds, of one try
    retries: int = Field(default=4, ge=0, le=20)  # after 408, 409, 429, 5xx or no connection

    @model_validator(mode="after")
    def _safe(self) -> Endpoint:
        if self.key is not None and not _VARIABLE.fullmatch(self.key):
            remedy = "name an environment variable in capitals; the key itself stands in no file"
            raise misfit("key", _HIDDEN, remedy)
        try:
            url = urlsplit(self.base_url)
            host, _ = url.hostname or "", url.port
        except ValueError:
            raise misfit("base_url", _HIDDEN, "it is no URL") from None
        if url.username is not None or url.password is not None or url.query:
            remedy = "a password or a query may be a secret; leave it out, and use key"
            raise misfit("base_url", _HIDDEN, remedy)
        if url.scheme not in ("http", "https") or not host:
            raise misfit("base_url", self.base_url, "give one such as https://HOST/v1")
        if url.scheme == "http" and self.key is not None and not _is_here(host):
            remedy = "a key would travel unencrypted; use https, or key: null"
            raise misfit("base_url", self.base_url, remedy)
        return self

    def ask(self, model: str, temperature: float | None, new_tokens: int) -> Ask:
        """What asks a model there, all questions of a call at once.

        Args:
            model: its name there.
            temperature: None for models that take none.
            new_tokens: the most tokens of a reply.

        Raises:
            Refusal: there is no key, or no `openai` package. The function that is returned raises
                one where the server cannot be reached, or does not answer as it should.
        """
        secret = self._secret()
        client = self._client(secret)
        settings: dict[str, Any] = {"model": model, "max_completion_tokens": new_tokens}
        if temperature is not None:
            settings["temperature"] = temperature

        def one(question: str) -> str:
            return self._reply(client, secret, question, settings)

        def every(questions: Sequence[str]) -> Sequence[str]:
            with ThreadPoolExecutor(max(len(questions), 1)) as pool:
                return list(pool.map(one, questions))

        return every

    def _secret(self) -> str:
        """The key; "" where none is wanted."""
        if self.key is None:
            return ""
        if secret := os.environ.get(self.key, "").strip():
            return secret
        raise Refusal(
            f"prompts.scorer.endpoint.key: the environment variable {self.key} is not set; set "
            f"it, or give "
            f"key: null for a server that wants none"
        )

    def _client(self, secret: str) -> openai.OpenAI:
        try:
            import openai
        except ImportError:
            remedy = install("judge")
            raise Refusal(
                f"prompts.scorer.endpoint: it needs the package openai; {remedy}"
            ) from None
        try:
            return openai.OpenAI(
                base_url=self.base_url,
                api_key=secret or "none",  # the package wants one
                timeout=self.timeout,
                max_retries=self.retries,
            )
        except openai.OpenAIError:
            raise Refusal(
                "prompts.scorer.endpoint: the package openai refuses these settings"
            ) from None

    def _reply(
        self, client: openai.OpenAI, secret: str, question: str, settings: dict[str, Any]
    ) -> str:
        """What the model replies to one question; "" where it says nothing.

        Args:
            client: what asks it.
            secret: the key, which must not come back in the reply or in a message.
            question: the text of the only message.
            settings: how it is asked besides.

        Raises:
            Refusal: there is no reply. It does not chain to the package's exception, which holds
                the request with its headers.
        """
        import openai

        url = self.base_url
        text = question.encode("utf-8", "replace").decode()  # halves of characters have no UTF-8
        try:
            completion = client.chat.completions.create(
                messages=[{"role": "user", "content": text}], **settings
            )
            reply = completion.choices[0].message.content or ""
            return _without(secret, reply)
        except openai.APIStatusError as error:
            said = _without(secret, escape_controls(" ".join(str(error.message).split())))[
                :_MOST_SAID
            ]
            problem = f"prompts.scorer.endpoint.base_url: {url} answers {error.status_code}: {said}"
            remedy = _REMEDIES.get(error.status_code, "try again later")
        except openai.APIConnectionError as error:
            slow = isinstance(error, openai.APITimeoutError)
            why = f"takes over {self.timeout:g} s" if slow else "cannot be reached"
            problem = f"prompts.scorer.endpoint.base_url: {url} {why}"
            remedy = "is the server running? A try may be longer with timeout"
        except (openai.OpenAIError, AttributeError, IndexError, TypeError, ValueError):
            problem = f"prompts.scorer.endpoint.base_url: {url} answers with no chat completion"
            remedy = "give the URL that ends in /v1 or the like"
        raise Refusal(f"{problem}; {remedy}")


_REMEDIES = {
    400: "change what it names; a model that takes no temperature has temperature: null",
    401: "check the key in the environment variable that prompts.scorer.endpoint.key names",
    403: "check the key in the environment variable that prompts.scorer.endpoint.key names",
    404: "check prompts.scorer.model and the URL",
    429: "ask fewer at once with prompts.scorer.at_once, or later",
}


def _without(secret: str, text: str) -> str:
    return text.replace(secret, "***") if secret else text


def _is_here(host: str) -> bool:
    """Whether a host is this machine, so that nothing travels."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
