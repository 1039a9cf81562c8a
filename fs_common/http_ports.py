"""On which port a daemon serves HTTP: `http_port` of its configuration. Pure."""

PORT_MAX = 65_535
NONE = -1
"""`http_port` of a daemon that serves no HTTP."""
ABOVE_METADATA = 2
ABOVE_STORAGE = 100
"""Where a daemon whose configuration does not say serves HTTP: so far above its data plane's port."""


def port_of(configured: int | None, data_port: int, above: int) -> int:
    """Where a daemon serves HTTP. `data_port`: as configured, 0 for any free one: then HTTP has any, too."""
    if configured is not None:
        return configured
    return data_port + above if data_port else 0


def port_problem(configured: int | None, data_port: int, above: int) -> str | None:
    """What is wrong with a configuration's `http_port`."""
    if configured is not None and not NONE <= configured <= PORT_MAX:
        return f"http_port: 0 to {PORT_MAX}, or {NONE} for none"
    port = port_of(configured, data_port, above)
    if port > PORT_MAX:
        return f"http_port: left out it is {port}, above {PORT_MAX}; set it, or {NONE} for none"
    if port and port == data_port:
        return "http_port: the same as port"
    return None
