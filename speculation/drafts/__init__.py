"""Draft tokens: the pool of a session, the drafter's own tree, candidates of a step, and sources beside drafters."""
