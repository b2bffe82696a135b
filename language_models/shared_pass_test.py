"""The part of the self-test that asks whether several texts run in one pass with the logits that each has alone.

Chains, trees and single tokens of texts of different lengths run together, in as few rows as there are and in as many
as a step may have, some are kept and continued.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from language_models.attention import ROW_INVARIANT
from language_models.kv_cache import KVCache
from language_models.shared_pass import TextRows
from speculation.errors import UnsupportedModelError

if TYPE_CHECKING:
    from language_models.causal_lm import CausalLM


class Company(NamedTuple):
    """Logits of the same tokens in a pass with other texts and in one of their own."""

    doing: str
    together: Tensor
    alone: Tensor


def attends_elsewhere(model: CausalLM) -> str:
    """Why the model's attention cannot be had text by text; "" as far as its configuration says."""
    used = model.config.get_text_config(decoder=True)._attn_implementation
    return "" if used == ROW_INVARIANT else f"its attention is that of transformers ({used})"


def why_unshared(
    model: CausalLM,
    near: Callable[[], KVCache],
    far: Callable[[], KVCache],
    where: str,
    text: Sequence[int],
    wide: Sequence[int],
    differs: Callable[[Tensor, Tensor], str],
) -> str:
    """Why texts do not run in one pass; "" if they do. Raises torch.OutOfMemoryError.

    ``near``, ``far``: new caches of a short text and of one that stands ``where`` models are tried. ``text``: two
    tokens or more that fit after both. ``wide``: as many as a step may have. ``differs``: in what two logits do.
    """
    doing = "a pass of two texts"
    try:
        for doing, together, alone in _companies(model, near, far, text, wide):
            if bool(together.isnan().any() and not alone.isnan().any()):
                return "it works on keys, values or masks between its KV cache and its attention"
            if difference := differs(together, alone):
                return f"{doing} {where} give {difference} than each alone"
    except torch.OutOfMemoryError:
        raise
    except UnsupportedModelError as error:
        return error.message
    except Exception as error:  # the code of some models is particular about its cache
        return f"what comes after {doing} {where} fails: {type(error).__name__}: {error}"
    return ""


def _companies(
    model: CausalLM, near: Callable[[], KVCache], far: Callable[[], KVCache], text: Sequence[int], wide: Sequence[int]
) -> Iterator[Company]:
    first, *others = text
    chain = range(len(others))
    after_near, after_far = model.forward(text, near()), model.forward(text, far())

    few = [TextRows(cache(), [first], []) for cache in (near, far)]
    found = model.forward_together(few)
    yield Company("a token of each of two texts", torch.cat(found), torch.cat([after_near[:1], after_far[:1]]))

    # The text is the tree's second branch, with a sibling before each of its tokens.
    tokens, parents, branch = [first], [], [0]
    for token in others:
        parents += [branch[-1]] * 2
        branch.append(len(tokens) + 1)
        tokens += [wide[-1], token]
    trees = [TextRows(near(), tokens, parents), TextRows(far(), tokens, parents)]
    chains = [TextRows(far(), text, chain), TextRows(near(), text, chain)]
    found = model.forward_together([trees[0], chains[0], chains[1], trees[1]])
    yield Company(
        "trees and chains of four texts",
        torch.cat([found[0][branch], found[1], found[2], found[3][branch]]),
        torch.cat([after_near, after_far, after_near, after_far]),
    )

    # All but the text's last token is kept, however it was run, and the last run again.
    for rows, kept in ((trees[0], branch), (chains[0], range(len(text))), (trees[1], branch)):
        rows.cache.keep_rows(rows.cache.length - len(rows.tokens), list(kept)[:-1])
        rows.cache.settle()
    found = model.forward_together([TextRows(r.cache, text[-1:], []) for r in (trees[0], chains[0], trees[1])])
    yield Company(
        "what was kept of three texts, continued",
        torch.cat(found),
        torch.cat([after_near[-1:], after_far[-1:], after_far[-1:]]),
    )

    most = min(len(wide), model.context_length - far().length)
    beside = TextRows(near(), [first], [])
    found = model.forward_together([TextRows(far(), wide[: most - 1], range(most - 2)), beside])
    yield Company(
        f"{most} tokens of two texts",
        torch.cat(found),
        torch.cat([model.forward(wide[: most - 1], far()), after_near[:1]]),
    )
