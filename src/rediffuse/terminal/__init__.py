"""What is written to a terminal."""
