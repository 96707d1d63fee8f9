"""What is done beside the loop, and the callbacks that every run has."""
