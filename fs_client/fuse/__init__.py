"""The mount: the kernel's FUSE protocol on the event loop, and the file system behind it.

abi.py             structures, operations and flags in numbers
requests.py        bytes of the kernel -> typed requests
answers.py         values -> answers and notifications
negotiation.py     INIT
kernel_request.py  a request on its way, and what a handler may answer
in_work.py         deadlines and interrupts of requests that wait
payloads.py        memory for written data
notifier.py        notifications
counters.py        what operations cost
channel.py         /dev/fuse on the event loop: all of these together
mountpoint.py      mount, unmount, stale mounts
"""
