"""The GPU exporter: devices, and which service uses how much of them."""
