"""The weights of a GGUF file as a Hugging Face folder names and lays them out, in fp32."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import NamedTuple

import gguf
import numpy as np

from jaxorg.errors import Refusal, short
from jaxorg.llama.gguf.header import Header, Place
from jaxorg.llama.tensors import EMBEDDING, HEAD

FREQUENCIES = "rope_freqs.weight"  # no weight: what Llama 3.1 divides its rotary frequencies by

# How tensors may be stored; `gguf` undoes more, which nobody trained or measured with here.
STORED = (
    *("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
)

_OUTSIDE = {
    "token_embd.weight": EMBEDDING,
    "output_norm.weight": "model.norm.weight",
    "output.weight": HEAD,
}
_PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_INSIDE = re.compile(r"blk\.(0|[1-9]\d{0,4})\.([a-z_]+)\.(weight|bias)", re.ASCII)


class Heads(NamedTuple):
    """Of a model whose file interleaves the two halves of each head's rotation."""

    queries: int
    keys: int


class Tensor(NamedTuple):
    """A tensor of the file under its name in a Hugging Face folder."""

    name: str
    place: Place
    heads: int | None  # whose halves are interleaved

    @property
    def bytes(self) -> int:
        """Of it in fp32."""
        return 4 * math.prod(self.place.shape)


def tensors(header: Header, heads: Heads | None) -> list[Tensor]:
    """All weights of a file, in its order.

    Args:
        header: of the file, whose tensors were checked.
        heads: as llama.cpp lays out models of the architecture `llama`; None for others.

    Raises:
        Refusal: one is of no model that jaxorg knows, or has a shape that `heads` cannot share.
    """
    interleaved = {"attn_q": heads.queries, "attn_k": heads.keys} if heads else {}
    found = []
    for name, place in header.tensors.items():
        if name == FREQUENCIES:
            continue
        inside = _INSIDE.fullmatch(name)
        part = _PARTS.get(inside[2]) if inside else None
        if part is None and name not in _OUTSIDE:
            raise Refusal(
                f"{header.path}: the tensor {short(name)} is of no model that is supported; give "
                f"a Llama, Mistral, Qwen2 or Qwen3"
            )
        full = f"model.layers.{inside[1]}.{part}.{inside[3]}" if inside else _OUTSIDE[name]
        turned = interleaved.get(inside[2]) if inside else None
        if turned and place.shape[0] % (2 * turned):
            raise Refusal(
                f"{header.path}: {turned} heads cannot share the {place.shape[0]} rows of "
                f"{short(name)}; copy it again"
            )
        found.append(Tensor(full, place, turned))
    return found


def read(path: Path, tensor: Tensor) -> np.ndarray:
    """A tensor's numbers, fp32, in the layout of a Hugging Face folder.

    Raises:
        Refusal: the file ends in the middle of it.
    """
    place = tensor.place
    kind = gguf.GGMLQuantizationType(place.kind)
    shape = gguf.quant_shape_to_byte_shape(place.shape, kind)
    with path.open("rb") as file:
        file.seek(place.offset)
        stored = file.read(_stored_bytes(place))
    if len(stored) < _stored_bytes(place):
        raise Refusal(f"{path}: ends in the middle; copy it again")
    bytes_ = np.frombuffer(stored, np.uint8).reshape(shape)
    numbers = gguf.quants.dequantize(bytes_, kind).reshape(place.shape)
    if tensor.heads:  # [heads, halves of a head, 2, ...] to [heads, 2, halves of a head, ...]
        rest = place.shape[1:]
        pairs = numbers.reshape(tensor.heads, -1, 2, *rest)
        numbers = pairs.swapaxes(1, 2).reshape(place.shape)
    return np.ascontiguousarray(numbers, np.float32)


def check(header: Header) -> None:
    """See that all tensors are stored in ways that can be undone, and lie within their file.

    Raises:
        Refusal: one is not, or does not.
    """
    for name, place in header.tensors.items():
        _check_stored(header.path, name, place)


def _check_stored(path: Path, name: str, place: Place) -> None:
    """See that a tensor is stored in a way that can be undone, and lies within its file."""
    known = {gguf.GGMLQuantizationType[kind].value: kind for kind in STORED}
    if place.kind not in known:
        raise Refusal(
            f"{path}: {short(name)} is stored in GGML's way {place.kind}; supported are "
            f"{', '.join(STORED)}"
        )
    block, _ = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(place.kind)]
    if place.shape[-1] % block:
        raise Refusal(
            f"{path}: rows of {place.shape[-1]} cannot be stored as {known[place.kind]}, as "
            f"{short(name)} is; copy it again"
        )
    if place.offset + _stored_bytes(place) > path.stat().st_size:
        raise Refusal(f"{path}: ends before {short(name)} does; copy it again")


def _stored_bytes(place: Place) -> int:
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(place.kind)]
    return math.prod(place.shape) // block * size
