"""Glue for frameworks, metrics and tests: each a file that costs nothing unless it is imported."""
