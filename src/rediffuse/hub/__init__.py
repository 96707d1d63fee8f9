"""Files of weights: models of the Hub, and whether a file holds all that it should."""
