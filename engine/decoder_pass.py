"""A step's forward pass through a decoder of a known family: nine kernels a layer, each started early.

transformers' layers under torch.compile take some fourteen, and between two of them the memory that holds the weights
stands still. ``engine_check.py`` compares what comes out with transformers' own logits before anything is served.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from engine import reference_rows
from engine.decoder_layers import DecoderLayer, decoder_layers
from engine.early_kernels import starts_early
from engine.gathered_parts import gathered
from engine.paged_attention import AttentionSettings
from engine.reference_attention import reference_attention
from engine.step_tables import StepTables


class DecoderPass:
    """``model``: of transformers, with its layers taken apart in ``layers``. ``ranks``: that hold a part of it each."""

    def __init__(self, model: Any, layers: list[DecoderLayer], *, ranks: int = 1) -> None:
        self._model = model
        self._layers = layers
        device = layers[0].qkv.device
        self._ranks = ranks
        # What stands between the kernels of several ranks was not made to be started early.
        self._early = starts_early(device) and ranks == 1
        if device.type == "cuda":
            from engine import row_kernels, row_products, tree_attention  # need Triton

            self._products: ModuleType = row_products
            self._rows: ModuleType = row_kernels
            self._attention: Any = tree_attention.tree_attention
        else:
            self._products = self._rows = reference_rows
            self._attention = reference_attention

    def __call__(self, tables: StepTables) -> Tensor:
        """Logits [rows, V] float32."""
        decoder, rows, early = self._model.model, self._rows, self._early
        hidden = decoder.embed_tokens(tables.tokens)
        rotation = decoder.rotary_emb(hidden[None], position_ids=tables.row_position[None])
        rotation = tuple(each[0].contiguous() for each in rotation)
        added: Tensor | None = None
        for layer in self._layers:
            normed = rows.add_and_norm(hidden, added, layer.before, layer.eps, early=early)
            attended = self._attend(layer, normed, rotation, tables)
            added = self._parts(attended, layer.output)
            normed = rows.add_and_norm(hidden, added, layer.after, layer.eps, early=early)
            gated = self._products.gated_product(normed, layer.gate_up, early=early)
            added = self._parts(gated, layer.down)
        normed = rows.add_and_norm(hidden, added, decoder.norm.weight, decoder.norm.variance_epsilon, early=early)
        return self._model.get_output_embeddings()(normed)

    def _parts(self, x: Tensor, weight: Tensor) -> Tensor:
        """[parts, rows, width] float32, whose sum is the product, the others' parts among them."""
        parts: Tensor = self._products.partial_product(x, weight, early=self._early)
        return parts if self._ranks == 1 else gathered(parts, self._ranks)

    def _attend(self, layer: DecoderLayer, normed: Tensor, rotation: tuple[Tensor, ...], tables: StepTables) -> Tensor:
        """[rows, H D]."""
        q = self._rows.rotate_and_write(
            self._products.partial_product(normed, layer.qkv, early=self._early),
            bias=layer.bias,
            rotation=rotation,
            gains=layer.gains,
            eps=layer.eps,
            write=tables.write,
            keys=layer.keys,
            values=layer.values,
            heads=layer.heads,
            early=self._early,
        )
        scale, softcap, window = layer.attention
        settings = {"scale": scale, "softcap": softcap, "window": window}
        return self._attention(q, layer.keys, layer.values, tables, **settings, early=self._early).flatten(1)


def decoder_pass_for(
    model: Any, settings: Mapping[nn.Module, AttentionSettings], *, ranks: int = 1
) -> DecoderPass | None:
    """None for a model of no known family; see ``decoder_layers``."""
    layers = decoder_layers(model, settings)
    return DecoderPass(model, layers, ranks=ranks) if layers else None
