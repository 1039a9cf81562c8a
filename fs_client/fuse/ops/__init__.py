"""The operations of the mount, a file for each group of them. Each has `handlers(mount)`: opcode to handler.

A handler answers from memory at once, returns a coroutine that will, or `LATER` when somebody else answers. Errors are
`OSError` with the errno that the program sees.
"""
