"""What is known of a session while it is watched, from the events of its stream. Pure."""

from __future__ import annotations

from collections import deque
from typing import Any

from cotrain.display import LOSS_HISTORY, SPARK_WIDTH, format_seconds, sparkline
from cotrain.figures import remaining_s
from cotrain.sse import ServerEvent
from cotrain.status import FINAL_STATES
from node.sessions.text import figure, log_line, printable, waiting_for


class Watched:
    """A session as the newest event leaves it."""

    def __init__(self) -> None:
        self.session: dict[str, Any] = {}
        self.progress: dict[str, Any] = {}
        self._number = 0
        self._newest = 0
        self._losses: deque[float] = deque(maxlen=LOSS_HISTORY)
        self._samples: deque[tuple[float, int]] = deque(maxlen=LOSS_HISTORY)

    def apply(self, event: ServerEvent) -> str:
        """Take an event; returns a line that people should see, empty if there is none."""
        data = event.message["data"]
        self._number = self._number if event.number is None else event.number
        if event.kind == "snapshot":
            self._newest = event.message["seq"]
            self.session = dict(data["session"])
            self._take_progress(data["progress"], event.message["time"])
        elif event.kind == "session.state":
            changed = {name: data[name] for name in ("status", "errorMsg", "modelPath", "possibleActions")}
            self.session |= {**changed, "waitingFor": None}
            return printable(f"the session is {data['status']}" + (f": {data['errorMsg']}" if data["errorMsg"] else ""))
        elif event.kind == "training.progress":
            self._take_progress(data, event.message["time"])
        elif event.kind == "training.log":
            return log_line(data)
        elif event.kind == "participant.state":
            return printable(f"{data['name'] or data['participant']} is {data['state']}")
        return ""

    @property
    def ended(self) -> bool:
        """Whether the session has ended and all has come that the newest snapshot had taken in."""
        return self.session["status"] in FINAL_STATES and self._number >= self._newest

    def line(self) -> str:
        """The session in one line."""
        metrics = self.progress["metrics"]
        parts = [self.session["status"], f"round {metrics['round']}", f"{self.progress['progress']:.1f} %"]
        if self.progress["loss"] is not None:
            parts.append(f"loss {self.progress['loss']:.4f}")
        if metrics["validationLoss"] is not None:
            parts.append(f"validation {metrics['validationLoss']:.4f}")
        if metrics["tokensPerSecond"] is not None:
            parts.append(f"{metrics['tokensPerSecond']:.0f} tokens/s")
        parts.append(f"{self.progress['participants']} nodes")
        if waits := waiting_for(self.session):
            parts.append(f"waits for {waits}")
        return printable("  ".join(parts))

    def rows(self) -> list[tuple[str, str]]:
        """Names and values of the live view, from top to bottom."""
        metrics = self.progress["metrics"]
        left_s = remaining_s(list(self._samples), metrics["samplesWanted"])
        eta = "" if left_s is None else f", about {format_seconds(left_s)} left"
        curve = sparkline(list(self._losses)[-SPARK_WIDTH:])
        speed = "-" if metrics["tokensPerSecond"] is None else f"{metrics['tokensPerSecond']:.0f} tokens/s"
        rows = [
            ("session", f"{self.session['id']}  {self.session['name']}"),
            ("status", self.session["status"]),
            ("progress", f"{self.progress['progress']:.1f} %, round {metrics['round']}{eta}"),
            ("loss", f"{figure(self.progress['loss'])}  {curve}".rstrip()),
            ("validation", figure(metrics["validationLoss"])),
            ("speed", speed),
            ("nodes", str(self.progress["participants"])),
            ("waits for", waiting_for(self.session)),
            ("error", self.session["errorMsg"]),
        ]
        return [(name, printable(value)) for name, value in rows if value]

    def _take_progress(self, progress: dict[str, Any], time: float) -> None:
        self.progress = progress
        if progress["loss"] is not None:
            self._losses.append(progress["loss"])
        samples = progress["metrics"]["samplesCommitted"]
        if not self._samples or samples != self._samples[-1][1]:
            self._samples.append((time, samples))
