"""Learned visual explainers: classifiers that explain themselves, and explainers trained for those that cannot."""

import os

# OpenMP threads spin while they wait for each other. On a machine that others use as well they would spin for whole time
# slices, and a small model would train several times slower; after this many rounds (some microseconds) they sleep.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

__version__ = "0.1.0"
