"""The host's server: tokens in, risk or synthetic tokens out, over HTTP and gRPC.

``service`` is what BentoML runs; ``scorer`` and ``generation`` answer for both transports.
"""
