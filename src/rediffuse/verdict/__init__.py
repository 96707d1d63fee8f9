"""From a run's rows to findings, a headline and a suggestion."""
