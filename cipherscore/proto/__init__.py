"""The wire format between a data owner and a host."""
