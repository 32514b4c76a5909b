# make train and make test are all that a fresh clone needs; see README.md.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: venv train test lockstep bench lint
venv: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

# Flags for both networks: make train FLAGS='--epochs 3 --seed 1'
train: venv
	$(BIN)/python -m experiments.train_both --out runs $(FLAGS)

# Two processes of one thread each: PyTorch's threads would only wait for one another.
test: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

# The proof that the training is the same: ten epochs, float64, either source of masks.
lockstep: venv
	$(BIN)/python -m experiments.lockstep --epochs 10 --dtype float64

# Ours beside peers and floors; with Keras if it is there: pip install -c constraints.txt -e '.[peers]'
bench: venv
	$(BIN)/python -m benchmarks $(FLAGS)

lint: venv
	$(BIN)/pre-commit run --all-files
