"""A Hybrid that cannot be made."""

from hybrids import app as app
from hybrids import show

from hybridworker import Hybrid

serve = Hybrid(show, routes={"/a": show}, mounts={"/a": show})
