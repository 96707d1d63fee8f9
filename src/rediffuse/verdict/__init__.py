"""The verdict on a run: findings, a headline and a suggestion, derived from the rows of its
logs.
"""
