"""Typed records of the data plane: one class for each request and response.

All are array-like msgpack: a field may be appended with a default, never removed, reordered or retyped.
"""
