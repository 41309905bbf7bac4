"""A worker class made from ours, whose every overridden method says that it was called."""

import gate

from hybridworker import Worker


class Subclass(Worker):
    def init_process(self):
        gate.say("subclass init_process")
        super().init_process()

    def load_wsgi(self):
        super().load_wsgi()
        gate.say(f"subclass load_wsgi {self.wsgi.__name__}")

    def handle_exit(self, sig, frame):
        gate.say(f"subclass handle_exit {sig}")
        super().handle_exit(sig, frame)

    def handle_quit(self, sig, frame):
        gate.say(f"subclass handle_quit {sig}")
        super().handle_quit(sig, frame)

    def handle_usr1(self, sig, frame):
        gate.say(f"subclass handle_usr1 {sig}")
        super().handle_usr1(sig, frame)
