"""The data owner's HTTP process: takes raw records, sends tokens to the host."""
