"""What the benchmarks compute beside what they time."""
