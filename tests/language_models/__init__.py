"""Weights, tokenizers and models on a device."""
