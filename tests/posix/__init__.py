"""What POSIX and Linux promise of a file system, system call by system call.

Nothing in here knows EmberFS: every test works on a directory. It runs on local file systems, which shows that the test
is right, and on a mount, which shows that the mount is.
"""
