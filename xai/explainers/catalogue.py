"""Importing this room's modules fills the registry; asking for the catalogue does it once."""


def fill() -> None:
    """Register every explainer that comes with the framework."""
    import xai.explainers.exact_shapley
    import xai.explainers.grad_cam
    import xai.explainers.kernel_shap  # noqa: F401
