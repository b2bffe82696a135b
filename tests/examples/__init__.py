"""The examples, run as printed but for the models."""
