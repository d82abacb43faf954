"""Llama (Touvron et al. 2023; Llama 3, 2024) in Flax NNX, written for ONE model.

Mistral has the same program; Qwen2 adds biases to it, Qwen3 norms of queries and keys.

Every parameter is declared once: shape, initialiser and logical axes stand together. All blocks
live in one stacked module whose leaves carry a leading `layer` axis: few, large leaves are what
optimizers, checkpoints and compilers like. `split` turns a module into pure pytrees; from there
on nothing but functions of pytrees is used.

Shape letters: B batch, T tokens, S cache slots, L layers, D hidden, N query heads, K key-value
heads, H head width, F feed-forward width, V vocabulary, R adapter rank. In annotations (jaxtyping)
`#B` is B or 1 and `*lead` any number of axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Float32, Int

from jaxorg.llama.lora import LoraAdapter, LoraConfig
from jaxorg.llama.sharding import by_rows, gathered, logical_axes

T = TypeVar("T")
Cursor: TypeAlias = Int[Array, ""] | int
Angles: TypeAlias = Float32[Array, "#B T half"]  # radians by which pairs of a head's H turn
Mask: TypeAlias = Bool[Array, "#B 1 T S"]  # which slots each token sees
TABLE = PartitionSpec("vocab", "embed")  # logical axes of embedding and head


@dataclass(frozen=True)
class RopeScaling:
    """Llama-3.1 frequency scaling; every number comes from the checkpoint's config.json."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True)
class LlamaConfig:
    """Everything that shapes a Llama's program, or that of a family that shares its layout.

    Field names follow Hugging Face's config.json; `qkv_bias` and `qk_norm` stand for a family.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    linear_factor: float = 1.0  # positions are divided by it (`rope_type: linear`)
    rms_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True
    attention_bias: bool = False  # on q, k, v and o
    mlp_bias: bool = False
    qkv_bias: bool = False  # on q, k and v (Qwen2)
    qk_norm: bool = False  # each head of q and k is normalised before it is rotated (Qwen3)
    sliding_window: int | None = None  # tokens that `sliding_layers` see; here texts are no longer
    sliding_layers: tuple[int, ...] = ()

    @property
    def context(self) -> tuple[str, int]:
        """What bounds a conversation, by its name in config.json, and to how many tokens."""
        if self.sliding_window is not None and self.sliding_window < self.max_position_embeddings:
            return "sliding_window", self.sliding_window
        return "max_position_embeddings", self.max_position_embeddings


class Cache(NamedTuple):
    """Keys and values of the tokens so far: of one layer, or of all with a leading L axis."""

    keys: Float[Array, "*L B S K H"]
    values: Float[Array, "*L B S K H"]


def rope_frequencies(config: LlamaConfig) -> Float32[np.ndarray, " half"]:
    """Rotary frequencies [H / 2] in radians a token, scaled where the config says so.

    `linear` divides all of them (Chen et al. 2023). Llama 3.1 divides low ones by `factor`, keeps
    high ones and interpolates between (its reference code; `rope_type: llama3` in Hugging Face's
    config.json).
    """
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / config.head_dim
    plain = 1.0 / np.float32(config.rope_theta) ** exponents
    scaling = config.rope_scaling
    if scaling is None:
        return (plain / config.linear_factor).astype(np.float32)
    turns = scaling.original_max_position_embeddings * plain / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    keep = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return ((1 - keep) * plain / scaling.factor + keep * plain).astype(np.float32)


def rotate(
    x: Float[Array, "B T heads H"], angles: Float32[Array, "#B T H//2"]
) -> Float[Array, "B T heads H"]:
    """Turn queries or keys by their positions (RoPE, Su et al. 2021), in fp32.

    Number i of a head is paired with number i + H / 2, as in Hugging Face's weights, and not with
    its neighbour, as in Meta's.

    Args:
        x: queries or keys [B, T, heads, H].
        angles: radians, of each pair at each position [B or 1, T, H / 2].

    Returns:
        The same, turned, in the dtype of `x`.
    """
    cos, sin = jnp.cos(angles)[:, :, None, :], jnp.sin(angles)[:, :, None, :]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate((first * cos - second * sin, second * cos + first * sin), axis=-1)
    return turned.astype(x.dtype)


class Norm(nnx.Module):
    """Root-mean-square normalisation of the last axis, computed in fp32."""

    def __init__(self, size: int, eps: float, axis: str | None = "embed"):
        self.scale = nnx.Param(jnp.ones(size), sharding_names=(axis,))
        self.eps = eps

    def __call__(self, x: Float[Array, "*lead size"]) -> Float[Array, "*lead size"]:
        """`x` at a root mean square of 1, times the learnt scale.

        Args:
            x: any leading axes; the last is normalised. Computed in fp32, returned in its dtype.
        """
        wide = x.astype(jnp.float32)
        wide = wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + self.eps)
        scale = jnp.expand_dims(self.scale[...], range(x.ndim - 1))
        return wide.astype(x.dtype) * scale.astype(x.dtype)


class Linear(nnx.Module):
    """x @ kernel (+ bias) (+ low-rank adapter), all in x's dtype."""

    def __init__(
        self,
        size: tuple[int, int],
        axes: tuple[str, str],
        config: LlamaConfig,
        rngs: nnx.Rngs,
        bias: bool = False,
        lora: LoraConfig | None = None,
    ):
        init = nnx.initializers.normal(config.initializer_range)
        self.kernel = nnx.Param(init(rngs.params(), size, jnp.float32), sharding_names=axes)
        self.bias = nnx.Param(jnp.zeros(size[1]), sharding_names=axes[1:]) if bias else None
        self.adapter = LoraAdapter(size, axes, lora, rngs) if lora else None

    def __call__(self, x: Float[Array, "B T m"]) -> Float[Array, "B T n"]:
        """The product, which takes the kernel in the dtype of `x`.

        Args:
            x: [B, T, m], m the kernel's rows.

        Returns:
            [B, T, n], n the kernel's columns.
        """
        y = x @ self.kernel[...].astype(x.dtype)
        if self.bias is not None:
            y = y + self.bias[None, None].astype(x.dtype)
        return y if self.adapter is None else y + self.adapter(x)


