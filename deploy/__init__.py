"""Getting a fleet onto machines: what a Ray job runs, and the files that describe fleets."""
