"""What each method needs before it: base weights -> classifier -> supervision -> explainer -> vector -> evaluation.

Every stage is a function that gives an artifact of the store: found when it is there, made when it is not.
"""
