"""Model CPU offload, call by call: which components are on the device while each is called."""

from memplan.run import OnCall, Run


class Chain:
    """The eviction chain that `enable_model_cpu_offload` installs.

    A called component sends back the one before it in the chain, and only that one, before it comes itself;
    components outside the chain stay once they were called, and some never leave. Sources: `CpuOffload` in
    accelerate/hooks.py, `enable_model_cpu_offload` in diffusers/pipelines/pipeline_utils.py.
    """

    def __init__(self, run: Run) -> None:
        """Before the call everything is in host memory."""
        model = run.facts.model
        managed = [c.name for c in model.components if isinstance(run.placement(c.name), OnCall)]
        order = [name for name in dict.fromkeys(model.offload_order) if name in managed]
        self.managed = frozenset(managed)
        self.before = dict(zip(order[1:], order, strict=False))
        self.here: set[str] = set()
        self.arrivals: list[str] = []
        self.departures: list[str] = []

    def call(self, name: str) -> tuple[list[str], list[str]]:
        """`name` is called: its predecessor goes, then it comes. The value is who came and who left."""
        came, left = len(self.arrivals), len(self.departures)
        self._call(name)
        return self.arrivals[came:], self.departures[left:]

    def _call(self, name: str) -> None:
        if name not in self.managed:
            return
        previous = self.before.get(name)
        if previous is not None and previous in self.here:
            self.here.remove(previous)
            self.departures.append(previous)
        if name not in self.here:
            self.here.add(name)
            self.arrivals.append(name)

    def finish(self) -> list[str]:
        """The pipeline call is over: what came goes back. The value is who leaves."""
        gone, self.here = sorted(self.here), set()
        self.departures.extend(gone)
        return gone
