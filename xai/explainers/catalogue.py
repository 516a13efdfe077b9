"""Importing this room's modules fills the registry; asking for the catalogue does it once."""


def fill() -> None:
    """Register every explainer that comes with the framework."""
    import xai.explainers.attention_last
    import xai.explainers.attention_rollout
    import xai.explainers.eigen_cam
    import xai.explainers.exact_shapley
    import xai.explainers.grad_cam
    import xai.explainers.input_x_gradient
    import xai.explainers.integrated_gradients
    import xai.explainers.kernel_shap
    import xai.explainers.rise
    import xai.explainers.saliency
    import xai.explainers.shapley_distribution  # noqa: F401