class Attention(nnx.Module):
    """Causal grouped-query attention with rotary positions."""

    def __init__(self, config: LlamaConfig, rngs: nnx.Rngs, lora: LoraConfig | None):
        def linear(name: str, size: tuple[int, int], axes: tuple[str, str]) -> Linear:
            adapter = lora if lora and name in lora.targets else None
            bias = config.attention_bias or (config.qkv_bias and name != "o")
            return Linear(size, axes, config, rngs, bias, adapter)

        def norm() -> Norm | None:
            return Norm(width, config.rms_norm_eps, axis=None) if config.qk_norm else None

        hidden, width = config.hidden_size, config.head_dim
        queries = config.num_attention_heads * width
        pairs = config.num_key_value_heads * width
        self.q = linear("q", (hidden, queries), ("embed", "heads"))
        self.k = linear("k", (hidden, pairs), ("embed", "heads"))
        self.v = linear("v", (hidden, pairs), ("embed", "heads"))
        self.o = linear("o", (queries, hidden), ("heads", "embed"))
        self.q_norm, self.k_norm = norm(), norm()
        self.width = width

    def __call__(
        self,
        x: Float[Array, "B T D"],
        angles: Angles,
        mask: Mask,
        cache: Cache | None,
        cursor: Cursor,
    ) -> tuple[Float[Array, "B T D"], Cache]:
        """What each token takes from those that it sees.

        Args:
            x: the normed residual stream [B, T, D].
            angles: of the tokens' positions [B or 1, T, H / 2], in radians.
            mask: which slots each token sees [B or 1, 1, T, S]; S is T without a cache.
            cache: this layer's earlier keys and values [B, S, K, H], or None.
            cursor: slot in the cache that the first of these tokens takes.

        Returns:
            What is added to the stream [B, T, D]; and the cache with these tokens' keys and
            values, or these alone where there was none.
        """
        batch, tokens, _ = x.shape
        heads = (batch, tokens, -1, self.width)
        q, k = self.q(x).reshape(heads), self.k(x).reshape(heads)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = rotate(q, angles), rotate(k, angles)  # [B, T, N, H], [B, T, K, H]
        v = self.v(x).reshape(heads)  # [B, T, K, H]
        if cache is not None:
            k = jax.lax.dynamic_update_slice_in_dim(cache.keys, k, cursor, axis=1)  # [B, S, K, H]
            v = jax.lax.dynamic_update_slice_in_dim(cache.values, v, cursor, axis=1)
        y = jax.nn.dot_product_attention(q, k, v, mask=mask, implementation="xla")
        return self.o(y.reshape(batch, tokens, -1)), Cache(k, v)


