"""Learned visual explainers: classifiers that explain themselves, explainers trained for those that cannot."""

__version__ = "0.1.0"
