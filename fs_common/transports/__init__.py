"""Ways for frames to travel. `tcp` is always there; everything above a transport is the same over each of them."""
