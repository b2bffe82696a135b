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


class Known(NamedTuple):
    """A text in a place of its own: makes its cache; logits [T, V] of some tokens after it, alone."""

    cache: Callable[[], KVCache]
    alone: Tensor


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
    near: Known,
    far: Known,
    where: str,
    text: Sequence[int],
    wide: Sequence[int],
    differs: Callable[[Tensor, Tensor], str],
) -> str:
    """Why texts do not run in one pass; "" if they do. Raises torch.OutOfMemoryError.

    ``near``, ``far``: a short text and one that stands ``where`` models are tried, with the logits of ``text``, two
    tokens or more, after each. ``wide``: as many tokens as a step may have, if that is to be tried as well.
    ``differs``: in what two logits do.
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


def _companies(model: CausalLM, near: Known, far: Known, text: Sequence[int], wide: Sequence[int]) -> Iterator[Company]:
    first, *others = text
    short, short_too, long, long_too = near.cache(), near.cache(), far.cache(), far.cache()

    # The text is the tree's second branch, with a sibling before each of its tokens.
    tokens, parents, branch = [first], [], [0]
    for token in others:
        parents += [branch[-1]] * 2
        branch.append(len(tokens) + 1)
        tokens += [first, token]
    trees = TextRows(short, tokens, parents), TextRows(long_too, tokens, parents)
    chains = TextRows(long, text, range(len(others))), TextRows(short_too, text, range(len(others)))
    found = model.forward_together([trees[0], *chains, trees[1]])
    yield Company(
        "trees and chains of four texts",
        torch.cat([found[0][branch], found[1], found[2], found[3][branch]]),
        torch.cat([near.alone, far.alone, near.alone, far.alone]),
    )

    # Of each all but the text's last token is kept, and that one run again: fewer rows than a pass must have.
    for rows, kept in ((trees[0], branch), (chains[0], range(len(text))), (trees[1], branch)):
        rows.cache.keep_rows(rows.cache.length - len(rows.tokens), list(kept)[:-1])
        rows.cache.settle()
    found = model.forward_together([TextRows(cache, text[-1:], []) for cache in (short, long, long_too)])
    yield Company(
        "what was kept of three texts, continued",
        torch.cat(found),
        torch.cat([near.alone[-1:], far.alone[-1:], far.alone[-1:]]),
    )

    if wide:
        for cache in (long, short_too):
            cache.rollback(len(text))
        alone = model.forward(wide[:-1], long)
        long.rollback(len(wide) - 1)
        chain = TextRows(long, wide[:-1], range(len(wide) - 2))
        found = model.forward_together([chain, TextRows(short_too, [first], [])])
        yield Company(f"{len(wide)} tokens of two texts", torch.cat(found), torch.cat([alone, near.alone[:1]]))
