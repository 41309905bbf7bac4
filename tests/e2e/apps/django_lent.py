"""
A Django project with a database, for what its synchronous code does under ASGI.

Each path answers with what it has seen, in words that are the same whether threads are lent or
not, but for ``/threads``. The database is a file in the folder ``$GATES``.
"""

import asyncio
import contextvars
import http.client
import os
import threading
from pathlib import Path

import django
import gate
from asgiref.local import Local
from asgiref.sync import async_to_sync, sync_to_async
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.db import DatabaseError, connection, models, transaction
from django.db.backends.signals import connection_created
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

#: How many rows there are, and how many are fetched at once.
ROWS, CHUNK = 60, 20

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(Path(os.environ["GATES"], "database")),
            "CONN_MAX_AGE": int(os.environ.get("CONN_MAX_AGE", "600")),
            "OPTIONS": {"transaction_mode": "IMMEDIATE"} if django.VERSION >= (5, 1) else {},
        }
    },
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    LOGGING_CONFIG=None,
    MIDDLEWARE=[f"{__name__}.SyncMiddleware"] if "SYNC_MIDDLEWARE" in os.environ else [],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of the tests",
)
django.setup(set_prefix=False)


class Row(models.Model):
    """What the database holds."""

    name = models.CharField(max_length=20)

    class Meta:
        app_label = "tests"


class SyncMiddleware:
    """A middleware that knows nothing of asyncio, and asks the database."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        request.rows = Row.objects.count()
        return self.get_response(request)


made = []
connection_created.connect(lambda connection, **_: made.append(threading.get_ident()), weak=False)
with connection.schema_editor() as editor:
    editor.create_model(Row)
Row.objects.bulk_create([Row(name=f"row {number}") for number in range(ROWS)])
connection.close()
made.clear()

local, variable = Local(), contextvars.ContextVar("variable", default="unset")
results = {}


def ident():
    return threading.get_ident()


def threads(request):
    lent = sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("lent-"))
    return JsonResponse({"name": threading.current_thread().name, "lent": lent, "connections": len(made)})


def query(request):
    return HttpResponse(str(Row.objects.count()))


def query_blocks(request, name):
    rows = Row.objects.count()
    gate.block(name)
    return HttpResponse(str(rows))


async def hold(request, name):
    """An async view that has used its thread and then waits."""
    await Row.objects.acount()
    await gate.wait(name)
    return HttpResponse("held")


def ask_another(request):
    """A sync view that waits for another request of the same worker."""
    other = http.client.HTTPConnection(request.META["SERVER_NAME"], int(request.META["SERVER_PORT"]), timeout=30)
    other.request("GET", "/query", headers={"Connection": "close"})
    return HttpResponse(b"the other said " + other.getresponse().read())


async def same_thread(request):
    """All sync code of a request runs in one thread, however deep it is, and not in the loop's."""
    mine = await sync_to_async(ident)()

    async def from_inside():
        return await sync_to_async(ident)()

    def inside():
        return [ident(), async_to_sync(from_inside)(), async_to_sync(asyncio.to_thread)(ident) != ident()]

    both = await asyncio.gather(sync_to_async(ident)(), sync_to_async(ident)())
    return JsonResponse(
        [{*both, mine} == {mine}, await sync_to_async(inside)() == [mine, mine, True], mine != ident()], safe=False
    )


async def variables(request):
    """Context variables and Locals go into the thread and come back, and the next request sees nothing of them."""

    def look():
        seen = [variable.get(), getattr(local, "value", "unset")]
        variable.set("changed")
        local.value = "changed"
        return seen

    before = await sync_to_async(look)()
    after = [variable.get(), local.value]
    variable.set("own")
    local.value = "own"
    return JsonResponse([before, after, await sync_to_async(look)()], safe=False)


async def events(request, name):
    """A stream that needs its thread no more."""

    async def parts():
        yield "first\n"
        await gate.wait(name)
        yield "last\n"

    return StreamingHttpResponse(parts())


async def export(request, name):
    """A stream that reads from the database while it is sent; each chunk is one fetch."""

    async def parts():
        number = 0
        async for row in Row.objects.order_by("pk").aiterator(chunk_size=CHUNK):
            yield f"{row.name}\n"
            number += 1
            if number == 1:
                await gate.wait(name)

    return StreamingHttpResponse(parts())


async def late(request, name):
    """A task that outlives its request, with sync code whose thread it needs twice."""

    def begin():
        transaction.set_autocommit(False)
        Row.objects.create(name=name)
        return ident()

    def end():
        transaction.rollback()
        transaction.set_autocommit(True)
        connection.close()
        return ident()

    async def task():
        await gate.wait(name)
        results[name] = await sync_to_async(begin)() == await sync_to_async(end)()

    results[f"task {name}"] = asyncio.create_task(task())
    return HttpResponse("begun")


async def result(request, name):
    await results[f"task {name}"]
    return HttpResponse(str(results[name]))


async def abandon(request):
    """A transaction that is begun and never ended."""

    def begin():
        transaction.atomic().__enter__()
        Row.objects.create(name="abandoned")
        return Row.objects.count()

    return HttpResponse(str(await sync_to_async(begin)()))


def rolled_back(request):
    try:
        with transaction.atomic():
            Row.objects.create(name="lost")
            raise DatabaseError("on purpose")
    except DatabaseError:
        return HttpResponse(f"{Row.objects.count()} {connection.in_atomic_block}")


def raises(request):
    raise LookupError("on purpose")


async def cancelled(request, name):
    """The client leaves while sync code runs."""
    try:
        await sync_to_async(gate.block)(name)
    except asyncio.CancelledError:
        gate.say(f"{name} was cancelled")
        raise
    return HttpResponse("nobody reads this")


urlpatterns = [
    path("threads", threads),
    path("query", query),
    path("query-blocks/<name>", query_blocks),
    path("hold/<name>", hold),
    path("ask-another", ask_another),
    path("same-thread", same_thread),
    path("variables", variables),
    path("events/<name>", events),
    path("export/<name>", export),
    path("late/<name>", late),
    path("result/<name>", result),
    path("abandon", abandon),
    path("rolled-back", rolled_back),
    path("raises", raises),
    path("cancelled/<name>", cancelled),
]

asgi = get_asgi_application()
