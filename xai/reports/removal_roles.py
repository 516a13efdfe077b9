"""The rows and columns of SALVAGE's tables (Naouar et al. 2025, Tables 1 to 4)."""

from xai.reports.columns import Column
from xai.reports.data_tables import Scheme
from xai.reports.roles import Role

KINDS = {
    "reference": "What is explained",
    "method": "Methods",
    "ablation": "Ablations of SALVAGE",
    "control": "Controls",
}
"""Kinds of rows in the order of a table, with the heading of their block."""

_METHODS = (
    Role(
        "salvage",
        "SALVAGE",
        "SALVAGE",
        "method",
        "A network trained to say how the classifier's prediction is distributed over masked images, on masks drawn by "
        "its own attributions; the map is phi+ less phi-.",
    ),
    Role(
        "vit_shapley",
        "ViT-Shapley",
        "ViT-Shapley",
        "method",
        "The rival it is built on: a network trained by least squares to give Shapley values (Covert et al. 2023).",
    ),
    Role("rise", "RISE", "RISE", "method", "Mean of random masks, weighted by what the classifier says under each."),
    Role(
        "kernel_shap",
        "Kernel SHAP",
        "Kernel SHAP",
        "method",
        "Shapley values of each image by itself, by weighted least squares over masked images.",
    ),
    Role(
        "attention_last",
        "Attention, last layer",
        "Attention, last",
        "method",
        "How much the class token looks at each patch in the last layer, mean over heads; the same for every class.",
    ),
    Role(
        "attention_rollout",
        "Attention rollout",
        "Attn. rollout",
        "method",
        "Attention of all layers multiplied through from the class token to the patches; the same for every class.",
    ),
    Role(
        "vit_cx", "ViT-CX", "ViT-CX", "method", "Masks cut out of the transformer's own embeddings, weighted by effect."
    ),
    Role("saliency", "Saliency", "Saliency", "method", "Size of the gradient of the class's output at each patch."),
    Role(
        "integrated_gradients",
        "Integrated gradients",
        "Int. gradients",
        "method",
        "Gradients summed along the way from a baseline image to this one, times the change of each pixel.",
    ),
    Role("lrp", "LRP", "LRP", "method", "Relevance passed back through the layers by rules for attention."),
    Role(
        "grad_cam",
        "Grad-CAM",
        "Grad-CAM",
        "method",
        "Activations of a late layer, weighted by the mean gradient of the class's output.",
    ),
    Role(
        "eigen_cam",
        "Eigen-CAM",
        "Eigen-CAM",
        "method",
        "First principal component of the activations of a late layer; the same for every class.",
    ),
)
_ABLATIONS = (
    Role(
        "salvage_uniform",
        "SALVAGE, uniform masks",
        "Uniform masks",
        "ablation",
        "The same network and loss on masks of uniform size drawn without regard to the attributions.",
    ),
    Role(
        "salvage_kernel",
        "SALVAGE, Shapley-kernel masks",
        "Kernel masks",
        "ablation",
        "The same network and loss on masks drawn from the Shapley kernel, as those of ViT-Shapley.",
    ),
)
_FITTED = (
    Role(
        "shapley_distribution",
        "SALVAGE's objective, fitted per image",
        "Fitted per image",
        "ablation",
        "phi+ and phi- as free numbers, fitted to each image by itself: what the objective gives without a network.",
    ),
)
_CONTROLS = (
    Role(
        "random",
        "Random map",
        "Random",
        "control",
        "A map drawn at random.",
        doubt="the metric rewards no order of the patches over another",
    ),
    Role(
        "brightness",
        "Brightness",
        "Brightness",
        "control",
        "How far the brightness of each patch is from that of the ground; no model is asked.",
        doubt="the maps follow brightness and not the classifier",
    ),
    Role(
        "position_prior",
        "Position prior",
        "Position prior",
        "control",
        "The mean of SALVAGE's maps over validation images, the same for every image.",
        doubt="one map for all images would do",
    ),
    Role(
        "object_mask",
        "Object mask",
        "Object mask",
        "control",
        "The region of the object itself as a map; its RMA and RRA are the most there is.",
        doubt="the maps say no more than where the object is",
    ),
)
_REFERENCES = (
    Role(
        "classifier",
        "Classifier",
        "Classifier",
        "reference",
        "The original classifier, never shown a masked image.",
    ),
    Role(
        "surrogate",
        "Surrogate",
        "Surrogate",
        "reference",
        "The classifier after fine-tuning on masked images: the value function that every explainer is trained on.",
    ),
)
ROLES = {role.name: role for role in (*_REFERENCES, *_METHODS, *_ABLATIONS, *_FITTED, *_CONTROLS)}
"""All rows by name, in the order of the tables."""

LIKELIHOOD = "mask_likelihood"
"""The role of the result that holds Figure 6; it is no row of a table."""


def _percent(name: str, label: str, explanation: str, larger_is_better: bool = True, short: str = "") -> Column:
    return Column(name, label, short or label, larger_is_better, explanation, scale=100, digits=1)


_COLUMNS = (
    _percent(
        "srg",
        "SRG",
        "Symmetric relevance gain: LIF less MIF. 0 is what a random order scores, whatever the way of masking.",
    ),
    _percent(
        "r_srg", "R-SRG", "R-LIF less R-MIF: as SRG, but what counts is how much more one patch gets than another."
    ),
    _percent(
        "lif",
        "LIF",
        "Least influential first: mean probability of the class over all numbers of patches removed, those of the "
        "lowest attribution first.",
    ),
    _percent("mif", "MIF", "Most influential first: the same, those of the highest attribution first.", False),
    _percent("r_lif", "R-LIF", "LIF with the patches that stay drawn by their attribution instead of ranked by it."),
    _percent("r_mif", "R-MIF", "MIF with the patches that stay drawn by one minus their attribution.", False),
    _percent("rma", "RMA", "Relevance mass accuracy: share of the positive attribution that lies inside the object."),
    _percent(
        "rra",
        "RRA",
        "Relevance rank accuracy: of the highest pixels, as many as the object has, the share that lies inside it.",
    ),
    _percent("pointing_game", "Pointing game", "Share of images whose top patch touches the object.", short="Point."),
    _percent(
        "grid_pointing",
        "Grid pointing",
        "With two objects on an image: share of the positive attribution that lies on the one that is asked about.",
        short="Grid",
    ),
    _percent("accuracy", "Accuracy", "Share of images classified correctly.", short="Acc."),
    _percent(
        "agreement", "Agreement", "Share of images on which it predicts what the classifier predicts.", short="Agree"
    ),
    _percent(
        "precision",
        "Precision",
        "Share of right ones among the predictions of the positive class; of more than two classes the mean.",
        short="Prec.",
    ),
    _percent(
        "recall", "Recall", "Share of the images of the positive class that are found; else the mean over classes."
    ),
    _percent("f1", "F1", "Harmonic mean of precision and recall."),
    Column(
        "mcc", "MCC", "MCC", True, "Matthews correlation of prediction and label: 0 is chance, 1 is perfect.", digits=2
    ),
)
COLUMNS = {column.name: column for column in _COLUMNS}
"""Metrics by name; shares are read in percent, Matthews correlation is not."""

SCHEME = Scheme(ROLES, COLUMNS, KINDS, frozenset({LIKELIHOOD}))
"""All of it."""