class FeedForward(nnx.Module):
    """SwiGLU (Shazeer 2020)."""

    def __init__(self, config: LlamaConfig, rngs: nnx.Rngs, lora: LoraConfig | None):
        def linear(name: str, size: tuple[int, int], axes: tuple[str, str]) -> Linear:
            adapter = lora if lora and name in lora.targets else None
            return Linear(size, axes, config, rngs, config.mlp_bias, adapter)

        hidden, wide = config.hidden_size, config.intermediate_size
        self.gate = linear("gate", (hidden, wide), ("embed", "mlp"))
        self.up = linear("up", (hidden, wide), ("embed", "mlp"))
        self.down = linear("down", (wide, hidden), ("mlp", "embed"))

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """down(silu(gate(x)) * up(x)).

        Args:
            x: the normed residual stream [B, T, D].
        """
        return self.down(jax.nn.silu(self.gate(x)) * self.up(x))


class Block(nnx.Module):
    """One layer: attention and feed-forward, each behind a norm and a residual."""

    def __init__(self, config: LlamaConfig, rngs: nnx.Rngs, lora: LoraConfig | None):
        self.attention_norm = Norm(config.hidden_size, config.rms_norm_eps)
        self.attention = Attention(config, rngs, lora)
        self.mlp_norm = Norm(config.hidden_size, config.rms_norm_eps)
        self.mlp = FeedForward(config, rngs, lora)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        angles: Angles,
        mask: Mask,
        cache: Cache | None,
        cursor: Cursor,
    ) -> tuple[Float[Array, "B T D"], Cache]:
        """The residual stream after this layer, and this layer's keys and values.

        Args:
            x: the residual stream before it [B, T, D].
            angles: as `Attention` takes them, like all that follow.
            mask: which slots each token sees.
            cache: earlier keys and values of this layer, or None.
            cursor: slot in the cache that the first of these tokens takes.
        """
        with jax.named_scope("attention"):
            y, cache = self.attention(self.attention_norm(x), angles, mask, cache, cursor)
        with jax.named_scope("mlp"):
            x = x + y
            return x + self.mlp(self.mlp_norm(x)), cache


