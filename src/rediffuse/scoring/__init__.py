"""Rewards called, checked, combined, remembered and served."""
