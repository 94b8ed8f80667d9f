"""Describes a data set: statistics, class balance, damaged and duplicate images."""
