"""A drafter as a service of an edge machine's systemd: what `dragoman edge` writes, starts, shows and removes."""
