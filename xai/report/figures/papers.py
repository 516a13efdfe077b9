"""The figures of the three papers: the general ones with the rows, metrics and words of each paper."""

from xai.report.figures.comparisons import Bars, BarsParams, OverlapParams, bars, overlap
from xai.report.figures.lines import CurvesParams, OverParams, Panel, curves, over
from xai.report.figures.registry import preset
from xai.report.figures.style import Line

# Explainability vectors (Yoshikawa et al.): rows `proposed*` at several lambda2, `proposed` at the chosen one.

_SWEEP = [Line(["proposed*"], "proposed", "blue", "-", "o")]
_VECTORS = ["e_rmse", "iou@10", "accuracy"]

preset(
    "vectors_figure3",
    over,
    params=OverParams(
        x="lambda2", label="λ₂", metrics=_VECTORS, lines=_SWEEP, bars=False, relative_to="ft_target", chosen="proposed"
    ),
    needs=("scores",),
    width=860,
    alt="Line plots over lambda2: E-RMSE, IoU@10 and accuracy, with the chosen value marked.",
    caption="Figure 3. Each panel is divided by what fine-tuning on the target alone gives (dashed line at 1); the "
    "right axis is the value itself. Look for a stretch where the error has fallen and the accuracy has not. λ₂ was "
    "chosen on the validation split; these are the test images. No point of the curves needed any training.",
)
preset(
    "vectors_alpha",
    over,
    params=OverParams(
        x="alpha", label="α", metrics=_VECTORS, lines=[Line(["proposed"], "proposed")], relative_to="ft_target"
    ),
    needs=("scores",),
    width=860,
    alt="Line plots over alpha: E-RMSE, IoU@10 and accuracy of the transferred model.",
    caption="The weight α of the explanation loss with which the source was trained, each with its own λ₂. Bars are "
    "95 % intervals over runs.",
)

# SALVAGE (Naouar et al. 2025).

_UNIFORM, _INFORMED = ["salvage_uniform", "salvage_uniform@*"], ["salvage", "salvage@*"]
_REMOVAL = [("MIF", "mif"), ("LIF", "lif"), ("SRG", "srg"), ("R-MIF", "r_mif"), ("R-LIF", "r_lif"), ("R-SRG", "r_srg")]


def _removal_panel(metric: str) -> Panel:
    """Of a curve, or of the gap between two (equations 7 and 8)."""
    prefix = "r_" if metric.startswith("r_") else ""
    if metric.endswith("srg"):
        return Panel(metric=metric, curves=[f"curve_{prefix}lif"], less=[f"curve_{prefix}mif"], x="masked")
    return Panel(metric=metric, curves=[f"curve_{metric}"], x="masked")


preset(
    "salvage_figure2",
    curves,
    params=CurvesParams(
        panels=[_removal_panel(metric) for _, metric in _REMOVAL],
        lines=[
            Line(["rise"], "", "green", "--", "none"),
            Line(["vit_shapley"], "", "orange", "-.", "none"),
            Line(["salvage"], "", "blue", "-", "none"),
        ],
    ),
    needs=("curves",),
    width=860,
    alt="Six line plots of MIF, LIF, SRG, R-MIF, R-LIF and R-SRG against the number of masked patches.",
    caption="Figure 2. A good order of the patches keeps LIF high for as long as it can and lets MIF fall at once; SRG "
    "is the gap between the two. Below, the patches that stay are drawn by their attribution instead of ranked by it.",
)

_SHAPLEY = Line(["vit_shapley"], "", "orange")
_UNIFORM_BAR, _INFORMED_BAR = Line(["salvage_uniform"], "", "sky"), Line(["salvage"], "", "blue")
_PAIRS = {
    "a": Bars("(a) least squares or distributions", [_SHAPLEY, _UNIFORM_BAR]),
    "b": Bars("(b) uniform or informed masks", [_UNIFORM_BAR, _INFORMED_BAR]),
}

for _name, _panels in (("salvage_figure3", "ab"), ("salvage_figure3a", "a"), ("salvage_figure3b", "b")):
    preset(
        _name,
        bars,
        params=BarsParams("r_srg", [_PAIRS[letter] for letter in _panels]),
        needs=("scores",),
        joint=True,
        alt="Bar charts of R-SRG: ViT-Shapley against SALVAGE with uniform masks, and uniform against informed masks.",
        caption="Figure 3. (a) What it brings to learn the distribution of predictions rather than Shapley values by "
        "least squares; (b) what masks drawn by the network's own attributions bring. Bars without an interval are one "
        "run.",
    )
