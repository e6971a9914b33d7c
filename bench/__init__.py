"""Measures what isolation costs, side by side with the same program without it."""
