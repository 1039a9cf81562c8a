"""Transactional key-value stores behind one interface."""
