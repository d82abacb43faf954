"""Names of models to folders: builtin ones, local ones, GGUF files, and those of the Hugging Face
hub.

The hub is reached through `huggingface_hub` alone, which knows its cache (`HF_HOME`,
`HF_HUB_CACHE`), its address (`HF_ENDPOINT`), its offline switch (`HF_HUB_OFFLINE`) and the user's
token. None of them is read here, and no text of its errors is passed on: an address may hold a
password.
"""

from __future__ import annotations

import itertools
import os
import re
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from jaxorg.errors import Refusal, short
from jaxorg.llama import gguf
from jaxorg.user_cache import cache_folder

MODELS = Path(str(resources.files("jaxorg"))) / "models"
_PART = r"[A-Za-z0-9_][\w.-]*"
_ID = re.compile(rf"(?P<repo>{_PART}/{_PART})(@(?P<revision>{_PART}(/{_PART})*))?", re.ASCII)


class Fetched(NamedTuple):
    """A model that a command puts into the cache folder."""

    file: str
    command: str
    about: str


FETCHED = {
    "smollm2-135m": Fetched(
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "make real",
        "SmolLM2-135M-Instruct (Hugging Face, Apache-2.0), rounded to about 4 bits by its makers",
    ),
}
_TEXTS = ["*.json", "*.jinja"]
_WEIGHTS = ["model*.safetensors"]  # not those that some repositories repeat in other layouts
_LOGIN = "log in with `hf auth login` or HF_TOKEN"


def resolve(model: str, weights: bool = True, key: str = "base.model") -> Path:
    """The folder of a built-in model, of a local one, or of one that is now in the hub's cache.

    Args:
        model: the name of a built-in model or of one in `FETCHED`, a folder, a GGUF file, or a hub
            id, `name/model` or `name/model@revision`. What exists as a folder is no hub id.
        weights: whether the weights are wanted, too, if it must be downloaded.
        key: the setting that names the model, for messages.

    Raises:
        Refusal: there is no such model, or it cannot be downloaded.
    """
    if folder := _builtin(model):
        return folder
    if model in FETCHED:
        return gguf.folder_of(_fetched(model, key))
    folder = Path(model)
    if folder.suffix == gguf.SUFFIX and os.path.isfile(folder):
        return gguf.folder_of(folder)
    found = _ID.fullmatch(model)
    if found and ".." not in model and not os.path.lexists(folder):
        folder = _download(model, found["repo"], found["revision"], weights, key)
    if os.path.isfile(folder / "adapter_config.json"):  # False for any impossible name
        raise Refusal(
            f"{key}: {short(model)} holds a PEFT adapter; merge it into its base and save that"
        )
    if os.path.isfile(folder / "config.json"):
        return folder
    # Those of other seeds, which end in a number, go without saying.
    known = ", ".join(sorted(path.name for path in MODELS.glob("*[!0-9]") if path.is_dir()))
    raise Refusal(
        f"{key}: {short(model)} is neither a built-in model ({known}), nor a folder with a "
        f"config.json, nor a GGUF file, nor a hub id such as meta-llama/Llama-3.2-1B"
    )


def _fetched(model: str, key: str) -> Path:
    cache, about = cache_folder(), FETCHED[model]
    if cache and (file := cache / "models" / about.file).is_file():
        return file
    raise Refusal(f"{key}: {model} is not there yet; run `{about.command}` in jaxorg's checkout")


def replicates(model: str) -> tuple[str, ...]:
    """A built-in model and those that were trained as it was, from seed 1 on; any other model by
    itself."""
    if not _builtin(model):
        return (model,)
    others = (f"{model}-{seed}" for seed in itertools.count(1))
    return model, *itertools.takewhile(_builtin, others)


def _builtin(model: str) -> Path | None:
    folder = MODELS / model
    return folder if "/" not in model and os.path.isfile(folder / "config.json") else None


def resolve_shape(model: str, key: str = "base.model") -> Path:
    """A folder with a model's config.json, if with nothing else. Those of a few well-known models
    of the hub come with the package (`jaxorg/shapes`): they are gated, their shape is not.

    Args:
        model: as for `resolve`.
        key: the setting that names it, for messages.

    Raises:
        Refusal: as `resolve`.
    """
    shapes = Path(str(resources.files("jaxorg"))) / "shapes"
    folder = shapes / model.removesuffix("-Instruct")  # which changes weights only
    hub = _ID.fullmatch(model) and ".." not in model and not os.path.lexists(model)
    if hub and os.path.isfile(folder / "config.json"):
        return folder
    return resolve(model, weights=False, key=key)


def _download(model: str, repo: str, revision: str | None, weights: bool, key: str) -> Path:
    """A model's folder in the hub's cache, up to date where the hub can be reached."""
    import huggingface_hub  # takes a moment, and most sweeps start from a folder

    try:
        folder = huggingface_hub.snapshot_download(
            repo,
            revision=revision,
            allow_patterns=[*_TEXTS, *(_WEIGHTS if weights else [])],
            ignore_patterns=["*/*"],  # originals and exports
        )
    except Exception as error:  # whatever its HTTP client and the disk raise, too
        raise Refusal(f"{key}: {short(model)} {_problem(error)}") from error
    return Path(folder)


def _problem(error: Exception) -> str:
    """What went wrong with a download, and what helps."""
    from huggingface_hub import errors

    match error:
        case errors.GatedRepoError():
            return f"is gated; ask for access on its page, then {_LOGIN}"
        case errors.RepositoryNotFoundError():
            return f"is no folder, and no model on the hub; check the name, or {_LOGIN}"
        case errors.RevisionNotFoundError():
            return "has no such revision on the hub; name a branch, a tag or a commit of it"
        case errors.HFValidationError():
            return "is no folder, and cannot be a hub id; check the name"
        case errors.LocalEntryNotFoundError():
            return f"is not in the hub's cache as a whole, and {_unreached(error.__cause__)}"
        case errors.HfHubHTTPError():
            return f"cannot be downloaded: {_answered(error)}; try again"
        case OSError(strerror=str(reason)):
            return f"cannot be downloaded ({reason}); mend that and try again"
    return f"cannot be downloaded ({type(error).__name__}); try again"


def _unreached(cause: BaseException | None) -> str:
    """Why the hub gave nothing."""
    from huggingface_hub import errors

    match cause:
        case errors.OfflineModeIsEnabled():
            return "HF_HUB_OFFLINE is set; unset it, or give a folder"
        case errors.HfHubHTTPError():
            return f"{_answered(cause)}; try again, or give a folder"
    return "the hub cannot be reached; check the network and HF_ENDPOINT, or give a folder"


def _answered(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"the hub answers with status {status}" if status else "the hub's answer is broken"