class Llama(nnx.Module):
    """Tokens in, logits out. `unroll` lays the layers out one after another: faster for small
    models, slower to compile for deep ones."""

    def __init__(
        self,
        config: LlamaConfig,
        rngs: nnx.Rngs,
        lora: LoraConfig | None = None,
        dtype: str = "float32",
        unroll: bool = True,
        remat: bool = False,
    ):
        @nnx.split_rngs(splits=config.num_hidden_layers)
        @nnx.vmap(transform_metadata={nnx.PARTITION_NAME: "layer"})
        def stack(rngs: nnx.Rngs) -> Block:
            return Block(config, rngs, lora)

        init = nnx.initializers.normal(config.initializer_range)
        shape = (config.vocab_size, config.hidden_size)
        axes = ("vocab", "embed")
        self.embedding = nnx.Param(init(rngs.params(), shape, jnp.float32), sharding_names=axes)
        self.blocks = stack(rngs)
        self.norm = Norm(config.hidden_size, config.rms_norm_eps)
        if config.tie_word_embeddings:
            self.head = None
        else:
            self.head = nnx.Param(init(rngs.params(), shape, jnp.float32), sharding_names=axes)
        self.config, self.dtype = config, dtype
        self.unroll, self.remat = unroll, remat

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"] | None = None,
        mask: Bool[Array, "B T S"] | None = None,
        cache: Cache | None = None,
        cursor: Cursor = 0,
        disturbance: Float32[Array, "#L #B #T #D"] | None = None,
    ) -> tuple[Float32[Array, "B T V"], Cache]:
        """Logits for every token.

        Args:
            tokens: int32 [B, T].
            positions: int32 [B, T]; None counts from 0.
            mask: bool [B, T, S], which slots a token sees; None is causal over the tokens.
            cache: earlier keys and values with room for these tokens, or None.
            cursor: slot in the cache that the first of these tokens takes.
            disturbance: fp32 [L, B, T, D], or of sizes 1 that stretch to it, which is added to the
                residual stream after each block, in units of the root mean square that the stream
                has there; None changes nothing.

        Returns:
            fp32 logits [B, T, V], and the cache with these tokens' keys and values.
        """
        x, angles, mask = self._embedded(tokens, positions, mask)
        x, (cache, _) = self._layers(x, angles, mask, cache, cursor, disturbance)
        return self.logits(x), cache

    def last_residuals(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"] | None = None,
        mask: Bool[Array, "B T S"] | None = None,
        disturbance: Float32[Array, "#L #B #T #D"] | None = None,
    ) -> Float[Array, "B T D"]:
        """The residual stream after the last block [B, T, D], of which `logits` makes logits.

        Args:
            tokens: as `__call__` takes them, like all that follow.
            positions: of the tokens.
            mask: which tokens each one sees.
            disturbance: of the residual stream.
        """
        x, angles, mask = self._embedded(tokens, positions, mask)
        x, _ = self._layers(x, angles, mask, None, 0, disturbance)
        return x

    def logits(self, x: Float[Array, "B C D"]) -> Float32[Array, "B C V"]:
        """Logits, fp32 [B, C, V].

        Args:
            x: the residual stream after the last block [B, C, D].
        """
        x = self.norm(x)
        head = self._table(self.embedding if self.head is None else self.head)
        logits = jnp.einsum("btd,vd->btv", x, head)
        return logits.astype(jnp.float32)

    def residuals(self, tokens: Int[Array, "B T"], at: Int[Array, " B"]) -> Float32[Array, "L B D"]:
        """The residual stream after each block at one token of each row, fp32 [L, B, D].

        Args:
            tokens: int32 [B, T].
            at: int32 [B], which token of a row.
        """
        x, angles, mask = self._embedded(tokens, None, None)
        _, (_, seen) = self._layers(x, angles, mask, None, 0, at=at)
        wide: Array = seen.astype(jnp.float32)
        return wide

    def _embedded(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"] | None,
        mask: Bool[Array, "B T S"] | None,
    ) -> tuple[Float[Array, "B T D"], Angles, Mask]:
        """What goes into the first block, the angles of positions, and which slots each token
        sees."""
        count = tokens.shape[1]
        if positions is None:
            positions = jnp.arange(count)[None]
        if mask is None:
            mask = jnp.tril(jnp.ones((1, count, count), bool))
        frequencies = rope_frequencies(self.config)[None, None]
        angles = positions[..., None].astype(jnp.float32) * frequencies  # [B or 1, T, H / 2]
        return self._table(self.embedding)[tokens], angles, mask[:, None]

    def _table(self, weights: nnx.Param[Array]) -> Float[Array, "V D"]:
        """Embedding or head as it is used."""
        table: Array = gathered(self._used(weights[...]), TABLE)
        return table

    def _used(self, weights: Any) -> Any:
        """Weights in the precision that they are used in: half as much to gather in bfloat16."""
        return jax.tree.map(lambda x: jnp.asarray(x, self.dtype), weights)

    def _layers(
        self,
        x: Float[Array, "B T D"],
        angles: Angles,
        mask: Mask,
        cache: Cache | None,
        cursor: Cursor,
        disturbance: Float32[Array, "#L #B #T #D"] | None = None,
        at: Int[Array, " B"] | None = None,
    ) -> tuple[Float[Array, "B T D"], tuple[Cache, Any]]:
        """The stream after the last block, and of each block, stacked: its keys and values, and
        the stream after it at tokens `at` [L, B, D], None without these."""
        graph, stacked = nnx.split(self.blocks)
        axes = logical_axes(stacked)

        def layer(
            x: Float[Array, "B T D"],
            inputs: tuple[Any, Cache | None, Float32[Array, "#B #T #D"] | None],
        ) -> tuple[Float[Array, "B T D"], tuple[Cache, Float[Array, "B D"] | None]]:
            weights, before, disturbed = inputs
            block = nnx.merge(graph, gathered(self._used(weights), axes))
            x, after = block(by_rows(x), angles, mask, before, cursor)
            x = by_rows(x if disturbed is None else _disturbed(x, disturbed))
            seen = None if at is None else x[jnp.arange(x.shape[0]), at]
            return x, (after, seen)

        if self.remat and cache is None:
            layer = jax.checkpoint(layer, prevent_cse=self.unroll)
        count = self.config.num_hidden_layers
        if disturbance is not None:
            disturbance = jnp.broadcast_to(disturbance, (count, *disturbance.shape[1:]))
        if not self.unroll:
            return jax.lax.scan(layer, x, (stacked, cache, disturbance))
        found = []
        for inputs in _unstack((stacked, cache, disturbance), count):
            x, of_layer = layer(x, inputs)
            found.append(of_layer)
        return x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)


def _disturbed(
    x: Float[Array, "B T D"], disturbance: Float32[Array, "#B #T #D"]
) -> Float[Array, "B T D"]:
    """`x` with a disturbance added in units of its root mean square at each token, which counts as
    given: no gradient passes through it."""
    wide = jax.lax.stop_gradient(x).astype(jnp.float32)
    size = jnp.sqrt(jnp.mean(wide**2, axis=-1, keepdims=True))
    return x + (size * disturbance).astype(x.dtype)


def _unstack(tree: T, count: int) -> list[T]:
    """Layer by layer views of a stacked tree; the gradient of `split` is one concatenation."""
    leaves, structure = jax.tree.flatten(tree)
    columns = [[part[0] for part in jax.lax.split(leaf, [1] * count, axis=0)] for leaf in leaves]
    return [jax.tree.unflatten(structure, row) for row in zip(*columns, strict=True)]
