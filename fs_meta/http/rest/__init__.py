"""The REST administration: a module for each kind of resource."""
