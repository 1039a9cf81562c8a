"""Copying trees between the local file system and clusters.

`place` is what both kinds of file system have to offer, `local` and `remote` the two of them, `engine` the copying:
one walk that makes directories, many files at a time, bounded memory.
"""
