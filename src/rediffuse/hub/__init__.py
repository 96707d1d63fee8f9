"""Weights from the Hugging Face Hub, and checks that they are complete."""
