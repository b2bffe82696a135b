"""Fleets on Ray."""
