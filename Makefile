# A fresh clone needs nothing but make train and make test. See README.md.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: venv train test lockstep bench lint page test-page catalogs notebook
venv: .venv/installed

.venv/installed: pyproject.toml contract/pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ./contract --editable '.[test]'
	touch $@

# Flags for both networks: make train FLAGS='--epochs 3 --seed 1'
train: venv
	$(BIN)/python -m experiments.train_both --out runs --overwrite $(FLAGS)

# Two processes with one thread each. With more, PyTorch's threads wait for one another.
test: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# The proof that the training is the same: ten epochs in float64, with the masks of each framework.
lockstep: venv
	$(BIN)/python -m experiments.lockstep --epochs 10 --dtype float64

# Compare speeds. Keras takes part if it is installed: pip install -c constraints.txt -e '.[peers]'
bench: venv
	$(BIN)/python -m benchmarks $(FLAGS)

# The site, in build/site: English there, Chinese in zh-cn. A warning is an error.
page: .venv/page
	$(SPHINX) -d build/doctrees/en docs build/site
	$(SPHINX) -d build/doctrees/zh -D language=zh_CN docs build/site/zh-cn

SPHINX := $(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env --builder html

.venv/page: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[page]'
	touch $@

# The page in a real browser: needs Chromium (Debian: apt-get install chromium fonts-noto-cjk).
test-page: page
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests/page

# After a change of English text: what docs/locale/ lacks is then empty or marked as fuzzy.
catalogs: .venv/page
	$(BIN)/sphinx-build --quiet --fresh-env --builder gettext docs build/gettext
	$(BIN)/sphinx-intl update --pot-dir build/gettext --locale-dir docs/locale --language zh_CN

# notebooks/dropout.ipynb, from its source notebooks/dropout.py.
notebook: venv
	$(BIN)/jupytext --quiet --to ipynb notebooks/dropout.py

lint: venv
	$(BIN)/pre-commit run --all-files
