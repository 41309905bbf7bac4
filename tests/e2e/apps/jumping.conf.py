"""A configuration whose worker lives on a clock that jumps; see ``jumping.py``."""

import jumping

post_worker_init = jumping.install
