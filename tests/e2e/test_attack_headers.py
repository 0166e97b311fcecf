"""Headers of a request that try to become other headers of the frame: at a plain consumer of the broker.

Whatever is sent in a header, the message has exactly the headers that a message without it has, and that one,
literally; or the request is 400.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.brokers.activemq import ActiveMQ
from tests.brokers.broker import Broker
from tests.brokers.fixtures import ConnectStomp, Unique
from tests.brokers.rabbitmq import RabbitMQ
from tests.e2e.guarded import Guarded, guarded
from tests.e2e.http_client import Answer, Http
from tests.e2e.live_gateway import stomp
from tests.stomp_client import StompClient

POLICY: list[dict[str, Any]] = [{"principals": ["mallory"], "allow": ["publish"], "uris": ["mq::Queues::mine.*"]}]
#: Of these only that they are there, or not, is the same in two messages; checked by themselves.
_OWN_EACH = {
    "message-id",
    "mq-message-id",
    "amqp-message-id",
    "timestamp",
    "ack",
    "subscription",
    "content-length",
    "receipt",
}
#: What a message is sent with when it is compared.
BODY = b"attack"
_SECRET = "/queue/secret"
_IDS = ("mq-message-id", "amqp-message-id")


@dataclass(frozen=True)
class Site:
    """A gateway on a real broker."""

    guarded: Guarded
    broker: Broker


@pytest.fixture(scope="module")
def on_rab(rabbitmq: RabbitMQ, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A gateway on RabbitMQ."""
    with guarded(tmp_path_factory.mktemp("rab"), {"mq": stomp(rabbitmq)}, POLICY, names=("mallory",)) as found:
        yield Site(found, rabbitmq)


