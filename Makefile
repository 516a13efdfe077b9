# `make` alone lists what there is. Every target installs what it needs into .venv first; a second run finds it there.
#
# Variables, on the command line (make demo ARGS="seed=1") or in the environment:
#   ARGS               passed on: overrides to demo and the tables (task=plan: what they need), options to bench and test
#   SCALE              paper: the tables and figures with the papers' data, models and settings, on GPUs
#   LAUNCHER           how the jobs of a sweep run; without a GPU a job a core, at paper scale as ARGS say (launcher=...)
#   XAI_PYTHON         the Python (3.11 or newer) that .venv is made from; otherwise the first fit one on PATH
#   XAI_TEST_WORKERS   processes that `make test` shares its tests among; 0 runs them in one

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed
STORE := outputs/store
PLANNED = $(filter task=plan,$(ARGS))
# What is typed comes later, and counts. Two jobs on two cores want both; at paper scale it is for the user to say.
LAUNCHER ?= $(shell n=$$(getconf _NPROCESSORS_ONLN); test "$$n" -lt 2 || nvidia-smi -L >/dev/null 2>&1 \
	|| echo "launcher=processes hydra.launcher.jobs=$$n")
LAUNCHED = $(if $(filter paper,$(SCALE))$(findstring launcher=,$(ARGS)),,$(strip $(LAUNCHER)))
SWEEP = $(BIN)/python run.py $(if $(PLANNED),,-m $(if $(LAUNCHED),$(LAUNCHED) ))sweep=
SCALED = $(if $(filter paper,$(SCALE)),_paper)
SWEEPS := vectors_table1 vectors_table2 vectors_figure2 vectors_figure3 vectors_figure5 salvage_table1 salvage_table2 \
	salvage_table3 salvage_table4 salvage_figures salvage_figure6 ranking_figure6 ranking_figure3b ranking_table ranking_figures
ALL = $(addsuffix $(SCALED),$(SWEEPS))
PICTURES = $(BIN)/python run.py experiment=salvage_pictures$(SCALED)
comma := ,
space := $(subst ,, )

# An assignment, so that a PYTHON some other tool left in the environment does not count; make PYTHON=... does.
PYTHON = $(XAI_PYTHON)
XAI_TEST_WORKERS ?= $(shell test "$$(getconf _NPROCESSORS_ONLN)" -ge 2 && echo 2 || echo 0)

.DEFAULT_GOAL := help
.PHONY: help install demo tables plan vectors-table1 vectors-figure2 vectors-figure3 vectors-figure5 vectors-tuned salvage-tuned salvage-table1 salvage-table2 salvage-table3 salvage-table4 salvage-figures salvage-figure6 salvage-pictures rank-table rank-figures rank-figure3b rank-figure6 mixed-budget mixed-transfer mixed-supervision vectors-two-objects vectors-pretrained vectors-beyond salvage-beyond salvage-two-by-two rank-beyond compare bench bench-estimators docs docs-tables test soak lint format clean distclean vectors-table2 site

help:  ## this list
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z][a-z0-9-]*:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@awk '/^#   [A-Z_]+ / { if (!n++) print "\nVariables"; printf "  %-21s %s\n", $$2, \
		substr($$0, index($$0, $$3)) }' $(firstword $(MAKEFILE_LIST))

##@ Use

install: $(STAMP)  ## .venv with everything in it (once: 6 GB on Linux, half a minute on a fast line)
	@echo "$(VENV) is ready"

# Two processes, one for each core: the second takes what the first is not at, and needs not come to an end.
demo: $(STAMP)  ## the whole idea on real images, with controls and a report (minutes on two cores)
	@$(BIN)/python run.py experiment=demo $(ARGS) name=demo_helper >/dev/null 2>&1 & helper=$$!; \
	trap "kill $$helper 2>/dev/null" EXIT; $(BIN)/python run.py experiment=demo $(ARGS)

