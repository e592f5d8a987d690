"""The app: one handler, which sends one message.

    worker run --app examples.messages.app:app --concurrency 2-40

There is no LIMIT 30, no run every five minutes and no "already running". MESSAGES_LIMITS is what
the providers allow, calls a second: `north=30,south=20`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import psycopg

from examples.common.clock import Clock
from examples.common.http import call_async
from examples.messages.api import THROTTLED
from worker import App, Context, Lazy, Throttled

KIND = "conversations"
DAY = 86_400.0

clock = Clock.from_environment()
app = App()


@dataclass
class Conversation:
    """The columns that the handler needs; only these are read."""

    id: int
    provider: str
    contact: str
    question: int


class NotSent(Exception):
    """The provider could not do it now."""


def limits(text: str) -> dict[str, float]:
    """By provider."""
    pairs = (part.split("=") for part in text.split(",") if part)
    return {provider: float(number) for provider, number in pairs}


# In no second do more than rate + burst messages start, in the whole fleet.
for provider, calls in limits(os.environ.get("MESSAGES_LIMITS", "")).items():
    app.limit(kind=KIND, tenant=provider, rate=calls - 1, burst=1)


@app.rows(
    KIND,
    table="example_messages.conversations",
    due="next_question_scheduled_for",
    where="open",
    tenant="provider",
    per_tenant=20,
    every=clock.real(DAY),
    timeout=clock.patience(120),
)
async def send(
    conversation: Conversation, session: Lazy[psycopg.AsyncConnection], context: Context
) -> None:
    body = {"to": conversation.contact, "question": conversation.question}
    answer = await call_async("POST", f"/{conversation.provider}/messages", body)
    error = answer.body.get("error", {})
    if error.get("code") == THROTTLED:
        # For every replica: nothing more to this provider until then. It costs no attempt.
        raise Throttled(str(THROTTLED), retry_after=error["retry_after"])
    if answer.status != 200:
        raise NotSent(f"{conversation.provider} answers {answer.status}")
    # Only now a connection is taken. What is written commits together with the row's completion.
    connection = await session.open()
    await connection.execute(
        "update example_messages.conversations set question = question + 1 where id = %s",
        (conversation.id,),
    )
    context.log.info("sent", question=conversation.question)