preset(
    "salvage_figure4",
    overlap,
    params=OverlapParams(["salvage", "vit_shapley"]),
    needs=("scores",),
    width=460,
    alt="Two tables of two by two: images that explainer and classifier get right or wrong, in percent.",
    caption="Figure 4. The explainer as a classifier of its own, u(N), beside the classifier it explains: the diagonal "
    "is where both are right or both are wrong.",
)
preset(
    "salvage_figure6",
    curves,
    params=CurvesParams(
        panels=[Panel("likelihood of masks", x="present")],
        lines=[
            Line([], "random masks", "orange", "-.", "none", curves=["likelihood_random"]),
            Line([], "informed masks", "blue", "-", "none", curves=["likelihood_informed"]),
        ],
        y="probability of the true class, %",
        whole=True,
        half=True,
    ),
    needs=("curves",),
    width=420,
    alt="Line plot of the mean probability of the true class over the number of patches present, random and informed.",
    caption="Figure 6. Informed masks are meant to stay near one half whatever their size, so that small and large "
    "masks both say something; random ones leave little to learn from the very small and the very large.",
)
preset(
    "salvage_figure7",
    over,
    params=OverParams(
        x="share",
        label="share of the training, %",
        metrics=["srg"],
        lines=[
            Line(["vit_shapley", "vit_shapley@*"], "ViT-Shapley", "grey", ":", "o"),
            Line(_UNIFORM, "SALVAGE, uniform masks", "orange", "-.", "o"),
            Line(_INFORMED, "SALVAGE, informed masks", "blue", "-", "o"),
        ],
        absent=1.0,
        percent=True,
        shift=1.0,
    ),
    needs=("scores",),
    width=420,
    alt="Line plot of SRG over the share of the training, with informed and with uniform masks.",
    caption="Figure 7. How good the order of the patches is after a share of the training. Each point is a run of that "
    "length by itself.",
)

# Learn to Rank (Schinagl et al. 2026): `ranking_t3` and `decoder_t3` are refined by T = 3 gradient steps.

_MAPS, _DECODER = ["ranking", "ranking_t[0-9]*", "ranking@t[0-9]*"], ["ranking", "decoder_t[0-9]*", "decoder@t[0-9]*"]
_AREAS = ["insertion_auc", "deletion_auc"]
_REFERENCES = ("black", "mean", "blur")

preset(
    "ranking_figure3a",
    over,
    params=OverParams(
        x="step",
        label="gradient steps T",
        metrics=_AREAS,
        lines=[
            Line(_MAPS, "maps refined, predicted class", "blue", "-", "o"),
            Line(_MAPS, "maps refined, true class", "blue", "--", "o", "_true", hollow=True),
            Line(_DECODER, "decoder refined, predicted class", "orange", "-", "s"),
            Line(_DECODER, "decoder refined, true class", "orange", "--", "s", "_true", hollow=True),
        ],
        absent=0.0,
        over="images",
        shift=0.04,
    ),
    needs=("scores",),
    width=720,
    alt="Two line plots of insertion and deletion over the number of gradient steps, for maps and decoder refined.",
    caption="Figure 3a. What gradient steps for the one image bring, taken by the map itself or by the decoder that "
    "drew it. Bars say how far the mean would move with other images; the claims compare the same images.",
)
preset(
    "ranking_figure3b",
    over,
    params=OverParams(
        x="path_steps",
        label="points S on a path",
        metrics=_AREAS,
        lines=[
            Line(["ranking", "ranking@S=*"], "predicted class", "blue", "-", "o"),
            Line(["ranking", "ranking@S=*"], "true class", "orange", "--", "o", "_true"),
        ],
        over="images",
        doubling=True,
    ),
    needs=("scores",),
    width=720,
    alt="Two line plots of insertion and deletion over the number of points on a path of training.",
    caption="Figure 3b. What it brings to judge a map at more shares of the pixels while it is trained. Each point is "
    "a training of its own.",
)
preset(
    "ranking_figure5",
    over,
    params=OverParams(
        x="step",
        label="gradient steps T",
        metrics=["mass"],
        lines=[
            Line(_MAPS, "trained map", "blue", "-", "o", case="*marked"),
            Line(["flat_t[0-9]*", "flat@t[0-9]*"], "flat map", "orange", "--", "s", case="*marked"),
            Line(_MAPS, "classifier before", "green", "-.", "^", "_before", case="*marked"),
        ],
        absent=0.0,
        over="images",
        level="mark_area",
        shift=0.03,
        zero=True,
    ),
    needs=("scores",),
    width=420,
    alt="Line plot of the share of attribution that lies on the mark over the number of gradient steps.",
    caption="Figure 5. The classifier was trained on with a white circle on every image of one class; the explainer "
    "never saw it. On images of that class refinement is to find what now decides.",
)
preset(
    "ranking_figure6",
    curves,
    params=CurvesParams(
        panels=[
            Panel(
                f"{kind}, {of_class} class ({better} is better)",
                [f"curve_{kind}{target}_{reference}" for reference in _REFERENCES],
                x="deleted" if kind == "deletion" else "inserted",
            )
            for target, of_class in (("", "predicted"), ("_true", "true"))
            for kind, better in (("deletion", "lower"), ("insertion", "higher"))
        ],
        lines=[
            Line(["ranking_t3"], "", "blue", "-", "o"),
            Line(["ranking"], "", "sky", "--", "s"),
            Line(["salvage"], "", "green", "-.", "^"),
            Line(["rise"], "", "orange", "-", "v"),
            Line(["attention_rollout"], "", "purple", "--", "D"),
            Line(["integrated_gradients"], "", "amber", "-.", "P"),
            Line(["random"], "", "grey", ":", "none"),
        ],
        across=2,
        whole=True,
    ),
    needs=("curves",),
    width=760,
    alt="Four line plots of the class's probability over the share of pixels deleted and inserted, for seven rows.",
    caption="Figure 6. A good order lowers deletion at once and raises insertion at once; a table's number is the area "
    "under the line. Mean over the three references.",
)