# The photographs of scikit-image are installed when they are asked for.
compare: $(STAMP)  ## every explainer that fits, by every metric: digits with a ViT and with a CNN, photographs with a CNN (about an hour)
	@$(BIN)/python -c 'import skimage' 2>/dev/null || { $(call INSTALL,photos); }
	$(BIN)/python run.py task=train method=classifier name=compare_classifier logger=none
	$(BIN)/python run.py task=train method=classifier model=cnn_tiny name=compare_judge logger=none
	$(SWEEP)compare $(ARGS)

##@ The papers' tables and figures (launchers, clusters: docs/cluster.md)

tables: $(STAMP) $(if $(PLANNED),plan)  ## all of them, one after the other; what they share is made once: docs/results.md
	$(if $(PLANNED),,@$(SWEEP)$(subst $(space),$(comma),$(ALL)) $(ARGS) || failed=1; $(if $(SCALED),,$(PICTURES) logger=none || failed=1;) \
	$(if $(SCALED),,$(BIN)/python -m docs.tables $(ALL) || failed=1;) exit $${failed:-0})

plan: $(STAMP)  ## what all of them need: stages, forward passes, bytes, hours (ARGS=rate=3000 or rate=measured)
	@$(BIN)/python run.py task=plan 'sweeps=[$(subst $(space),$(comma),$(ALL))]' $(filter-out task=plan,$(ARGS))

vectors-table1: $(STAMP)  ## explainability vectors, Table 1: the transfer against its bounds and controls
	$(SWEEP)vectors_table1$(SCALED) $(ARGS)

vectors-table2: $(STAMP)  ## explainability vectors, Table 2 and Figure 7: the same, supervised by Grad-CAM
	$(SWEEP)vectors_table2$(SCALED) $(ARGS)

vectors-figure2: $(STAMP)  ## explainability vectors, Figures 2 and 6: all pairs of data sets, and what tells the good ones
	$(SWEEP)vectors_figure2$(SCALED) $(ARGS)

vectors-figure5: $(STAMP)  ## explainability vectors, Figures 5 and 8: one pass beside Kernel SHAP by its passes
	$(SWEEP)vectors_figure5$(SCALED) $(ARGS)

vectors-figure3: $(STAMP)  ## explainability vectors, Figure 3: what lambda and alpha do
	$(SWEEP)vectors_figure3$(SCALED) $(ARGS)

vectors-tuned: $(STAMP)  ## alpha, lambda1 and lambda2 searched on a small validation set: accuracy against E-RMSE
	$(BIN)/python run.py experiment=vectors_tuned $(ARGS)

salvage-tuned: $(STAMP)  ## SALVAGE's temperature searched on validation images: R-SRG against RMA
	$(BIN)/python run.py experiment=salvage_tuned $(ARGS)

salvage-table1: $(STAMP)  ## SALVAGE, Table 1: faithfulness and localisation against rivals and controls
	$(SWEEP)salvage_table1$(SCALED) $(ARGS)

salvage-table2: $(STAMP)  ## SALVAGE, Table 2: least and most influential first
	$(SWEEP)salvage_table2$(SCALED) $(ARGS)

salvage-table3: $(STAMP)  ## SALVAGE, Table 3: the same, patches drawn by attribution
	$(SWEEP)salvage_table3$(SCALED) $(ARGS)

salvage-table4: $(STAMP)  ## SALVAGE, Table 4: the explainers as classifiers
	$(SWEEP)salvage_table4$(SCALED) $(ARGS)

salvage-figures: $(STAMP)  ## SALVAGE, Figures 2, 3, 4 and 7
	$(SWEEP)salvage_figures$(SCALED) $(ARGS)

salvage-figure6: $(STAMP)  ## SALVAGE, Figure 6: how likely the class is behind random and behind informed masks
	$(SWEEP)salvage_figure6$(SCALED) $(ARGS)

salvage-pictures: $(STAMP)  ## SALVAGE, Figures 1, 5, 8 and 9: chosen images under all methods, and what its own u(N) has wrong
	$(PICTURES) $(ARGS)

