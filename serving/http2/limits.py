"""Every bound of the native engine, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from serving.settings import Settings

# ---- memory

STREAM_WINDOW: Final = 1 << 20
"""Bytes of one stream that a client may send before they are taken."""
CONNECTION_WINDOW: Final = 4 << 20
"""The same, for all streams of a connection together."""
HEADER_LIST_BYTES: Final = 16 << 10
"""Header list that is announced as the largest; a larger one is answered RESOURCE_EXHAUSTED."""
HEADER_BLOCK_BYTES: Final = 32 << 10
"""Header block, packed or unpacked, that ends the connection."""
CONTINUATIONS: Final = 8
"""CONTINUATION frames of one header block."""
KNOWN_BLOCKS: Final = 32
"""Header blocks a connection remembers, each no longer than `KNOWN_BLOCK_BYTES`."""
KNOWN_BLOCK_BYTES: Final = 2 << 10
LATE_STREAMS: Final = 512
"""Streams ended before the client's half was, of which frames may still be on their way."""
SKIPPED_IDS: Final = 32
"""Gaps in the stream ids of a connection that are remembered, to name the right error."""
OUTPUT_BYTES: Final = 256 << 10
"""Bytes in a connection's send buffer from which on nothing more is read from it."""
FRAME_OUT_BYTES: Final = 64 << 10
"""Longest DATA frame sent, if the client takes it: long ones hold up the other streams."""
DISCARDED_BYTES: Final = 1 << 20
"""Bytes still read from a connection that is being closed, so that it sees the reason."""
REFUSED_BODY_BYTES: Final = 64 << 10
"""Bytes of a body read before something that is no gRPC call is answered."""
HELD_MESSAGES: Final = 4
HELD_MESSAGES_OF_ALL: Final = 16
"""Incomplete messages that a connection, and all of them, may have in memory, in units of
``max_message_bytes``."""
MESSAGE_BYTES: Final = 64
"""What a message takes in memory beyond its content, roughly."""

# ---- time, in seconds

HANDSHAKE_SECONDS: Final = 10.0
"""TLS handshake; then again preface and first SETTINGS; and a header block once begun."""
IDLE_SECONDS: Final = 600.0
"""A connection without a call and without a frame."""
STALL_SECONDS: Final = 30.0
"""A client that takes nothing of what is sent to it."""
REFUSED_BODY_SECONDS: Final = 10.0
"""A request that is no gRPC call and does not end."""
LINGER_SECONDS: Final = 2.0
"""A connection that is being closed."""
GOAWAY_SECONDS: Final = 1.0
"""How long a draining server waits for the answer to the ping behind its first GOAWAY."""

# ---- work

TURN_FRAMES: Final = 1_024
"""Frames of one connection that are handled before the other connections get their turn."""
RESETS: Final = 1_000
RESETS_PER_SECOND: Final = 50
"""Streams a client may reset without having waited for the answer (CVE-2023-44487)."""
CHORES: Final = 4_000
CHORES_PER_SECOND: Final = 1_000
"""Frames that ask for work and carry no call: PING, SETTINGS, empty DATA, ..."""
ANSWER_CHORES: Final = 8
"""Such frames that each call, and each DATA frame sent, allows beyond these."""
STREAMS_PER_RESET: Final = 8
"""Calls that allow one more reset."""
MESSAGES_PER_CHORE: Final = 16
"""Messages of a stream that count as one such frame: thousands of empty ones fit into one DATA."""
SMALL_DATA: Final = 64
"""Bytes of a DATA frame that count as one, unless they complete a message."""
SETTINGS_CHORES: Final = 10
"""What a SETTINGS frame counts for: each entry of it is looked at."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Those bounds that an operator sets."""

    message_bytes: int
    streams: int
    connections: int

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Return those of ``settings``."""
        return cls(settings.max_message_bytes, settings.max_streams, settings.max_connections)


class Budget:
    """What a client may do for nothing: its allowance of resets and chores.

    Spending is a subtraction in the connection's code; this refills, once a second.
    """

    __slots__ = ("_paid", "chores", "resets")

    def __init__(self) -> None:
        self.resets = RESETS
        self.chores = CHORES
        self._paid = 0

    def earn(self, opened: int) -> Budget:
        """Add what the streams opened since the last time allow.

        Args:
            opened: Number of streams that the client ever opened.
        """
        streams = opened - self._paid
        self._paid = opened
        self.chores += streams * ANSWER_CHORES
        self.resets += streams // STREAMS_PER_RESET
        return self

    def refill(self, seconds: float) -> None:
        """Add the allowance of ``seconds``; what answers have earned above the top is dropped."""
        self.resets = min(RESETS, self.resets + int(RESETS_PER_SECOND * seconds))
        self.chores = min(CHORES, self.chores + int(CHORES_PER_SECOND * seconds))
