"""Evaluation on the data owner's side: reads plain values, trains for itself, sends nothing."""
