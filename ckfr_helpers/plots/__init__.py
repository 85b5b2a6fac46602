"""Figures, one style. Functions take arrays and return a matplotlib Figure; none of them computes a result."""
