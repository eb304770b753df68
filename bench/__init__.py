"""Benchmarks that are run by hand and whose raw output is committed; see README.md."""
