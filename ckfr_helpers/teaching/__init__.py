"""What only the notebooks use: lessons, figures in one style, slider panels."""
