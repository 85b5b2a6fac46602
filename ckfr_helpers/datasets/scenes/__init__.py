"""Painted places with photographs of objects pasted in."""
