import re
from dataclasses import replace
from html.parser import HTMLParser

import pandas as pd
import pytest
import torch

from tests.report.study_frames import COLUMNS, scores, study, sweep
from xai.report.figures import Source, draw_all
from xai.report.headline import compared, transferred
from xai.report.layout import TableParams
from xai.report.page import Page, Part, Picture, write_page
from xai.report.pictures import Gallery, sheets
from xai.report.present import Shown, as_page, say, say_all
from xai.report.sheets import claim_notes, claim_sheets, cost_sheets, sheet_of
from xai.report.tables import build_tables
from xai.study.claims import Claim, Claims, judge, table_of
from xai.study.statistics import Best

_VOID = {"meta", "link", "img", "br", "input", "wbr"}


class Reader(HTMLParser):
    """Checks that elements close in order, and keeps tags, links, sources, ids, handlers of events and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.tags, self.links, self.ids, self.handlers, self.text = [], [], [], [], [], ""

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in _VOID:
            self.open.append(tag)
        self.links += [value for name, value in attributes if name in ("href", "src")]
        self.ids += [value for name, value in attributes if name == "id"]
        self.handlers += [name for name, _ in attributes if name.startswith("on")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text())
    assert not reader.open
    return reader


FOUND = Best("salvage", over="runs")


def full_page() -> Page:
    source = study()
    drawn, missing = draw_all(
        ["salvage_figure2", {"figure": "cost_quality", "metric": "srg"}, "salvage_figure7"], source
    )
    maps = {"SALVAGE": torch.rand(2, 4, 4), "RISE": torch.rand(2, 4, 4)}
    (sheet,) = sheets(Gallery(torch.rand(2, 3, 16, 16), maps, ["cat", "dog"], ["cat", "cow"]))
    claims = [Claim(["srg"], ["salvage"], [below], "Table 1") for below in ("rise", "vit_cx")]
    findings = table_of(judge(source.scores, Claims(claims), COLUMNS))
    parts = [
        Part("The tables", [sheet_of(table) for table in build_tables(source.scores, TableParams(), COLUMNS)]),
        Part("The claims", claim_sheets(findings, COLUMNS), notes=claim_notes(findings)),
        Part("The figures", pictures=[Picture.of_drawn(each) for each in drawn], notes=missing),
        Part("What the maps look like", pictures=[Picture.of(sheet, "Two images with their maps.")]),
        Part("What it costs", cost_sheets(source.costs)),
        Part("Nothing"),
    ]
    summary = compared(source, "srg", FOUND)
    about = "vit on digits, 12 images, 3 seeds"
    return Page("Explainers <compared>", about, summary, parts, "xai task=compare", {"versions": "torch 2"})


def test_rows_that_are_held_against_the_same_one_have_a_line_each():
    claims = [Claim(["srg"], ["salvage", "grad_cam"], ["rise"], "ours", heading="Ours less others")]
    claims.append(Claim(["srg"], ["salvage"], ["random"], "ours", heading="Ours less others"))
    (sheet,) = claim_sheets(table_of(judge(study().scores, Claims(claims), COLUMNS)), COLUMNS)
    said = {line.names[0]: line.entries[0].text for line in sheet.parts[0].lines}
    assert said == {"salvage less rise": "+11.0 ✓", "grad_cam less rise": "-11.0 ✗", "random": "+52.0 ✓"}


def test_a_page_is_one_well_formed_file_without_requests(tmp_path):
    path = write_page(tmp_path / "new" / "report.html", full_page())
    reader, text = read(path), path.read_text()
    assert [path.name for path in path.parent.iterdir()] == ["report.html"]
    assert all(link.startswith(("data:", "#")) for link in reader.links)
    assert {link[1:] for link in reader.links if link.startswith("#")} == set(reader.ids)
    assert not re.search(r"https?:|@import|url\(|<script", text)
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    assert sum(link.startswith("data:image/png") for link in reader.links) == 3


def test_a_page_says_all_it_was_given(tmp_path):
    said = " ".join(read(write_page(tmp_path / "a.html", full_page())).text.split())
    for part in (
        "Explainers <compared>", "Trust salvage", "salvage is ahead of rise in SRG", "+11.0",
        "Of 2 comparisons: 1 holds, 0 do not hold",
        "Not measured: there is no row vit_cx", "A claim holds where", "salvage_figure7: no row was measured",
        "kernel shap", "1,500", "a backward pass counts as two", "xai task=compare", "torch 2",
    ):  # fmt: skip
        assert part in said


def test_what_was_typed_may_be_anything(tmp_path):
    typed = "xai image='\udcff<img src=x onerror=alert(1)>\n.png'"
    text = write_page(tmp_path / "a.html", Page("A", command=typed)).read_text(encoding="utf-8")
    assert r"\udcff&lt;img src=x onerror=alert(1)&gt;" in text
    assert "<img" not in text


def test_the_headline_says_what_to_trust_and_what_it_costs():
    first, cost, reach = compared(study(), "srg", FOUND)
    assert first.startswith("Trust salvage: it has the best SRG (52.0 %)")
    assert "6 ms" in cost
    assert "12 images of digits, over 3 seeds: with fewer than 30 images" in reach


@pytest.mark.parametrize(("milliseconds", "told"), [(0.0123, "0.0123 ms"), (999.7, "1,000 ms"), (1000.0, "1.0 s")])
def test_the_headline_tells_times_of_any_size_in_three_digits(milliseconds, told):
    source = study()
    _, cost, _ = compared(replace(source, costs=source.costs.assign(milliseconds=milliseconds)), "srg", FOUND)
    assert cost == f"A map of salvage takes {told}."


def test_the_headline_has_the_mean_of_the_table():
    source = study()
    columns = COLUMNS | {"srg": replace(COLUMNS["srg"], quadratic=True)}
    (table,) = build_tables(source.scores, TableParams(), columns)
    first, *_ = compared(replace(source, columns=columns), "srg", Best("random", over="runs"))
    assert f"({table.cell('random', 'srg').mean:.1f} %)" in first
    assert "(0.0 %)" not in first


def test_the_headline_names_a_cheaper_one_that_is_as_good():
    first, cost, _ = compared(study(), "srg", Best("kernel_shap", frozenset({"salvage", "rise"}), over="runs"))
    assert "rise and salvage cannot be told from it" in first
    assert "A map of kernel shap takes 1.5 s; salvage, not told from it, takes 6 ms, 250 times less." in cost


@pytest.mark.parametrize(
    ("best", "said"),
    [
        (Best("random", over="images"), "None can be trusted"),
        (Best("salvage", frozenset({"random"}), over="images"), "trust none yet"),
        (Best("salvage"), "may be chance"),
        (Best(), "nothing is said of which to trust"),
    ],
)
def test_the_headline_trusts_nothing_that_was_not_shown(best, said):
    sentences = compared(study(), "srg", best)
    assert said in sentences[0]
    assert not any(sentence.startswith("Trust") for sentence in sentences)


def transfer(**errors: float) -> Source:
    parts = [scores({"ft_target": {"e_rmse": 1.2, "accuracy": 0.9}, "ft_target_x": {"e_rmse": 0.6}})]
    parts.append(scores({"proposed": {"e_rmse": 0.9, "accuracy": 0.81}}, source="mnist", lambda2=0.5))
    parts += [scores({name: {"e_rmse": value}}, "control", source="mnist") for name, value in errors.items()]
    return Source(pd.concat(parts), columns=COLUMNS)


def test_a_transfer_is_summed_up_in_three_sentences():
    shown, controls, limits = transferred(
        transfer(random_vector=1.3, other_class=0.95, constant=0.5),
        {"constant": "saying nothing is nearer"},
        "Kernel SHAP",
    )
    assert "λ2 = 0.5" in shown
    assert "is 25 % lower, 0.900 against 1.200" in shown
    assert "90.0 % of the accuracy is kept (81.0 % of 90.0 %)" in shown
    assert "50 % of the way to the bound" in shown
    assert "better than the controls random vector (1.300) and other class (0.950), but not than constant" in controls
    assert controls.endswith("does not rule out that saying nothing is nearer.")
    assert "3 seeds, on 12 images" in limits
    assert "83 % of the gain is left" in limits
    assert "hardly specific to its class" in limits


def test_a_transfer_without_its_rows_says_which_are_missing():
    only = sweep().scores
    source = Source(only[only["explainer"] == "ft_target"], columns=COLUMNS)
    assert "there is no E-RMSE of proposed" in transferred(source, {}, "Kernel SHAP")[0]
    assert "No control was measured" in transferred(transfer(), {}, "Kernel SHAP")[1]


def test_the_terminal_shows_the_first_table_and_the_tally_and_a_sweep_all(capsys):
    source = study()
    tables = {name: build_tables(source.scores, TableParams(name, columns=["srg"]), COLUMNS) for name in ("One", "Two")}
    claims = table_of(judge(source.scores, Claims([Claim(["srg"], ["salvage"], ["rise"], "Table 1")]), COLUMNS))
    shown = Shown(tables, claims, missing=["a row was left out"], summary=["It holds."])
    say(shown)
    said = " ".join(capsys.readouterr().out.split())
    for part in ("One ·", "Claims: Of 1 comparison: 1 holds", "On the page: 1 more table.", "left out", "- It holds."):
        assert part in said
    for part in ("Two ·", "A claim holds where", "is ahead of"):
        assert part not in said
    say_all(shown)
    said = " ".join(capsys.readouterr().out.split())
    for part in ("One ·", "Two ·", "A claim holds where", "is ahead of"):
        assert part in said


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_leave_every_claim_open_wherever_it_is_shown(tmp_path, seeds, capsys):
    frame = study().scores
    few = frame[frame["seed"] < seeds]
    claims = table_of(
        judge(few, Claims([Claim(["srg"], ["salvage", "random"], ["rise", "vit_cx"], "Table 1")]), COLUMNS)
    )
    assert set(claims["verdict"]) == {"undecided", "not measured"}
    say_all(Shown({}, claims))
    printed = capsys.readouterr().out
    page = write_page(tmp_path / "a.html", as_page(Shown({}, claims), "A", "", {})).read_text()
    for said in (printed, page):
        assert "0 hold, 0 do not hold, 2 undecided" in " ".join(said.split())
        assert "✓" not in said.replace("✓ holds", "")
        assert "✗" not in said.replace("✗ does not hold", "")


def test_few_images_are_too_few_to_trust_anything_by():
    frame = study().scores
    few = Source(frame[(frame["seed"] == 0) & (frame["image"] < 4)], columns=COLUMNS)
    first, *_, reach = compared(few, "srg", Best("salvage", over="images"))
    assert first == "salvage has the best SRG (48.4 %), on 4 images: too few to say which to trust."
    assert "with fewer than 30 images only large differences show" in reach
