"""Drafters: with a model or by lookup, and the client that dials a verifier."""
