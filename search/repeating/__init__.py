"""Configurations of a search trained again on fresh seeds and splits: finalists and ablations."""
