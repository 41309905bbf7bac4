"""Flask-SocketIO with threads: two namespaces, with rooms."""

from flask import Flask
from flask_socketio import Namespace, SocketIO, emit, join_room

app = Flask(__name__)
socketio = SocketIO(app, async_mode="threading")


class Rooms(Namespace):
    def on_join(self, room):
        join_room(room)
        emit("joined", room)

    def on_say(self, room, text):
        emit("said", f"{self.namespace} {room} {text}", to=room)


socketio.on_namespace(Rooms("/chat"))
socketio.on_namespace(Rooms("/news"))
