"""What the machine can do without EmberFS: plain sockets, plain files, plain LMDB, in processes of their own."""
