"""Learned visual explainers: classifiers that explain themselves, and explainers trained for those that cannot."""

__version__ = "0.1.0"
