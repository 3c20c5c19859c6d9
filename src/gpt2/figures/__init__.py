"""Plots and attention pages."""
