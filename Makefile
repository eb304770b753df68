# Faults for ten minutes: make soak [SECONDS=600] [SEED=1]
SECONDS ?= 600
SEED ?= 1
PYTHON ?= python

.PHONY: soak
soak:
	$(PYTHON) -m tests.faults.soak --seconds $(SECONDS) --seed $(SEED)
