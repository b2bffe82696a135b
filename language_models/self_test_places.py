"""Where in a text a model is tried, and on which tokens: where masks, positions or sums are not those of its start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from transformers import PretrainedConfig

from language_models.kv_cache import layer_windows
from language_models.positions import rope_borders
from speculation.text.byte_vocab import ByteVocab

#: Tokens of prompt, and of the text after it.
PROMPT, TEXT = 8, 3
#: Of the caches there: more than any step's rows, and layers with a window forget soon.
SLACK = 40
#: Keys that are enough for a sum in another order to show in bits.
_LONG = 512


@dataclass(frozen=True, slots=True)
class Place:
    """Where tokens are run: after ``base`` tokens, of which the cache holds the last ``held``.

    ``window``: of the layers tried here, 0 if none is.
    """

    name: str
    base: int
    held: int
    window: int = 0

    @property
    def loud(self) -> range:
        """Tokens at the edge of the window of those that are run here, and just before it."""
        edge = self.base - self.window
        return range(edge - 2 * TEXT, edge + 2 * TEXT) if self.window else range(0)


START = Place("at the start", PROMPT, PROMPT)


def places(config: PretrainedConfig, context: int, *, bits: bool) -> Iterator[Place]:
    """From the start to the end of a context of ``context`` tokens. ``bits``: also where sums are long."""
    yield START
    windows = sorted(_windows(config))
    if bits and context >= 2 * _LONG and not any(_LONG <= window < context for window in windows):
        yield Place(f"after {_LONG} tokens", _LONG, _LONG)
    for window in windows:
        base = min(window + 4 * SLACK, context - TEXT)
        if window < base:  # else no text is longer
            yield Place(
                name=f"beyond its window of {window:,} tokens",
                base=base,
                held=min(window + 3 * SLACK, base),
                window=window,
            )
    for border in sorted(set(rope_borders(config))):
        if 2 * PROMPT < border < context - TEXT:
            yield Place(f"where its rotary frequencies change ({border:,})", border - 2, PROMPT)
    yield Place(f"at the end of its context ({context:,})", context - TEXT, PROMPT)


def ordinary_tokens(vocab: ByteVocab, number: int) -> list[int]:
    """Ids of tokens that have text, spread over the vocabulary, the same each time; neighbours are different."""
    ids = [token for token in range(vocab.size) if vocab.bytes_of(token)]
    return [ids[(7 + 613 * place) % len(ids)] for place in range(number)]


def _windows(config: PretrainedConfig) -> set[int]:
    """Every window in tokens that the configuration names, whether or not it is the one that the KV cache goes by."""
    found = {window for window in layer_windows(config) if window}
    text = config.get_text_config(decoder=True)
    for name, value in text.to_dict().items():
        if ("window" in name or "chunk" in name) and "layers" not in name and "pattern" not in name:
            values = value if isinstance(value, list) else [value]
            found |= {window for window in values if type(window) is int}
    return {window for window in found if window > 1}
