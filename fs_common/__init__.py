"""Values and machinery shared by the metadata service, the storage daemons and the clients.

Layer: the lowest one. Nothing here imports `fs_meta`, `fs_storage` or `fs_client`.
"""
