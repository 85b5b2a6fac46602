"""Figures in one style. Functions take arrays and return a matplotlib Figure; none computes a result."""
