"""Benchmarks beside their floors: every figure is a ratio of two things measured in turns on the same machine (docs/performance.md)."""
