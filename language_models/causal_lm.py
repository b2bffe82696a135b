"""A causal language model, loaded: tokens and a KV cache in, float32 logits out.

Row invariance: on a CPU in bfloat16 the logits of a token are the same bits whatever number of tokens is run with
it, so greedy and seeded text does not depend on the speculation length. Two things bring it about (measured:
README, "Figures"): a step never has a single row, which the matrix library would give to another kernel, and
attention sums in an order that cannot be seen (``language_models/attention.py``). Its weights are packed
(``language_models/packed_linear.py``) where that keeps the bits.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from language_models.attention import ROW_INVARIANT
from language_models.causal_self_test import SelfTest
from language_models.context_check import check_context
from language_models.continuation import TreeRows
from language_models.footprint import check_fits
from language_models.kv_cache import LAYER_TYPES, KVCache, layer_windows
from language_models.packed_linear import LEAST_ROWS, MOST_ROWS, pack, packed_bytes
from language_models.placement import device_of, dtype_of
from language_models.positions import (
    context_length,
    context_remark,
    first_position,
    fix_frequencies,
    takes_positions,
)
from language_models.pretrained import load_pretrained
from language_models.quiet import quiet
from language_models.self_test_results import tested
from language_models.shards import Shards
from language_models.shared_pass import SharedPass, TextRows
from language_models.tokenizer import TextTokenizer
from language_models.weights import ModelFiles, resolve
from speculation.errors import InputError, ModelError, UnsupportedModelError

log = logging.getLogger(__name__)
Progress = Callable[[str, int, int], None]

#: Rows per prefill pass: bounds the memory of attention scores.
PREFILL_CHUNK = 512


class CausalLM:
    """A causal language model, loaded and tested. Never changed after loading; sessions differ in their caches only."""

    #: Trees may be as deep as the context.
    tree_depth = 1 << 30

    def __init__(self, model: PreTrainedModel, tokenizer: TextTokenizer, *, name: str, dtype_name: str) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self.vocab_size: int = model.config.get_text_config(decoder=True).vocab_size
        self.context_length = context_length(model.config)
        self.dtype_name = dtype_name
        self.device: torch.device = model.device
        self.parameter_bytes = sum(p.nbytes for p in model.parameters()) + sum(b.nbytes for b in model.buffers())
        self.parameter_bytes += (packed := packed_bytes(model))
        #: Rows that any step runs, were it only to forget some.
        self.least_rows = LEAST_ROWS if packed else 2
        #: Rows that a step may have, or their bits depend on their number; None: any.
        self.most_rows = MOST_ROWS if self.device.type == "cpu" and dtype_name in ("bfloat16", "float16") else None
        #: Of the weights, as they are summed: int8 has none of its own.
        self.weights_dtype = next(model.parameters()).dtype
        #: What the self-test found; no faults, once it is loaded.
        self.self_test = SelfTest()
        self._model = model
        self.config = model.config
        self._takes = frozenset(inspect.signature(model.forward).parameters)
        #: Whether a token stands where it is told to, not where its row is.
        self.takes_positions = takes_positions(model.forward, model.config)
        self._first_position = first_position(model.config)
        self._several_masks = len(set(layer_windows(model.config))) > 1

    @classmethod
    def load(
        cls,
        model: str,
        *,
        device: str = "auto",
        dtype: str = "auto",
        threads: int | None = None,
        trust_remote_code: bool = False,
        progress: Progress | None = None,
        shards: Shards | None = None,
    ) -> CausalLM:
        """Load ``model``: an embedded name, a folder, a .gguf file or a hub id.

        ``dtype``: auto (bfloat16 where the device has it and, on a CPU, keeps the bits of a text whatever runs with
        it; else float32), float32, bfloat16, float16, or int8 (CPU; linear layers quantised, meant for drafters).
        ``threads``: CPU threads for torch, of the whole process; 0 or None: what torch takes, which is all cores unless
        OMP_NUM_THREADS says otherwise. ``trust_remote_code``: run the Python code that the model brings, if it brings
        any. ``shards``: the model is divided, and this process keeps a part. Raises InputError, ModelError.
        """
        target_device = device_of(device)
        target_dtype, int8 = dtype_of(dtype, target_device)
        if threads is not None and threads < 0:
            raise InputError("threads", threads, "must be at least 0", remedy="0 takes all cores")
        if threads:
            torch.set_num_threads(threads)
        files = resolve(model, trust_remote_code=trust_remote_code, progress=progress)
        check_fits(files, target_dtype, target_device, parts=1 if shards is None else shards.size)
        ready = cls._ready(files, target_dtype, target_device, progress, packs=not int8, shards=shards)
        if ready.self_test.faults and ready.takes_positions and ready.least_rows == LEAST_ROWS:
            del ready  # the code of some models reads the weights of linear layers, which packed ones do not have
            ready = cls._ready(files, target_dtype, target_device, _again(progress, "unpacked"), packs=False)
        coarse, choosing = ready.self_test, dtype == "auto" and ready.most_rows is not None and ready.takes_positions
        if choosing and (coarse.faults or coarse.row_dependence):
            del ready
            check_fits(files, torch.float32, target_device)
            ready = cls._ready(files, torch.float32, target_device, _again(progress, "in float32"), packs=False)
            if not ready.self_test.faults:
                reason = coarse.row_dependence or coarse.faults[0]
                log.warning("%s is loaded in float32: in bfloat16 %s", files.name, reason)
        _check_faults(ready)
        if remark := context_remark(ready.config):
            log.warning("%s: %s", files.name, remark)
        if not int8:
            return ready
        # Tried before: int8 is not exact, but a cache or masks that are wrong cost drafts all the same.
        quantised = cls(_quantise(ready.module), ready.tokenizer, name=files.name, dtype_name="int8")
        quantised.self_test = ready.self_test
        return quantised

    @classmethod
    def _ready(
        cls,
        files: ModelFiles,
        dtype: torch.dtype,
        device: torch.device,
        progress: Progress | None,
        *,
        packs: bool,
        shards: Shards | None = None,
    ) -> CausalLM:
        """Loaded, and tried. ``packs``: with packed weights, where they are faster and keep the bits."""
        loaded = _load(files, dtype, device, progress, shards)
        layer_windows(loaded.config)
        fix_frequencies(loaded)
        tokenizer = TextTokenizer.from_pretrained(files, loaded.config.get_text_config(decoder=True).vocab_size)
        if packs and device.type == "cpu" and dtype is torch.bfloat16:
            pack(loaded)
        ready = cls(loaded, tokenizer, name=files.name, dtype_name=str(dtype).removeprefix("torch."))
        progress = progress or (lambda stage, done, total: None)
        progress("self-test", 0, 1)
        try:
            ready.self_test = tested(ready, files, shards)
        except torch.OutOfMemoryError as error:
            raise ModelError(f"{files.name} leaves no memory for a KV cache on {device}") from error
        progress("self-test", 1, 1)
        return ready

    @property
    def draws_all_rows(self) -> bool:
        """Whether draws are best made for several rows at once: on a GPU every single one is a wait."""
        return self.device.type == "cuda"

    @property
    def module(self) -> PreTrainedModel:
        """The transformers model itself, for an engine that runs it in a way of its own."""
        return self._model

    def new_cache(self, *, slack: int | None = None) -> KVCache:
        """An empty cache. ``slack``: see ``KVCache``."""
        return KVCache(self.config, slack=slack, dtype=self.weights_dtype, device=self.device)

    @torch.inference_mode()
    def forward_uncached(self, tokens: Sequence[int]) -> Tensor:
        """Logits [len(tokens), V] of a whole text in one pass, as transformers runs the model for anyone: for the
        self-test."""
        output = self._model(input_ids=torch.tensor([list(tokens)], device=self.device), use_cache=False)
        return output.logits[0].float()

    @torch.inference_mode()
    def prefill(self, tokens: Sequence[int], cache: KVCache) -> None:
        """Run ``tokens`` for their keys and values only."""
        for start in range(0, len(tokens), PREFILL_CHUNK):
            self._run(tokens[start : start + PREFILL_CHUNK], cache, logits_to_keep=1)

    @torch.inference_mode()
    def forward(self, tokens: Sequence[int], cache: KVCache) -> Tensor:
        """Run ``tokens`` after what ``cache`` holds. Returns logits [len(tokens), V] in float32.

        Raises InputError if they do not fit the context.
        """
        return self._run(tokens, cache, logits_to_keep=0)

    @torch.inference_mode()
    def forward_tree(
        self, tokens: Sequence[int], cache: KVCache, *, base: int, visible: Tensor, depths: Tensor
    ) -> Tensor:
        """Run tokens of a tree of continuations, whose root stands at token ``base``; logits [len(tokens), V].

        ``visible``: see ``KVCache.tree_mask``. ``depths`` [length - base + len(tokens)]: distance from the root of
        every token after ``base``, those of ``tokens`` last.
        """
        positions = base + depths
        masks = cache.tree_mask(base, visible, positions)
        mask = masks if self._several_masks else next(iter(masks.values()))
        return self._call(tokens, positions[-len(tokens) :], cache.cache, attention_mask=mask)

    def forward_branches(self, tokens: Sequence[int], cache: KVCache, tree: TreeRows) -> Tensor:
        """``forward_tree`` for tokens whose ancestors are all in the cache."""
        depths = torch.tensor(tree.depths)
        return self.forward_tree(tokens, cache, base=tree.base, visible=tree.visible(), depths=depths)

    @torch.inference_mode()
    def forward_together(self, texts: Sequence[TextRows]) -> list[Tensor]:
        """Run rows of several texts in one pass: logits [rows, V] of each, as alone, if ``self_test.unshared`` is "".

        Whatever is raised, the caches are as they were. Raises InputError if a text does not fit the context.
        """
        shared = SharedPass(texts, least_rows=self.least_rows, dtype=self.weights_dtype)
        self._check_context(shared.last_position + 1)
        mask = dict.fromkeys(LAYER_TYPES, shared.mask) if self._several_masks else shared.mask
        with shared.undone_if_it_fails():
            logits = self._call(shared.tokens, shared.positions, shared.new_cache(), attention_mask=mask)
        return shared.divide(logits)

    def _check_context(self, tokens: int) -> None:
        check_context(self.name, self.context_length, tokens)

    def _run(self, tokens: Sequence[int], cache: KVCache, *, logits_to_keep: int) -> Tensor:
        self._check_context(cache.length + len(tokens))
        # One row alone would go to a kernel of its own, with other bits: more rows are run and forgotten. They stand
        # where the last one does: its position is in the context, one beyond it may not be.
        padding = max(0, self.least_rows - len(tokens))
        base, last = cache.length, len(tokens) - 1
        positions = base + torch.arange(len(tokens) + padding).clamp(max=last)
        kept = (
            {"logits_to_keep": logits_to_keep + padding} if logits_to_keep and "logits_to_keep" in self._takes else {}
        )
        try:
            logits = self._call([*tokens, *[tokens[last]] * padding], positions, cache.cache, **kept)
        except BaseException:
            cache.go_back(base)
            raise
        cache.rollback(padding)
        cache.settle()
        return logits[: logits.shape[0] - padding]

    def _call(self, tokens: Sequence[int], positions: Tensor, cache: Cache, **options: object) -> Tensor:
        """Logits [len(tokens), V] in float32; ``positions`` [len(tokens)] count from the text's first token."""
        if "position_ids" in self._takes:
            options["position_ids"] = (positions + self._first_position)[None].to(self.device)
        ids = torch.tensor([list(tokens)], device=self.device)
        output = self._model(input_ids=ids, past_key_values=cache, use_cache=True, **options)
        return output.logits[0].float()


