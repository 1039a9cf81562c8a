"""Where a metadata server's control plane is, asked over its data plane."""

import msgspec


class GetControl(msgspec.Struct, frozen=True, array_like=True):
    pass


class GetMountConfig(msgspec.Struct, frozen=True, array_like=True):
    """The cluster's configuration of mounts is asked for: a `PushedConfig`."""


class GetControlReply(msgspec.Struct, frozen=True, array_like=True):
    port: int
    """Of gRPC, at the host by which the caller has reached the data plane."""
    manager: bool
    """This server is the cluster manager; if not, another one is, or becomes it."""
