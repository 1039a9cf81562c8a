"""A whole cluster on one machine: what `emberfs up` keeps in its directory, and the supervisor that runs it.

`directory` owns the files, `process` one daemon, `supervisor` all of them, `launch` a supervisor in the background.
Nothing here imports a service: daemons are started as `python -m fs_meta` and `python -m fs_storage`.
"""