rank-table: $(STAMP)  ## Learn to Rank: deletion and insertion against rivals and controls; Figures 1, 2, 4, 5 and 7 to 9 on its pages
	$(SWEEP)ranking_table$(SCALED) $(ARGS)

rank-figures: $(STAMP)  ## Learn to Rank, Figures 3a, 5 and 6 (SCALE=paper: 3a and 6)
	$(SWEEP)ranking_figures$(SCALED) $(ARGS)

rank-figure3b: $(STAMP)  ## Learn to Rank, Figure 3b: trainings with other numbers of points on a path
	$(SWEEP)ranking_figure3b$(SCALED) $(ARGS)

rank-figure6: $(STAMP)  ## Learn to Rank, Figure 6 before a second classifier: a CNN (SCALE=paper: ViT-B/32)
	$(SWEEP)ranking_figure6$(SCALED) $(ARGS)

##@ Experiments across the papers

mixed-budget: $(STAMP)  ## a trained explainer as a start: Kernel SHAP from SALVAGE's map, and that map refined, by passes
	$(SWEEP)mixed_budget $(ARGS)

mixed-transfer: $(STAMP)  ## a transferred self-explanation beside Kernel SHAP at 16 to 1,024 coalitions
	$(SWEEP)mixed_transfer $(ARGS)

mixed-supervision: $(STAMP)  ## the explainability vector learned from RISE, Grad-CAM and occlusion instead of Kernel SHAP
	$(SWEEP)mixed_supervision $(ARGS)

vectors-two-objects: $(STAMP)  ## a transferred self-explanation where two digits are on an image, three seeds
	$(SWEEP)vectors_two_objects $(ARGS)

vectors-pretrained: $(STAMP)  ## the paper's own vector on base weights that were trained twice as long, to four targets, three seeds
	$(SWEEP)vectors_pretrained $(ARGS)

vectors-beyond: $(STAMP)  ## a vector learned from two columns of each explanation, to six targets: this project's own, three seeds
	$(SWEEP)vectors_beyond $(ARGS)

salvage-beyond: $(STAMP)  ## SALVAGE read in probabilities, with KL, and with some passes: this project's own, three seeds
	$(SWEEP)salvage_beyond $(ARGS)

salvage-two-by-two: $(STAMP)  ## loss by masks, each crossed with each: what of SALVAGE is which
	$(SWEEP)salvage_two_by_two$(SCALED) $(ARGS)

rank-beyond: $(STAMP)  ## a ranking decoder that sees Integrated Gradients on its paths: this project's own, three seeds
	$(SWEEP)ranking_beyond $(ARGS)

site: $(STAMP)  ## one site over all runs and sweeps in outputs/: outputs/site/index.html
	$(BIN)/python run.py task=site $(ARGS)

##@ Work on it

# A second process has to import torch before it helps, which a run of named tests does not earn back.
test: $(STAMP)  ## all tests; fails if none ran (ARGS="tests/test_rules.py" for some)
	$(BIN)/python -m pytest $(if $(findstring tests/,$(ARGS)),,-n $(XAI_TEST_WORKERS) --dist loadfile --no-loadscope-reorder) $(ARGS)

soak: $(STAMP)  ## kill, remove and damage at random what four jobs make at once (XAI_SOAK_KILLS=100, half an hour)
	$(BIN)/python -m tests.soak $(ARGS)

bench: $(STAMP)  ## speed and memory beside shap, captum, ViT-Shapley and plain passes (an hour; ARGS="--help")
	$(BIN)/python -m benchmarks $(ARGS)

bench-estimators: $(STAMP)  ## error of Shapley estimators against forward passes (half an hour; ARGS="--help" for less)
	$(BIN)/python -m benchmarks.estimators $(ARGS)

# Beside each other as they lie here, so that the same links hold on GitHub and in the site. Installed when asked for.
docs: $(STAMP)  ## README, docs/ and the API reference as a site: outputs/docs-site/index.html
	@$(BIN)/python -c 'import material, mkdocstrings_handlers.python' 2>/dev/null || { $(call INSTALL,docs); }
	@rm -rf outputs/docs-pages && mkdir -p outputs/docs-pages
	@cp -R README.md CONTRIBUTING.md CHANGELOG.md docs outputs/docs-pages
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file docs/mkdocs.yml
	@echo "outputs/docs-site/index.html is ready"