@pytest.fixture(scope="module")
def on_act(activemq: ActiveMQ, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A gateway on ActiveMQ."""
    with guarded(tmp_path_factory.mktemp("act"), {"mq": stomp(activemq)}, POLICY, names=("mallory",)) as found:
        yield Site(found, activemq)


@pytest.fixture(
    params=[
        pytest.param("on_rab", marks=pytest.mark.rabbitmq, id="rab"),
        pytest.param("on_act", marks=pytest.mark.activemq, id="act"),
    ]
)
def site(request: pytest.FixtureRequest) -> Site:
    """Each of them."""
    found: Site = request.getfixturevalue(request.param)
    return found


class Attack:
    """One Queue, a plain consumer on it, and a connection of HTTP to publish on."""

    def __init__(self, site: Site, client: StompClient, name: str) -> None:
        self._site, self.client, self.name = site, client, name
        self.plain: dict[str, str] = {}
        self._own: Collection[str] = ()

    async def begin(self) -> None:
        """Learn what a message looks like that nobody tampered with."""
        await self.client.subscribe(f"/queue/{self.name}")
        answer = await self.publish()
        assert answer.status == 200, answer
        self.plain = await self.received(answer)
        assert not self.plain.keys() & {"reply-to", "correlation-id", "transaction", "selector", "login"}

    async def publish(self, *lines: tuple[str, str]) -> Answer:
        """With these header lines, byte for byte."""
        site = self._site.guarded
        head = [f"POST /mq/mq/Queues/{self.name} HTTP/1.1", "Host: h", f"Content-Length: {len(BODY)}"]
        head += [f"{name}: {value}" for name, value in (*site.as_("mallory").items(), *lines)]
        async with await Http.connect(site.port) as http:
            return await http.ask_raw("\r\n".join([*head, "", ""]).encode(errors="surrogateescape") + BODY)

    async def received(self, answer: Answer) -> dict[str, str]:
        """The headers of the next message, without those that are its own each time, which are as they must be."""
        headers, body = await self.client.next_message()
        assert body == BODY
        assert headers["mq-message-id"] == answer.json["message_id"]
        assert headers.get("amqp-message-id", answer.json["message_id"]) == answer.json["message_id"]
        assert headers["destination"] == f"/queue/{self.name}"
        assert headers["message-id"] not in ("", answer.json["message_id"])
        assert headers.get("content-length", str(len(BODY))) == str(len(BODY))
        own = {name: value for name, value in headers.items() if name in _OWN_EACH}
        self._own = self._own or own.keys()
        # RabbitMQ shows the gateway's own receipt to everybody.
        assert own.keys() == self._own
        assert _SECRET not in str({name: value for name, value in own.items() if name not in _IDS})
        return {name: value for name, value in headers.items() if name not in _OWN_EACH}

    async def is_harmless(self, *lines: tuple[str, str], expected: dict[str, str]) -> int:
        """Refused, or the message is a plain one with `expected`; the status."""
        answer = await self.publish(*lines)
        if answer.status != 200:
            assert answer.status in (400, 422, 431), answer
            assert answer.code in (
                "invalid_header",
                "malformed_request",
                "not_supported_by_broker",
                "headers_too_large",
            )
            return answer.status
        assert await self.received(answer) == {**self.plain, **expected}
        return 200


@pytest.fixture
async def attack(site: Site, stomp_client: ConnectStomp, unique: Unique) -> Attack:
    await site.guarded.until_up()
    found = Attack(site, await stomp_client(site.broker), f"mine.{unique('headers')}")
    await found.begin()
    return found


@pytest.fixture(autouse=True)
async def _same_connection(site: Site) -> Any:
    await site.guarded.until_up()
    before = site.guarded.gateway.broker_ports(site.broker)
    assert len(before) == 1
    yield
    assert site.guarded.gateway.broker_ports(site.broker) == before


#: What is tried as a value, and whether it is to arrive: None where either will do, then as it was sent.
VALUES: dict[str, tuple[str, bool | None]] = {
    "plain": ("good", True),
    "escaped line feed": ("a\\nreceipt\\cx", True),
    "escaped line feed and header": ("a\\ndestination:/queue/secret", True),
    "escaped carriage return": ("a\\r\\npersistent:true", True),
    "escaped colon": ("a\\cb", True),
    "escaped backslash": ("a\\\\nb", True),
    "undefined escape": ("a\\tb\\0\\x\\u000a", True),
    "backslash at the end": ("a\\", True),
    "backslashes at the end": ("a\\\\\\", True),
    "colon": ("a:b::c:", True),
    "percent": ("a%0d%0adestination:%2Fqueue%2Fsecret%00", True),
    "percent u": ("a%u000areceipt:x", True),
    "line feed": ("a\nreceipt:x", False),
    "line feed and NUL": ("a\n\n\0", False),
    "a frame": ("a\n\n\0SEND\ndestination:/queue/secret\n\nx\0", False),
    "carriage return": ("a\rreceipt:x", False),
    "NUL": ("a\0b", False),
    "bell": ("a\x07b", False),
    "escape": ("a\x1b[0mb", False),
    "delete": ("a\x7fb", False),
    "next line": ("a\u0085receipt:x", False),
    "line separator": ("a\u2028receipt:x", None),
    "paragraph separator": ("a\u2029receipt:x", None),
    "letters that end like a line feed": ("a\u010areceipt:x\u010d\u0a0a\u560a\u560d", None),
    "colon of another script": ("a\uff1ab\ua789", None),
    "no UTF-8": ("a\udce9b", False),
    "overlong line feed": ("a\udcc0\udc8ab", False),
    "right to left": ("a\u202eb", None),
    "json": ('{"a":"\\n"}', True),
    "quotes": ('"\'"`', True),
    "expression": ("${env:HOME}#{1+1}{{1+1}}%(x)s%s%n", True),
    "long": ("v" * 8000, None),
    "colons, twice as long on the wire": (":" * 5000, None),
}

#: Headers with texts, and the header of the frame that has them.
CARRIERS: dict[str, tuple[str, str]] = {
    "content type": ("Content-Type", "content-type"),
    "correlation id": ("Mq-Correlation-Id", "correlation-id"),
    "type": ("Mq-Type", "type"),
    "group": ("Mq-Group", "JMSXGroupID"),
    "own header": ("Mq-Header-x-y", "x-y"),
    "own header, plain name": ("Mq-Header-job", "job"),
    "traceparent": ("traceparent", "traceparent"),
    "tracestate": ("tracestate", "tracestate"),
    "baggage": ("baggage", "baggage"),
    "cloud event's id": ("ce-id", "ce-id"),
    "cloud event's nothing": ("ce-", "ce-"),
    "cloud event's source": ("CE-Source", "ce-source"),
}


def _limited(name: str, value: str) -> bool:
    """Whether this one takes only some of what others take."""
    if name == "own header":
        return True  # reserved: `x-` is the broker's
    if name == "content type":
        return len(value) > 255 or not value.isascii()
    return name in ("correlation id", "type", "group") and len(value.encode(errors="replace")) > 255


@pytest.mark.parametrize("name", CARRIERS)
async def test_values(attack: Attack, site: Site, name: str) -> None:
    header, at_broker = CARRIERS[name]
    unsupported = name == "group" and isinstance(site.broker, RabbitMQ)
    for case, (value, arrives) in VALUES.items():
        # ActiveMQ keeps the group to itself.
        expected = {} if name == "group" else {at_broker: value}
        status = await attack.is_harmless((header, value), expected=expected)
        if unsupported or _limited(name, value):
            assert status != 200, case
        elif arrives is not None:
            assert (status == 200) is arrives, (case, status)


async def test_values_in_json(attack: Attack) -> None:
    """JSON can say what a header line cannot."""
    for case, (value, arrives) in VALUES.items():
        for escaped in (json.dumps({"Job": value}), json.dumps({"Job": value}, ensure_ascii=False)):
            status = await attack.is_harmless(("Mq-Headers", escaped), expected={"Job": value})
            if arrives is not None:
                assert (status == 200) is arrives, (case, status)


_OURS = (
    "destination receipt receipt-id id message-id mq-message-id amqp-message-id persistent reply-to expires "
    "expiration ack subscription content-length content-type transaction selector priority correlation-id type "
    "timestamp redelivered user-id cluster-id login passcode host session server version heart-beat "
    "accept-version client-id browser durable auto-delete exclusive requeue prefetch-count cc CC BCC x-queue-type "
    "x-stream-offset x-death mq-reply-to JMSXGroupID JMSXUserID JMSReplyTo JMSDestination AMQ_SCHEDULED_DELAY "
    "amq_scheduled_cron activemq.prefetchSize transformation _AMQ_DUPL_ID __AMQ_CID destination-type "
).split()
#: Names that are not ours, and not the broker's: they arrive, or are refused.
_ODD = {
    "line feed": "a\nreceipt",
    "line feed at the end": "a\n",
    "carriage return": "a\r",
    "frame": "a:b\n\n\0SEND\ndestination:/queue/secret\n\nx\0",
    "NUL": "a\0",
    "colon": "a:receipt",
    "colon first": ":receipt",
    "escaped colon": "a\\creceipt",
    "escaped line feed": "a\\nreceipt",
    "backslash": "a\\",
    "space": "a b",
    "space before": " receipt",
    "space behind": "receipt ",
    "tab behind": "receipt\t",
    "empty": "",
    "fullwidth": "\uff52eceipt",
    "cyrillic": "r\u0435ceipt",
    "long s": "per\u017fistent",
    "kelvin": "ac\u212a",
    "combining": "receipt\u0301",
    "zero width": "receipt\u200b",
    "next line": "a\u0085receipt",
    "half a pair": "a\ud800",
    "too long": "a" * 129,
    "slash": "a/b",
    "equals": "a=b",
    "comma": "a,receipt",
    "brackets": "a[0]",
    "dollar": "$receipt",
    "percent": "%72eceipt",
}
NAMES = {
    **{f"of ours {name}": name for name in _OURS},
    **{f"of ours in capitals {name}": name.upper() for name in _OURS if name != name.upper()},
    **_ODD,
}


async def test_names_in_json(attack: Attack) -> None:
    for case, name in NAMES.items():
        given = json.dumps({"good": "1", name: "/queue/secret"})
        status = await attack.is_harmless(("Mq-Headers", given), expected={"good": "1", name: "/queue/secret"})
        assert status == 400, case


async def test_names_in_header_lines(attack: Attack) -> None:
    for case, name in NAMES.items():
        if any(letter in name for letter in "\r\n:\ud800"):
            continue  # a line cannot say it, or ends there
        status = await attack.is_harmless((f"Mq-Header-{name}", "/queue/secret"), expected={name: "/queue/secret"})
        assert status == 400, case


TWICE: dict[str, list[tuple[str, str]]] = {
    "a header in two lines": [("Mq-Header-a", "1"), ("Mq-Header-a", "2")],
    "in other letters": [("Mq-Header-a", "1"), ("mq-header-A", "2")],
    "in a line and in JSON": [("Mq-Header-a", "1"), ("Mq-Headers", '{"A":"2"}')],
    "in JSON twice": [("Mq-Headers", '{"a":"1","a":"2"}')],
    "in JSON in other letters": [("Mq-Headers", '{"a":"1","A":"2"}')],
    "in JSON, escaped": [("Mq-Headers", '{"a":"1","\\u0061":"2"}')],
    "JSON twice": [("Mq-Headers", '{"a":"1"}'), ("Mq-Headers", '{"b":"2"}')],
    "priority twice": [("Mq-Priority", "1"), ("Mq-Priority", "9")],
    "persistent twice": [("Mq-Persistent", "true"), ("Mq-Persistent", "false")],
    "content type twice": [("Content-Type", "text/plain"), ("Content-Type", "text/html")],
    "traceparent twice": [("traceparent", "a"), ("traceparent", "b")],
    "cloud event's id twice": [("ce-id", "a"), ("ce-id", "b")],
    "traceparent in JSON too": [("traceparent", "a"), ("Mq-Headers", '{"TraceParent":"b"}')],
    "correlation id in JSON too": [("Mq-Correlation-Id", "a"), ("Mq-Headers", '{"correlation-id":"b"}')],
    "key twice": [("Idempotency-Key", "a"), ("Idempotency-Key", "b")],
    "JSON of a list": [("Mq-Headers", '[["receipt","x"]]')],
    "JSON of numbers": [("Mq-Headers", '{"a":1}')],
    "JSON within JSON": [("Mq-Headers", '{"a":{"receipt":"x"}}')],
    "JSON and more": [("Mq-Headers", '{"a":"1"}{"b":"2"}')],
    "JSON behind a NUL": [("Mq-Headers", '\0{"a":"1"}')],
    "unknown": [("Mq-Destination", "/queue/secret")],
    "unknown receipt": [("Mq-Receipt", "x")],
    "unknown message id": [("Mq-Message-Id", "x")],
    "unknown expires": [("Mq-Expires", "1")],
    "nothing behind the prefix": [("Mq-Header-", "x")],
}


@pytest.mark.parametrize("name", TWICE)
async def test_said_twice_or_unknown(attack: Attack, name: str) -> None:
    assert await attack.is_harmless(*TWICE[name], expected={}) == 400


NUMBERS = ["-1", "1\\n2", "+1", "0x1", "1e3", "\u0661", "1;2", "1,2", "", "true\\ndestination:x", "TRUE\0", "1_0"]
NUMBERS += ["9" * 50, "1\n", "1\u00a0", "\u00b2", "1.0", "NaN", "0b1", "1 2", "'1'"]


@pytest.mark.parametrize("header", ["Mq-Priority", "Mq-Ttl-Ms", "Mq-Delay-Ms", "Mq-Persistent", "Mq-Reply-To"])
async def test_numbers_and_words(attack: Attack, header: str) -> None:
    for value in NUMBERS:
        answer = await attack.publish((header, value))
        assert answer.status == 400, (header, value, answer)


@pytest.mark.parametrize("header", ["destination", "receipt", "persistent", "reply-to", "expires", "message-id", "ack"])
async def test_headers_that_are_not_forwarded(attack: Attack, header: str) -> None:
    """A header of HTTP that is called like one of STOMP is nobody's concern."""
    for name in (header, f"X-{header}", f"Stomp-{header}", f"Mq_Header_{header}"):
        assert await attack.is_harmless((name, "/queue/secret"), expected={}) == 200


async def test_request_ids(attack: Attack) -> None:
    """Taken or replaced; never forwarded, and answered as it was only where it is no more than a name."""
    for case, (value, _) in VALUES.items():
        answer = await attack.publish(("X-Request-Id", value))
        if answer.status == 200:
            assert await attack.received(answer) == attack.plain
        else:
            assert answer.code in ("malformed_request", "headers_too_large"), case
        assert (answer.headers["x-request-id"] == value) is (value == "good"), case


async def test_idempotency_keys(attack: Attack) -> None:
    """The key is the message's id: literally, or the request is refused."""
    for case, (value, _) in VALUES.items():
        answer = await attack.publish(("Idempotency-Key", value))
        if answer.status == 200:
            assert answer.json["message_id"] == value, case
            assert await attack.received(answer) == attack.plain
        else:
            assert answer.code in ("invalid_header", "malformed_request", "headers_too_large"), (case, answer)
            assert not (value.isascii() and value.isprintable() and " " not in value and len(value) < 256), case


async def test_in_a_batch(attack: Attack, site: Site) -> None:
    """What a line of a batch says goes the same way."""
    good = json.dumps({"body_text": "attack", "headers": {"Job": "a\\nb\\c:"}, "correlation_id": "a\\nreceipt\\cx"})
    bad: list[dict[str, Any]] = [{"headers": {name: "x"}} for name in NAMES.values()]
    bad += [{"headers": {"Job": value}} for value, arrives in VALUES.values() if arrives is False]
    bad += [{"correlation_id": value} for value, arrives in VALUES.values() if arrives is False]
    bad += [{"content_type": "a\nreceipt:x"}, {"priority": "1\n"}, {"ttl_ms": -1}, {"reply_to": "x"}]
    bad += [{"destination": "/queue/secret"}, {"message_id": "x\ny"}, {"receipt": "x"}]
    named = json.dumps({"body_text": "attack", "id": "a\nreceipt:/queue/secret"})
    lines = [good, named, *(json.dumps({"body_text": "attack", **line}) for line in bad)]
    body = f"[{','.join(lines)}]".encode()
    headers = {"Content-Type": "application/json"}
    answer = await site.guarded.ask("mallory", "POST", f"/mq/mq/Queues/{attack.name}/batch", body, headers)
    told = answer.json
    assert answer.status == 207, answer
    assert (told["confirmed"], told["outcomes"]["not_sent"]) == (2, len(lines) - 2)
    headers, content = await attack.client.next_message()
    assert (headers["Job"], headers["correlation-id"], content) == ("a\\nb\\c:", "a\\nreceipt\\cx", b"attack")
    headers, content = await attack.client.next_message()
    assert "secret" not in str(headers)
