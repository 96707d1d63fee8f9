"""What a model's passes cost, computed from its configuration alone, and the rows that follow."""
