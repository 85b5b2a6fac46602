"""Helpers for the Categorical Knowledge Fused Recognition (CKFR) notebooks.

Each module is one room of the house, and imports only ever point towards the ground floor:
``runtime`` < ``wordnet`` < ``hierarchy`` < ``losses`` < ``baselines`` < ``metrics`` < ``localization`` <
``models`` < ``cam`` < ``datasets`` < ``training`` < ``arrangement`` < ``plots`` < ``sliders`` < ``demo`` <
``__main__``.

Nothing is imported here, so ``import ckfr_helpers`` is instant and ``ckfr_helpers.hierarchy`` works
without torch.
"""

__version__ = "0.1.0"
