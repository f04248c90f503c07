"""Benchmarks of Headgate beside what else could stand in its place; `make bench` runs `benchmarks.run`."""
