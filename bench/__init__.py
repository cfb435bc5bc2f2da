"""Benchmarks, run by `pytest bench/`."""
