"""Assay: organizations keep sets of tests for AI applications and run them in the background."""
