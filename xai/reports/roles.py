"""The rows of the tables: their order, labels, symbols, and what each of them is."""

from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True)
class Symbol:
    """A parameter vector as the paper writes it: theta with a subscript, a superscript and perhaps a tilde."""

    sub: str
    sup: str = ""
    tilde: bool = False

    @property
    def text(self) -> str:
        """For a terminal, as in `θ_ft^T`."""
        return f"{'~' * self.tilde}θ_{self.sub}" + (f"^{self.sup}" if self.sup else "")

    @property
    def latex(self) -> str:
        """Between dollar signs, for Markdown."""
        theta = r"\tilde{\theta}" if self.tilde else r"\theta"
        sub = self.sub.replace("*", r"\ast")
        return f"${theta}_{{\\mathrm{{{sub}}}}}" + (f"^{{\\mathrm{{{self.sup}}}}}" if self.sup else "") + "$"

    @property
    def mathml(self) -> Markup:
        """For HTML."""
        theta = Markup("<mover accent='true'><mi>θ</mi><mo>~</mo></mover>" if self.tilde else "<mi>θ</mi>")
        if not self.sup:
            return Markup("<math><msub>{}<mtext>{}</mtext></msub></math>").format(theta, self.sub)
        inside = Markup("{}<mtext>{}</mtext><mtext>{}</mtext>").format(theta, self.sub, self.sup)
        return Markup("<math><msubsup>{}</msubsup></math>").format(inside)


@dataclass(frozen=True)
class Role:
    """A row of a table.

    Attributes:
        name: The `role` of a result.
        label: What is printed.
        short: What is printed where there is little room; up to about 16 characters fit.
        kind: `method` for rows that compete for the best value, `bound` for one that was given what the others lack,
            `control` for one that could prove the claim wrong, `chance` for what needs no model at all. Other tables
            may have further kinds.
        explanation: What it is.
        symbol: Its parameters, None where there are none.
        doubt: Of a control: what could be true where it does as well as the method; follows "that".
    """

    name: str
    label: str
    short: str
    kind: str
    explanation: str
    symbol: Symbol | None = None
    doubt: str = ""


KINDS = {"method": "Models", "bound": "Bound", "control": "Controls", "chance": "Chance"}
"""Kinds of rows in the order of the table, with the heading of their block."""

_METHODS = (
    Role(
        "zero_shot",
        "Zero-shot",
        "Zero-shot",
        "method",
        "The pre-trained model as it comes: it was fine-tuned on no data set.",
        Symbol("base"),
    ),
    Role(
        "ft_source",
        "Fine-tuned on source",
        "FT source",
        "method",
        "Trained to classify the source images; nobody showed it an explanation.",
        Symbol("ft", "S"),
    ),
    Role(
        "ft_source_x",
        "Fine-tuned on source+X",
        "FT source+X",
        "method",
        "Trained on the source images to classify and to explain. Less the row above, it is the explainability vector.",
        Symbol("ft*", "S"),
    ),
    Role(
        "ft_target",
        "Fine-tuned on target",
        "FT target",
        "method",
        "Trained to classify the target images: what a user has, a good classifier that cannot explain itself.",
        Symbol("ft", "T"),
    ),
    Role(
        "proposed",
        "Proposed (transferred)",
        "Proposed",
        "method",
        "Fine-tuned on target plus λ2 times the explainability vector of the source: nothing is trained, and no "
        "explanation of a target image is learned from.",
        Symbol("ft*", "T", tilde=True),
    ),
    Role(
        "ft_target_x",
        "Fine-tuned on target+X (bound)",
        "FT target+X",
        "bound",
        "Trained on explained target images, which the transfer is meant to make unnecessary: how good it could get.",
        Symbol("ft*", "T"),
    ),
)
_CONTROLS = (
    Role(
        "random_vector",
        "Random vector, equal norm",
        "Random vector",
        "control",
        "A random direction of the same length added in place of the explainability vector.",
        doubt="any change of the parameters of that size would do",
    ),
    Role(
        "other_class",
        "Another class's column",
        "Other class",
        "control",
        "The proposed model asked about a wrong class, its map measured against that of the right one.",
        doubt="the maps hardly depend on the class that is asked for",
    ),
    Role(
        "position_prior",
        "Position prior",
        "Position prior",
        "control",
        "The mean explanation of the source, the same map for every image.",
        doubt="one map for all images would do",
    ),
    Role(
        "ink",
        "Ink (brightness)",
        "Ink",
        "control",
        "How far the brightness of each patch is from that of the ground; no model is asked.",
        doubt="the maps follow brightness and not the classifier",
    ),
    Role(
        "constant",
        "Constant map",
        "Constant",
        "control",
        "The same value for every patch. Its E-RMSE is 1 by definition.",
        doubt="a map that says nothing is nearer to the reference",
    ),
    Role(
        "chance",
        "Chance",
        "Chance",
        "chance",
        "What maps and guesses drawn at random score in expectation; computed, not measured.",
    ),
)
ROLES = {role.name: role for role in (*_METHODS, *_CONTROLS)}
"""All rows by name, in the order of the table."""
