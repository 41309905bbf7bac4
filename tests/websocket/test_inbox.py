"""Inbox: what the application of one WebSocket receives."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from hybridworker.asgi import Message
from hybridworker.states import ReaderState
from hybridworker.websocket.inbox import Inbox


class Messages:
    """Stands for a reader."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)
        self.state = ReaderState.READING

    @property
    def idle(self) -> bool:
        return not self.texts

    def take(self) -> Message:
        return {"type": "websocket.receive", "text": self.texts.pop(0)}


def run(check: Callable[[Inbox, Messages], Awaitable[None]], *texts: str) -> None:
    """Await ``check`` with an inbox whose connect event was taken."""

    async def main() -> None:
        messages = Messages(*texts)
        inbox = Inbox(asyncio.get_running_loop(), messages)
        assert await inbox.receive() == {"type": "websocket.connect"}
        await check(inbox, messages)

    asyncio.run(main())


def test_messages_come_before_the_end_and_the_first_end_stays() -> None:
    """Each call behind it has the same, in an object of its own."""

    async def check(inbox: Inbox, messages: Messages) -> None:
        inbox.tell(1001, "away")
        inbox.tell(1006)
        assert (await inbox.receive())["text"] == "one"
        assert not inbox.told
        end = await inbox.receive()
        assert end == {"type": "websocket.disconnect", "code": 1001, "reason": "away"}
        end.clear()
        assert (await inbox.receive())["code"] == 1001
        assert inbox.told

    run(check, "one")


def test_everybody_who_waits_is_woken() -> None:
    """The first takes the message; the others wait on, until there is an end."""

    async def check(inbox: Inbox, messages: Messages) -> None:
        tasks = [asyncio.ensure_future(inbox.receive()) for _ in range(3)]
        await asyncio.sleep(0)
        messages.texts.append("one")
        inbox.waiters.wake()
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        assert [task.done() for task in tasks] == [True, False, False]
        inbox.tell(1000)
        assert [(await task)["type"] for task in tasks] == ["websocket.receive", *["websocket.disconnect"] * 2]

    run(check)


def test_the_end_waits_for_what_is_still_to_be_read() -> None:
    """Unless the reader reads no more."""

    async def check(inbox: Inbox, messages: Messages) -> None:
        inbox.behind = True
        inbox.tell(1006)
        task = asyncio.ensure_future(inbox.receive())
        await asyncio.sleep(0)
        assert not task.done()
        messages.state = ReaderState.CLOSED
        inbox.waiters.wake()
        assert (await task)["code"] == 1006

    run(check)
