"""Where a party's seconds go: along the chain of computing and messages that its result had to wait for.

Two parties compute at once and wait for one another, so what one of them spends in its link is not what the network
took: the other party may still have been computing, or a message may have travelled while this one computed. A message
therefore carries the chain of its sender. Whoever had to wait for the message continues that chain, whoever came late
continues its own: the critical path of the run, in which every second belongs to the network or to one party.
"""

import time

ChainStamp = tuple[float, ...]
"""When a message was sent, and its sender's chain by then: network, delay, own computing, the other party's."""


class CriticalPath:
    """One party's chain, in seconds: in the `network`, computing itself (`mine`), and the other party's (`theirs`).

    `delay` is by how much messages came later than an imitated network would have delivered them, because handling
    them takes time, or because something else kept the machine busy.
    Times are those of the system's monotonic clock, which all processes of one machine share. Parties on two machines
    have no `common` clock; all their waiting counts as network.
    """

    def __init__(self, common: bool) -> None:
        self.common_clock = common
        self.network = self.delay = self.own_compute = self.peer_compute = 0.0
        self.since = time.monotonic()

    def on_send(self) -> ChainStamp:
        """This party has computed what it sends, or what it waits for."""
        now = time.monotonic()
        self.own_compute += now - self.since
        self.since = now
        return now, self.network, self.delay, self.own_compute, self.peer_compute

    def on_receive(self, stamp: ChainStamp, due: float | None) -> None:
        """A message has been received; by an imitated network it was `due` at a certain time."""
        now, sent_at = time.monotonic(), stamp[0]
        start = self.since
        if self.common_clock and (sent_at if due is None else due) > self.since:
            _, self.network, self.delay, self.peer_compute, self.own_compute = stamp
            start = sent_at
        delivered = now if due is None else max(start, due)
        self.network += delivered - start
        self.delay += now - delivered
        self.since = now
