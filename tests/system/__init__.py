"""Whole systems of processes, real models and networks."""
