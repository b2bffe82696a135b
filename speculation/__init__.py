"""The pure core: bytes, ints and tensors in, values out. It knows no network, no model and no clock."""
