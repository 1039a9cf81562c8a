"""The mount: the kernel's FUSE protocol on the event loop, and the file system behind it.

abi.py          structures, operations and flags in numbers
requests.py     bytes of the kernel -> typed requests
answers.py      values -> answers and notifications
negotiation.py  INIT
channel.py      /dev/fuse on the event loop
mountpoint.py   mount, umount, stale mounts
options.py      `-o` words -> settings
"""
