"""Shapley values: samplers of coalitions and estimators."""
