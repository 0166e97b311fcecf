"""Header injection: what a client puts into a header arrives as that header's value, or nothing is sent.

Each header that is forwarded is tried with each trick, and a plain STOMP client on the broker looks at what came.
"""

from __future__ import annotations

import json

from tests.brokers.fixtures import ConnectStomp, Unique
from tests.e2e.conftest import Target
from tests.e2e.crowd import Raw
from tests.e2e.http_client import post

#: What no client may set or change, whatever it writes into which header.
OURS = {"destination", "subscription", "message-id", "receipt", "ack", "content-length", "mq-message-id", "heart-beat"}

FORWARDED = (
    *("Mq-Header-note", "Mq-Correlation-Id", "Mq-Type", "Content-Type", "Idempotency-Key"),
    *("traceparent", "tracestate", "baggage", "ce-id", "ce-source", "ce-type", "X-Request-Id"),
)

#: As they stand in an HTTP header.
VALUES = {
    "an escaped line feed": rb"x\nreceipt:stolen",
    "an escaped carriage return": rb"x\r\ndestination:/queue/stolen",
    "an escaped colon": rb"x\creceipt\cstolen",
    "an escaped backslash": rb"x\\nreceipt:stolen",
    "a broken escape": rb"x\t\q",
    "a colon": b"receipt:stolen",
    "a whole frame in escapes": rb"x\n\nSEND\ndestination:/queue/stolen\n\nbody\0",
    "percent encoding": b"x%0d%0areceipt:stolen%00",
    "a tab": b"x\treceipt:stolen",
    "spaces around": b"   x   ",
    "Latin-1": b"x\xe9",
    "too many bytes for a slash": b"x\xc0\xaf",
    "a line separator": "x\u2028receipt:stolen".encode(),
    "next line": "x\u0085receipt:stolen".encode(),
    "right to left": "x\u202ereceipt".encode(),
    "an escape of terminals": b"x\x1b[31m",
    "DEL": b"x\x7f",
    "a vertical tab": b"x\x0b",
    "a form feed": b"x\x0creceipt:stolen",
    "JSON": b'{"receipt":"stolen"}',
    "a comma": b"x, receipt=stolen",
    "quotes": b"x\"'`; receipt",
    "an option of ActiveMQ": b"x?consumer.exclusive=true",
    "a selector": b"x' OR '1'='1",
}
#: As the one JSON object of `Mq-Headers`: names and values.
OBJECTS: dict[str, dict[str, str]] = {
    "a line feed in a value": {"note": "x\nreceipt:stolen"},
    "a carriage return in a value": {"note": "x\rreceipt:stolen"},
    "an end of text in a value": {"note": "x\0SEND"},
    "a line feed in a name": {"x\nreceipt": "stolen"},
    "a colon in a name": {"x:receipt": "stolen"},
    "a backslash in a name": {"x\\nreceipt": "stolen"},
    "a name of ours": {"mq-message-id": "stolen"},
    "a name of STOMP's in capitals": {"DESTINATION": "/queue/stolen"},
    "a name of the broker's": {"AMQ_SCHEDULED_DELAY": "1000"},
    "a name with a space behind": {"receipt ": "stolen"},
    "a name that looks like one of STOMP's": {"rec\u0435ipt": "stolen"},
    "an escape in a value": {"note": "x\\nreceipt:stolen\\c\\\\"},
}


async def test_every_header_with_every_trick(target: Target, unique: Unique, stomp_client: ConnectStomp) -> None:
    """A 200 is a message with the value as it stands there; anything else is a 400, and no message."""
    await target.gateway.until_up("mq")
    queue, stolen = unique("headers"), unique("stolen")
    spy = await stomp_client(target.broker)
    await spy.subscribe(f"/queue/{queue}")
    await spy.subscribe("/queue/stolen")
    before = target.gateway.broker_ports(target.broker)
    path, taken = f"/mq/mq/Queues/{queue}", 0
    for name in FORWARDED:
        for case, value in VALUES.items():
            mark = f"{name}/{case}"
            status = await sent(target.port, path, name, value, mark)
            assert status in (200, 400), (mark, status)
            if status == 200:
                taken += 1
                headers, body = await spy.next_message()
                assert body.decode() == mark
                await as_it_was(headers, name, value, mark)
    assert taken > 40, "most of these are values as any other"
    for case, given in OBJECTS.items():
        answer = await post(target.port, path, case, {"Mq-Headers": json.dumps(given)})
        if case == "an escape in a value":
            assert answer.status == 200, answer
            assert (await spy.next_message())[0]["note"] == given["note"]
        else:
            assert (answer.status, answer.code) == (400, "invalid_header"), (case, answer)
    assert (await post(target.port, path, "last")).status == 200
    assert (await spy.next_message())[1] == b"last", f"nothing else came, and nothing to {stolen}"
    assert target.gateway.broker_ports(target.broker) == before, "on the same connection"


async def sent(port: int, path: str, name: str, value: bytes, mark: str) -> int:
    """The status of a publish with these very bytes in a header."""
    raw = await Raw.connect(port)
    try:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {len(mark)}\r\n{name}: "
        )
        await raw.send(head.encode() + value + b"\r\n\r\n" + mark.encode())
        return int((await raw.rest()).split(b" ", 2)[1])
    finally:
        raw.close()


async def as_it_was(headers: dict[str, str], name: str, value: bytes, mark: str) -> None:
    """The value arrives under its own name, and nothing else does that the client wrote."""
    text = value.decode(errors="replace").strip(" \t")
    known = {"Mq-Header-note": "note", "Mq-Correlation-Id": "correlation-id", "Content-Type": "content-type"}
    under = known.get(name, name.lower())
    if under in headers:
        assert headers[under] == text, (mark, headers)
    # RabbitMQ hands on the receipt that the gateway asked for.
    assert not any("stolen" in headers.get(each, "") for each in OURS - {"mq-message-id"}), (mark, headers)
    if name != "Idempotency-Key":
        assert "stolen" not in headers.get("mq-message-id", ""), (mark, headers)
