"""The metadata service and the cluster manager that runs inside it."""
