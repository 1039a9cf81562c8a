"""Datasets for training loops."""
