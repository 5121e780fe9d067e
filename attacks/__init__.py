"""Attacks on what a host holds, run and measured on the owner's side, where the truth is known."""
