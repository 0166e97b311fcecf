"""Taking messages from a gateway, and answering for them: one request each (HTTP contract, section 3)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import httpx

from app.client.connection import CONNECT_SECONDS, ClientError, Target, parse_object, read_answer, refusal, unreachable
from app.client.stopping import Stop, Stopped
from app.domain.uri import MqUri

#: Seconds more that we wait for the gateway than it waits for a message.
MARGIN_SECONDS = 10.0
#: Seconds for the answer to an ack, a nack or a renewal; another replica may be asked for five of them.
ANSWER_SECONDS = 10.0
#: Bytes of a message that are read; no gateway takes as many.
MAX_MESSAGE_BYTES = 256 << 20

_ENVELOPE = (b'{"messages":[', b"]}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is taken from, for how many seconds at a time. `as_json`: a message is its envelope, on one line."""

    uri: MqUri
    lease_seconds: float
    subscription: str | None = None
    as_json: bool = False

    def parameters(self) -> dict[str, str]:
        """What the query of every request has."""
        return {} if self.subscription is None else {"subscription": self.subscription}


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A message that is ours until its lease ends; `content` is its body, or its envelope and a line feed."""

    lease: str = field(repr=False)
    message_id: str
    redelivered: bool
    content: bytes = field(repr=False)


class Taker:
    """Takes from one source; `client` is used by several threads."""

    def __init__(self, target: Target, client: httpx.Client, source: Source) -> None:
        self.source = source
        self._target = target
        self._client = client

    def receive(self, wait: float, stop: Stop) -> Taken | None:
        """A message, or None where none came within `wait` seconds (at most 20).

        Raises ClientError, and Stopped where the end is wanted before an answer has come: the gateway, which sees the
        connection close, keeps the message. One whose answer was on its way comes again when its lease is over.
        """
        source = self.source
        accept = "application/json" if source.as_json else "application/octet-stream, application/problem+json"
        request = self._client.build_request(
            "POST",
            self._target.resource(source.uri, "receive"),
            params={"wait": f"{wait:.3f}", "lease": f"{source.lease_seconds:g}", **source.parameters()},
            headers={"accept": accept, "accept-encoding": "identity"},
            timeout=httpx.Timeout(wait + MARGIN_SECONDS, connect=CONNECT_SECONDS),
        )
        try:
            response = self._send(request, stop)
            try:
                return _taken(response, as_json=source.as_json)
            finally:
                response.close()
        except httpx.TransportError as error:
            raise unreachable(self._target, error) from None

    def _send(self, request: httpx.Request, stop: Stop) -> httpx.Response:
        response: httpx.Response | None = None
        try:
            with stop.idle():
                response = self._client.send(request, stream=True)
        except Stopped:
            if response is None:
                raise
        return response  # also where the end is wanted: there is a message in it, and nobody else has it

    def answer(self, verb: str, lease: str, **members: object) -> str:
        """Say `ack`, `nack` or `renew` of a lease; returns the result in the gateway's word, raises ClientError."""
        url = self._target.resource(self.source.uri, verb)
        asked = {"leases": [lease], **members}
        try:
            with self._client.stream(
                "POST", url, json=asked, params=self.source.parameters(), timeout=ANSWER_SECONDS
            ) as response:
                if not response.is_success:
                    raise refusal(response)
                return _result(response)
        except httpx.TransportError as error:
            raise unreachable(self._target, error) from None


def _taken(response: httpx.Response, *, as_json: bool) -> Taken | None:
    if response.status_code == 204:
        return None
    if response.status_code != 200:
        raise refusal(response)
    body = read_answer(response, MAX_MESSAGE_BYTES)
    return _from_envelope(body) if as_json else _from_octets(response, body)


def _from_octets(response: httpx.Response, body: bytes) -> Taken:
    said = response.headers
    if "mq-lease" not in said:
        raise _no_answer(response.status_code)
    return Taken(
        lease=said["mq-lease"],
        message_id=said.get("mq-message-id", ""),
        redelivered=said.get("mq-redelivered") == "true",
        content=body,
    )


def _from_envelope(answer: bytes) -> Taken:
    """The gateway's own text, in which numbers have all their digits; only its line ends, which JSON has nowhere but
    between tokens (RFC 8259 section 7), become spaces."""
    first, last = _ENVELOPE
    try:
        messages = json.loads(answer)["messages"]
        (message,) = messages
        taken = (str(message["lease"]), str(message["message_id"]), message["redelivered"] is True)
    except RecursionError:
        raise ClientError("a message is nested too deep for --json; it comes again when its lease is over") from None
    except (ValueError, KeyError, TypeError):
        raise _no_answer(200) from None
    if not (answer.startswith(first) and answer.endswith(last)):
        raise _no_answer(200)
    line = answer[len(first) : -len(last)].translate(bytes.maketrans(b"\r\n", b"  "))
    lease, message_id, redelivered = taken
    return Taken(lease=lease, message_id=message_id, redelivered=redelivered, content=line + b"\n")


def _result(response: httpx.Response) -> str:
    try:
        return str(parse_object(read_answer(response))["results"][0]["result"])
    except (KeyError, IndexError, TypeError):
        raise _no_answer(response.status_code) from None


def _no_answer(status: int) -> ClientError:
    return ClientError(f"{status}: not an answer of mq-gateway")
