"""`study=salvage` end to end, in seconds: what is there, and that a classifier of a file is the one it is."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.numpy import load_file

from tests.end_to_end.jobs import run
from tests.end_to_end.runs import Run, artifacts

LEARNED = ("salvage", "vit_shapley")
CLASSIFIERS = ("classifier", "surrogate")
MAPS_ONLY = ("rise", "attention_rollout", "saliency", "random", "position_prior", "object_mask")
ROWS = (*CLASSIFIERS, *LEARNED, *MAPS_ONLY)
STUDY = ("experiment=salvage_smoke", "data=digits_cluttered", f"rows=[{','.join(ROWS)}]", "name=smoke")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The undisturbed run that others are compared with; nobody writes into its folder."""
    folder = tmp_path_factory.mktemp("study")
    return Run(folder, run(folder, *STUDY))


@pytest.mark.slow
def test_every_file_is_there(study: Run) -> None:
    scores = pd.read_csv(study.output / "scores.csv")
    usual = scores[~scores["explainer"].str.contains("@")]
    assert set(usual["explainer"]) == set(ROWS)
    assert set(scores["explainer"]) - set(usual["explainer"]) == {f"{name}@0.5" for name in LEARNED}
    metrics = usual.groupby("explainer")["metric"].agg(set)
    for row in ROWS:
        assert ("accuracy" in metrics[row]) == (row not in MAPS_ONLY)
        assert ({"r_srg", "rma", "grid_pointing"} <= metrics[row]) == (row not in CLASSIFIERS)
    means = usual.groupby(["explainer", "metric"])["value"].mean()
    assert means["object_mask", "grid_pointing"] > means["random", "grid_pointing"]
    for name in ("report.html", "salvage_table1.md", "salvage_table1.csv", "claims.csv", "costs.csv", "curves.csv"):
        assert (study.output / name).stat().st_size > 100
    for picture in (study.output / "figures").glob("*.png"):
        with Image.open(picture) as image:
            image.verify()


def test_a_classifier_of_a_file_is_explained_like_the_one_it_is(study: Run, tmp_path: Path) -> None:
    (made,) = artifacts(study.store, "classifier")
    file = made / "classifier.safetensors"
    small = ("rows=[classifier,surrogate]", "lengths=[]", "probe=null", "metrics=[classification]", "pictures=0")
    run(tmp_path, *STUDY, *small, "tables=[salvage_table4]", "figures=[]", f"checkpoint={file}")
    store = tmp_path / "outputs" / "store"
    for kind in CLASSIFIERS:
        (ours,), (theirs,) = artifacts(store, kind), artifacts(study.store, kind)
        found, wanted = (load_file(folder / f"{kind}.safetensors") for folder in (ours, theirs))
        assert found.keys() == wanted.keys()
        assert all(np.array_equal(value, wanted[name]) for name, value in found.items())
