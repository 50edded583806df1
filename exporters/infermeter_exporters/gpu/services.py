"""The name of the service that a process belongs to, by all that is known of it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from infermeter_exporters.gpu.attribution_rules import Rule, named
from infermeter_exporters.gpu.cgroups import LONGEST
from infermeter_exporters.gpu.containers import Container
from infermeter_exporters.gpu.kubernetes import workload
from infermeter_exporters.gpu.processes import Process, service_of

# Where a user writes the service onto a container or a pod.
LABEL = "infermeter.service"
_UNNAMED = "unknown_service"  # OpenTelemetry's and our word for a service that was given no name


class Owner(NamedTuple):
    """Whose a process is; what does not apply is empty.

    Attributes:
        service: never empty, never beginning with an underscore.
        container_name: of its container, or of its machine.
        namespace: of its Kubernetes pod.
        pod: the name of that.
        process_name: the program, script or module, never empty; no arguments.
    """

    service: str
    container_name: str
    namespace: str
    pod: str
    process_name: str


def owner(process: Process, container: Container, rules: Sequence[Rule]) -> Owner:
    """Whose a process is.

    Of names for the service the first that is there counts:

    1. what the rules of the user say;
    2. INFERMETER_SERVICE, OTEL_SERVICE_NAME, or service.name in OTEL_RESOURCE_ATTRIBUTES, of its environment;
    3. the label infermeter.service of its container or pod;
    4. Docker: the service of Compose or of a swarm; Podman: the unit of a quadlet;
       Kubernetes: the pod's label app.kubernetes.io/name where the runtime tells it, else what made the pod;
    5. the name of its container;
    6. in a Slurm job, the name that was given to the job, else `slurm`: numbers of jobs would be new series without
       end, a rule can use them all the same;
    7. its systemd service without the ending, all instances of a template together;
    8. the name of its LXC container or virtual machine;
    9. the name of the process.

    Underscores at the beginning are taken away, since such names are ours; what exceeds 256 characters is cut.
    """
    facts = _facts(process, container)
    names = (
        named(rules, facts),
        _given(process.environment or {}),
        container.labels.get(LABEL),
        facts["compose_service"],
        container.labels.get("com.docker.swarm.service.name"),
        _unit(container.labels.get("PODMAN_SYSTEMD_UNIT", "")),
        container.labels.get("app.kubernetes.io/name"),
        facts["workload"],
        container.name,
        ((process.environment or {}).get("SLURM_JOB_NAME") or "slurm") if process.place.slurm_job else "",
        _unit(process.place.unit),
        process.place.machine,
        process.name,
    )
    service = next((allowed for name in names if (allowed := _allowed(name))), "unknown_process")
    return Owner(service, facts["container"], container.namespace, container.pod, process.name[:LONGEST])


def _facts(process: Process, container: Container) -> dict[str, str]:
    """Values of `attribution_rules.SUBJECTS`."""
    labels = container.labels
    return {
        "container": (container.name or process.place.machine)[:LONGEST],
        "image": container.image,
        # Podman's own compose writes labels of its own beside these.
        "compose_project": labels.get("com.docker.compose.project", labels.get("io.podman.compose.project", "")),
        "compose_service": labels.get("com.docker.compose.service", ""),
        "namespace": container.namespace,
        "pod": container.pod,
        "workload": workload(container.pod) if container.pod else "",
        "unit": labels.get("PODMAN_SYSTEMD_UNIT", process.place.unit),
        "slurm_job": process.place.slurm_job,
        "machine": process.place.machine,
        "process": process.name,
        "user": process.user,
    }


def _given(environment: Mapping[str, str]) -> str:
    name = service_of(environment)
    return "" if name.startswith(_UNNAMED) else name


def _unit(unit: str) -> str:
    """The service of a unit: `face` of `face.service` and of `face@1.service`."""
    return unit.removesuffix(".service").split("@")[0]


def _allowed(name: str | None) -> str:
    return (name or "").strip().lstrip("_ ")[:LONGEST]
