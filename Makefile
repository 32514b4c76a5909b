# make train and make test are all that a fresh clone needs; see README.md.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: venv train test lint
venv: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

# Flags for both: make train FLAGS='--epochs 3 --seed 1'
train: venv
	$(BIN)/python -m impls.torch.train --out runs/torch $(FLAGS)
	$(BIN)/python -m impls.jax.train --out runs/jax $(FLAGS)
	$(BIN)/python -m experiments.compare runs/torch runs/jax

test: venv
	$(BIN)/python -m pytest

lint: venv
	$(BIN)/pre-commit run --all-files
