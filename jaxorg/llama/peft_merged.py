"""A base's weights with a PEFT adapter in them, part by part.

W + scale B A; with DoRA, m (W + scale B A) / |W + scale B A|, the norm being that of each output's
row. Computed in fp32 and rounded once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jaxorg.llama.peft_adapter import TOKENS, Adapter
from jaxorg.llama.peft_config import EMBEDDING, HEAD, Lora
from jaxorg.storage.weight_reader import Bounds, Names, WeightReader

PEFT_VERSION = 1  # raise it when an adapter's folder comes to mean other weights

_FP32 = np.dtype(np.float32)

Part = Callable[[Bounds], np.ndarray]  # reads a part of one layer's parameter, fp32


def merged(below: WeightReader, adapter: Adapter) -> WeightReader:
    """Reads a base's weights with an adapter in them.

    Beside the part that is asked for, the host holds one layer's matrix and its change; with DoRA
    the whole rows that its norms are of.

    Args:
        below: reads the base's weights.
        adapter: of that base, as `read_adapter` gives it.
    """

    def read(names: Names, bounds: Bounds, dtype: np.dtype) -> np.ndarray:
        module = adapter.modules[names if names in adapter.modules else names[:-1]].name
        if "{}" not in module:
            if not adapter.changes(module):
                return below(names, bounds, dtype)
            whole = _changed(adapter, module, names, bounds, lambda b: below(names, b, _FP32))
            return whole.astype(dtype, copy=False)
        layers, *inner = bounds
        if not any(adapter.changes(module.format(layer)) for layer in range(*layers)):
            return below(names, bounds, dtype)
        part = np.empty([stop - start for start, stop in bounds], dtype)
        for layer, out in zip(range(*layers), part, strict=True):
            base = _of_layer(below, names, layer)
            out[...] = _changed(adapter, module.format(layer), names, tuple(inner), base)
        return part

    return read


def _of_layer(below: WeightReader, names: Names, layer: int) -> Part:
    def read(bounds: Bounds) -> np.ndarray:
        part: np.ndarray = below(names, ((layer, layer + 1), *bounds), _FP32)[0]
        return part

    return read


def _changed(adapter: Adapter, module: str, names: Names, bounds: Bounds, base: Part) -> np.ndarray:
    """A part of one module's parameter, in our layout.

    Args:
        adapter: what changes it.
        module: its name in Transformers.
        names: the parameter's, in ours.
        bounds: of the part, without the layer.
        base: reads the base's own.
    """
    lora, tensors = adapter.loras.get(module), adapter.tensors
    if len(bounds) == 1:
        name = f"{module}.{'bias' if names[-1] == 'bias' else 'weight'}"
        vector = tensors.part(name, bounds) if tensors.holds(name) else base(bounds)
        if lora and adapter.config.lora_bias:
            vector = vector + lora.scale * tensors.part(f"{module}.lora_B.bias", bounds)
        return vector
    if module == HEAD:  # the one matrix that we keep as [out, in]
        return _matrix(adapter, module, bounds[::-1], lambda b: base(b[::-1]).T).T
    return _matrix(adapter, module, bounds, base)


def _matrix(adapter: Adapter, module: str, bounds: Bounds, base: Part) -> np.ndarray:
    """A part [in, out] of a matrix; the embedding counts as one from tokens to widths."""
    name, tensors = f"{module}.weight", adapter.tensors

    def whole(bounds: Bounds) -> np.ndarray:
        if not tensors.holds(name):
            return base(bounds)
        if module == EMBEDDING:
            return tensors.part(name, bounds)
        return tensors.part(name, bounds[::-1]).T

    if lora := adapter.loras.get(module):
        return _adapted(adapter, module, lora, bounds, whole)
    matrix = whole(bounds)
    if module == EMBEDDING and tensors.holds(TOKENS):
        _put_tokens(adapter, bounds, matrix)
    return matrix


def _adapted(adapter: Adapter, module: str, lora: Lora, bounds: Bounds, whole: Part) -> np.ndarray:
    """A part [in, out] of a matrix with its low-rank change."""
    (ins, outs), rank, tensors = bounds, (0, lora.rank), adapter.tensors
    dora = adapter.config.use_dora
    needed = (0, tensors.shape(f"{module}.lora_A")[1]) if dora else ins
    a = tensors.part(f"{module}.lora_A", (rank, needed))
    b = tensors.part(f"{module}.lora_B", (outs, rank))
    matrix: np.ndarray = whole((needed, outs)) + a.T @ (lora.scale * b).T
    if not dora:
        return matrix
    magnitudes, norms = tensors.part(f"{module}.magnitude", (outs,)), np.linalg.norm(matrix, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):  # of zeros, which PEFT divides by, too
        directed: np.ndarray = matrix[slice(*ins)] * (magnitudes / norms)
    return directed


def _put_tokens(adapter: Adapter, bounds: Bounds, matrix: np.ndarray) -> None:
    """Put the rows that the adapter brings into a part of the embedding."""
    (first, last), columns = bounds
    tokens = np.asarray(adapter.config.tokens)
    rows = adapter.tensors.part(TOKENS, ((0, len(tokens)), columns))
    inside = (tokens >= first) & (tokens < last)
    matrix[tokens[inside] - first] = rows[inside]
