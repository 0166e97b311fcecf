"""What an administrator does to a RabbitMQ, whatever it runs in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class RabbitControls(ABC):
    """Everything by Erlang expressions."""

    @abstractmethod
    async def eval(self, erlang: str) -> Any:
        """Evaluate an Erlang expression in the node and return it through JSON.

        Raises RuntimeError with the node's answer where it fails.
        """

    async def stomp_connections(self) -> int:
        """STOMP connections as the broker counts them."""
        return int(await self.eval("length(rabbit_stomp:list())"))

    async def queues(self, vhost: str = "/") -> dict[str, int]:
        """Messages, ready and unacked, of every queue of a vhost."""
        pairs = await self.eval(
            "[[element(4, amqqueue:get_name(Q)), proplists:get_value(messages, rabbit_amqqueue:info(Q, [messages]))]"
            f" || Q <- rabbit_amqqueue:list({_binary(vhost)})]"
        )
        return {name: int(messages) for name, messages in pairs}

    async def close_connections(self) -> int:
        """Close every STOMP connection as an administrator would; returns how many there were."""
        return int(
            await self.eval(
                "L = rabbit_stomp:list(), "
                '[rabbit_stomp_reader:close_connection(P, <<"closed by the test">>) || P <- L], '
                "length(L)"
            )
        )

    async def memory_alarm(self, on: bool) -> None:
        """Raise or clear the memory alarm: with it, connections that publish are not read any more."""
        await self.eval(f"vm_memory_monitor:set_vm_memory_high_watermark({'0.00001' if on else '0.4'}), ok")


def in_json(erlang: str) -> str:
    """An Erlang expression whose value is the JSON of another one's, as iodata."""
    return f"rabbit_json:encode(begin {erlang} end)"


def _binary(text: str) -> str:
    """An Erlang binary of the UTF-8 bytes."""
    return f"<<{','.join(map(str, text.encode()))}>>"
