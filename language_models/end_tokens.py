"""Which tokens end a text: there is no one place that says so, and each alone is wrong for some model."""

from __future__ import annotations

from collections.abc import Mapping

from transformers import AutoConfig, GenerationConfig, PreTrainedTokenizerBase

from language_models.chat_template import render_template, without_end
from language_models.conversation import Conversation
from language_models.quiet import quiet
from language_models.weights import ModelFiles

#: Special tokens that end a text, by the names that models give them: a chat model that is made to continue raw text
#: ends with the end token of its pre-training, which its settings often do not list.
END_NAMES = frozenset(
    {"<|endoftext|>", "<|im_end|>", "</s>", "<eos>", "<end_of_turn>", "<|eot_id|>", "<|end_of_text|>"}
)


def find_end_ids(tokenizer: PreTrainedTokenizerBase, files: ModelFiles) -> list[int]:
    """Ids that end a text; first the one that ends an assistant's turn, or else the tokenizer's own.

    A tokenizer may name ids that the model does not have.
    """
    added = {token.content: i for i, token in tokenizer.added_tokens_decoder.items()}
    found = [_end_of_turn(tokenizer, added), tokenizer.eos_token_id]
    listed = _listed(files)
    found += listed if isinstance(listed, list) else [listed]
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    found += [i for content, i in added.items() if content in END_NAMES & special]
    return list(dict.fromkeys(i for i in found if i is not None))


def _listed(files: ModelFiles) -> int | list[int] | None:
    """What the model's own settings say: generation_config.json, or where that is silent, config.json and the
    configuration of the text model in it.
    """
    with quiet():
        try:
            settings = GenerationConfig.from_pretrained(files.source, local_files_only=files.local)
            if settings.eos_token_id is not None:
                return settings.eos_token_id
        except (OSError, ValueError):
            pass  # optional
        try:
            # Said either way: transformers would ask at the terminal.
            config = AutoConfig.from_pretrained(
                files.source, local_files_only=files.local, trust_remote_code=files.trust_remote_code
            )
            return GenerationConfig.from_model_config(config).eos_token_id
        except (OSError, ValueError):
            return None  # whoever needs the configuration itself will say what is wrong with it


def _end_of_turn(tokenizer: PreTrainedTokenizerBase, added: Mapping[str, int]) -> int | None:
    """The added token that the chat template puts behind an assistant's words."""
    if not tokenizer.chat_template:
        return None
    words = "dragomansays"
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": words}]
    try:
        text = render_template(tokenizer, Conversation(turns), answer=False)
    except TimeoutError as error:  # without an answer, a text might go on beyond its turn
        raise without_end(error) from error
    except Exception:  # a template with demands of its own
        return None
    after = text.rpartition(words)[2].lstrip()
    names = [name for name in added if after.startswith(name)]
    return added[max(names, key=len)] if names else None
