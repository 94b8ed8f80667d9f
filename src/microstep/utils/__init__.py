"""Helpers for text, tables and plots, which import nothing else of microstep but its errors."""
