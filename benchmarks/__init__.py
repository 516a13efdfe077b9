"""Speed and memory against peers and against the floor: `python -m benchmarks`."""