docs-tables: $(STAMP)  ## fill the tables of README and docs with what sweeps in outputs/ measured
	$(BIN)/python -m docs.tables

lint: $(STAMP)  ## what CI demands of the code: ruff, its formatting, layers of imports, dependencies, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/mypy

format: $(STAMP)  ## rewrite the code as lint wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

##@ Tidy up

# The store holds hours of training, and a damaged entry is found out and made anew without help.
clean:  ## remove outputs, logs and caches; the store and .venv stay
	@if [ -d outputs ]; then find outputs -mindepth 1 -maxdepth 1 ! -name store -exec rm -rf {} +; fi
	rm -rf multirun wandb lightning_logs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache build dist
	@find . \( -path ./$(VENV) -o -path ./.git \) -prune -o -type d -name __pycache__ -exec rm -rf {} +

distclean: clean  ## remove the store and .venv as well: back to a fresh clone
	rm -rf outputs $(VENV)

# Installation.
#
# Sound: a Python that starts and is new enough, in a venv made at this very path (the scripts of a copied one would
# quietly run the original), and no install of it was cut short.
SOUND = [ ! -e $(STAMP).part ] \
	&& $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& sed -n 's/^ *\(export \)*VIRTUAL_ENV=//p' $(BIN)/activate 2>/dev/null | tr -d "\"'" | grep -qFx "$$(pwd -P)/$(VENV)"

define MAKE_VENV
if [ -n '$(PYTHON)' ]; then set -- '$(PYTHON)'; \
else set -- python3 python3.14 python3.13 python3.12 python3.11; fi; \
first=$$1; python=; \
for candidate in "$$@"; do \
	if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		python=$$candidate; break; \
	fi; \
done; \
if [ -z "$$python" ]; then \
	found=$$("$$first" --version 2>/dev/null || echo "not found"); \
	echo "$$first ($$found) will not do, Python 3.11 or newer is needed: make XAI_PYTHON=/path/to/python3.11 ..." >&2; \
	exit 1; \
fi; \
if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	echo "$$python has no venv module: install it (on Debian and Ubuntu the package python3-venv), or name" \
		"another Python: make XAI_PYTHON=/path/to/python3.11 ..." >&2; \
	exit 1; \
fi; \
echo "Making $(VENV) with $$("$$python" --version)"; \
rm -rf $(VENV) && "$$python" -m venv $(VENV)
endef

# uv is several times as fast, but reads no pip.conf and may not exist for this machine: pip is the last word. Compiled
# once, as pip does: where Python may not write what it compiles, every process would spend 7 s on it.
define INSTALL
echo "Installing into $(VENV)"; \
{ $(BIN)/python -m pip install --quiet --disable-pip-version-check uv >/dev/null 2>&1 \
	&& $(BIN)/python -m uv pip install --quiet --compile-bytecode --python $(BIN)/python --editable '.[$(1)]'; } \
|| { echo "uv could not; trying pip"; \
	$(BIN)/python -m pip install --disable-pip-version-check --editable '.[$(1)]'; }
endef

ifeq ($(shell { $(SOUND); } && echo sound),)
.PHONY: $(STAMP)
endif

# The stamp is dated before the install, so that an edit of pyproject.toml during it counts. Left as .part it tells the
# next make that this one was killed; an install that failed by itself can simply be tried again.
$(STAMP): pyproject.toml
	@if ! { $(SOUND); }; then $(MAKE_VENV); fi
	@touch $@.part
	@{ $(call INSTALL,dev); } || { rm -f $@.part; exit 1; }
	@$(BIN)/python -m compileall -q xai hydra_plugins || true   # where no process may write that, each would spend a second
	@$(BIN)/python -c 'from xai.tasks.early import remember; remember()' >/dev/null 2>&1 || true   # for quick refusals
	@mv $@.part $@
