"""What a run will cost, and the rows of its passes, decided before its models are loaded."""
