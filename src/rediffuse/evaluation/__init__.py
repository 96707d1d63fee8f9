"""Evaluation of policies: images of fixed prompts, held-out rewards, and suites of prompts."""
