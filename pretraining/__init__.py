"""How the embedded model was made, from nothing to the shipped weights. Start at `make.py`."""
