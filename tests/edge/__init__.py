"""A drafter as a service of systemd."""
