"""What a host that knows the population reads under each protection, and what that costs."""
