"""
A chat over WebSocket, without a framework, with its page. One worker, one room.

Run it:

    gunicorn -k hybridworker.Worker --chdir examples websocket_chat:app

Try it:

    open http://127.0.0.1:8000/ in two windows of a browser

Needs ``pip install '.[websockets]'``. The room lives in the memory of one
worker: with ``--workers 2`` two rooms would be there, and messages would have to go
through something that both see (Redis, for instance).
"""

PAGE = b"""<!doctype html>
<meta charset="utf-8">
<title>Chat</title>
<ol id="messages"></ol>
<form><input id="text" placeholder="Say something" autocomplete="off" autofocus></form>
<p id="state">connecting</p>
<script>
  const messages = document.querySelector("#messages")
  const state = document.querySelector("#state")
  const text = document.querySelector("#text")
  const socket = new WebSocket(location.href.replace(/^http/, "ws") + "chat")
  socket.onopen = () => { state.textContent = "connected" }
  socket.onclose = event => { state.textContent = "closed: " + event.code + " " + event.reason }
  socket.onmessage = event => {
    messages.appendChild(document.createElement("li")).textContent = event.data
  }
  document.querySelector("form").onsubmit = event => {
    event.preventDefault()
    socket.send(text.value)
    text.value = ""
  }
</script>
"""

#: The ``send`` of everybody in the room.
room = set()


async def app(scope, receive, send):
    """The page, and the socket that it opens."""
    if scope["type"] == "http" and scope["path"] == "/":
        await respond(send, 200, b"text/html; charset=utf-8", PAGE)
    elif scope["type"] == "http":
        await respond(send, 404, b"text/plain", b"Not found\n")
    elif scope["type"] == "websocket":
        await chat(scope, receive, send)
    else:
        raise NotImplementedError(f"{scope['type']} is not served here")


async def chat(scope, receive, send):
    """One person in the room, from connect to disconnect."""
    assert (await receive())["type"] == "websocket.connect"
    if scope["path"] != "/chat":
        await send({"type": "websocket.close"})  # before accept: the handshake is answered with 403
        return
    await send({"type": "websocket.accept"})
    room.add(send)
    try:
        while (message := await receive())["type"] == "websocket.receive":
            await broadcast(message.get("text") or "")
    finally:
        room.discard(send)


async def broadcast(text):
    """Send ``text`` to everybody."""
    for send in list(room):
        try:
            await send({"type": "websocket.send", "text": text})
        except OSError:  # this one has just left
            room.discard(send)


async def respond(send, status, content_type, body):
    """Send a whole response."""
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
