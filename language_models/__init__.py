"""Weights on disk, tokenizers, and causal language models with KV caches; shared by both services."""
