"""The short way of raw scoring requests that look alike.

A client that scores row after row sends the same message over and over, except for the tensor at
its end.  What stands before the tensor is parsed and checked once; of the next message only its
beginning is compared.  That is sound because protobuf messages may be cut between fields: the
beginning, parsed alone, and the tensor's field make up the message (encoding guide, "last one
wins" and concatenation), which is verified when a beginning is learned.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from cipherscore.proto.inference import grpc_service_pb2 as pb
from serving.oip import scoring
from serving.oip.protocol import Request
from serving.oip.tensors import BytesTable
from serving.oip.wire import field_start, raw_head
from serving.scorer import Scores
from serving.tables import Table

_MAX_PLANS = 256
_MAX_HEAD_BYTES = 512
_RAW_INPUT, _RAW_OUTPUT = 7, 6


class Plan:
    """How to answer requests that differ in their raw tensor of tokens only.

    Args:
        request: One of them, checked.
        names: Outputs to give.
    """

    def __init__(self, request: Request, names: tuple[str, ...]) -> None:
        tensor = request.inputs[0]
        self.model = request.model
        self.reasons = scoring.reasons_for(names)
        self._id = request.id
        self._names = names
        self._rows, self._width = tensor.shape
        self._tag = ""
        self._head = b""
        self._plain = self._rows == 1 and names == scoring.OUTPUTS

    def table(self, content: bytes) -> Table:
        """Return the rows in a raw tensor.

        Raises:
            InvalidRequest: It does not hold what the shape says.
        """
        return BytesTable(content, self._rows, self._width)

    def respond(self, scores: Scores) -> bytes:
        """Return the serialized response."""
        if scores.model != self._tag:
            answer = scoring.answer(scores, self._names, self._id)
            self._head = raw_head(answer.tag, answer.id, answer.outputs)
            if self._plain:
                self._head += field_start(_RAW_OUTPUT, 4)
            self._tag = scores.model
        if self._plain:
            # float32 as it lies in memory is what the protocol wants: little-endian.
            return self._head + scores.probability.tobytes() + _DECISION[bool(scores.bad[0])]
        parts = [self._head]
        for output in scoring.answer(scores, self._names, self._id).outputs:
            content = output.data.raw()
            parts += (field_start(_RAW_OUTPUT, len(content)), content)
        return b"".join(parts)


def _decision(label: bytes) -> bytes:
    content = len(label).to_bytes(4, "little") + label
    return field_start(_RAW_OUTPUT, len(content)) + content


_DECISION = (_decision(b"good"), _decision(b"bad"))


class Plans:
    """Plans by the beginning of their messages; a bounded number of short ones."""

    def __init__(self) -> None:
        self._plans: dict[bytes, tuple[Plan, bytes, int]] = {}
        self._cuts: dict[int, int] = {}

    def find(self, content: bytes) -> tuple[Plan, bytes] | None:
        """Return the plan for a message and the raw tensor at its end, if its like is known."""
        size = len(content)
        cut = self._cuts.get(size)
        if cut is None:
            return None
        known = self._plans.get(content[:cut])
        if known is None:
            return None
        plan, start, length = known
        if length != size or not content.startswith(start, cut):
            return None
        return plan, content[cut + len(start) :]

    def learn(self, content: bytes, message: pb.ModelInferRequest, plan: Plan) -> None:
        """Remember a message's beginning if the rest of it is its raw tensor.

        Messages that carry an id are not worth it: each brings another one.
        """
        tensor = message.raw_input_contents[0]
        start = field_start(_RAW_INPUT, len(tensor))
        cut = len(content) - len(tensor) - len(start)
        if message.id or cut > _MAX_HEAD_BYTES or content[max(cut, 0) :] != start + tensor:
            return
        head = content[:cut]
        try:
            # What can be parsed alone ends where a field ends; so the tensor is not inside another.
            pb.ModelInferRequest.FromString(head)
        except DecodeError:
            return
        if len(self._plans) >= _MAX_PLANS:
            self._plans.clear()
            self._cuts.clear()
        self._plans[head] = (plan, start, len(content))
        self._cuts[len(content)] = cut
