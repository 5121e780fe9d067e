"""Settings of the property tests."""

from hypothesis import settings

# No deadline: how long one example takes on a busy machine says nothing about the code.
settings.register_profile("steady", deadline=None)
settings.load_profile("steady")
