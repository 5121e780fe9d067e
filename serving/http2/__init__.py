"""The native gRPC engine: HTTP/2 (RFC 9113) on one event loop (docs/decisions, number 6).

::

    server.py        NativeServer: sockets, start, drain, once-a-second care of connections
    connection.py    one connection: bytes to frames, the path of a call in one piece
    dispatch.py      calls off that path: DATA and HEADERS however they come
    control.py       frames that steer: settings, windows, pings, priorities, resets
    lifecycle.py     a connection from greeting to closing, draining, its allowances
    headers.py       HPACK with a memory of header blocks that change no table
    requests.py      header fields to a request, or why it is none (RFC 9113 section 8, gRPC)
    messages.py      gRPC's length-prefixed messages, compression, timeouts, trailers
    exchanges.py     one call on one stream; unary.py and streaming.py are its kinds
    outflow.py       what waits to be sent, and the windows that say how much may be
    deadlines.py     ends calls whose deadline has passed
    limits.py        every bound, in one place
    frames.py        numbers of the RFC, frames as bytes, the two kinds of error
"""