def _load(
    files: ModelFiles,
    dtype: torch.dtype,
    device: torch.device,
    progress: Progress | None = None,
    shards: Shards | None = None,
) -> PreTrainedModel:
    # On a CPU one that keeps bits (see the module); elsewhere what transformers prefers: fused kernels are worth more
    # than bits, and there are models without them.
    attention = "eager" if device.type == "cpu" else None
    model = load_pretrained(files, dtype=dtype, device=device, attention=attention, progress=progress, shards=shards)
    # Attention sinks enter the softmax in ways of their own.
    if attention == "eager" and not any(hasattr(module, "sinks") for module in model.modules()):
        with quiet():  # transformers warns of models that it knows no attention for
            model.set_attn_implementation(ROW_INVARIANT)
    return model


def _again(progress: Progress | None, how: str) -> Progress | None:
    """``progress`` of a second load, whose stages are not those of the first: who watches would see them twice."""
    if progress is None:
        return None
    return lambda stage, done, total: progress(f"{stage} again, {how}", done, total)


def _check_faults(model: CausalLM) -> None:
    """Raises UnsupportedModelError if the logits of a text depend on how it is run."""
    if faults := model.self_test.faults:
        otherwise = ", or try --dtype float32" if model.most_rows and model.takes_positions else ""
        raise UnsupportedModelError(
            f"{model.name} ({model.config.model_type}) cannot be served: {faults[0]}",
            remedy=f"use a model whose logits depend on the text alone, however it is run{otherwise}",
        )


def _quantise(model: PreTrainedModel) -> PreTrainedModel:
    """Linear layers in int8 with a scale per tensor, activations quantised on the fly. For drafters: not exact."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in favour of a package of its own, but here and quick
        return torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
