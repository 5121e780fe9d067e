"""Metrics, traces and logs of the server.  None of them holds a token, a key or a caller's text.

`observer` is what the rest of the server talks to.  The parent process needs `logs` and `segment`
only, so nothing is imported here.
"""
