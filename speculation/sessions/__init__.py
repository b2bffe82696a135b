"""A session as the target and as a drafter sees it, sans-IO: events in, instructions out."""
