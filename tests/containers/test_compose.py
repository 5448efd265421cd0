"""The system in containers, for real: a fresh clone, its own project and ports, the main job, kills, scaling, restarts.

`make containers` runs it; it needs a Docker engine and takes some ten minutes. Where builds need the host's network,
set CONTAINER_BUILD_NETWORK=host.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from labelmill_ops.ports import free_port

ROOT = Path(__file__).parents[2]
ROWS = int(os.environ.get("CONTAINER_ROWS", "20000"))
pytestmark = pytest.mark.timeout(1800)


def engine_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    return all(
        subprocess.run(["docker", *words], capture_output=True, check=False).returncode == 0
        for words in (["info"], ["compose", "version"])
    )


if not engine_answers():
    pytest.skip("no Docker engine with Compose answers", allow_module_level=True)


class Project:
    """A clone with a Compose project of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.ports = {variable: free_port() for variable in ("REDIS_PORT", "POSTGRES_PORT", "FLOWER_PORT")}
        subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
        settings = self.ports | {"COMPOSE_PROJECT_NAME": name, "REDIS_PASSWORD": "r-1", "POSTGRES_PASSWORD": "p-1"}
        (folder / ".env").write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        self._files = ["-f", "docker-compose.yml"]
        if network := os.environ.get("CONTAINER_BUILD_NETWORK"):
            services = yaml.safe_load((folder / "docker-compose.yml").read_text())["services"]
            override = {
                name: {"build": {"network": network}} for name, service in services.items() if "build" in service
            }
            (folder / "network.yml").write_text(yaml.safe_dump({"services": override}))
            self._files += ["-f", "network.yml"]

    def compose(self, *words: str, timeout_s: float = 600) -> str:
        done = subprocess.run(
            ["docker", "compose", *self._files, "--profile", "emulator", *words],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done.stdout

    def cli(self, *words: str) -> Any:
        """The command line from the host. Returns the document that it prints."""
        environment = os.environ | {
            "LABELMILL_BROKER_URL": f"redis://:r-1@127.0.0.1:{self.ports['REDIS_PORT']}/0",
            "LABELMILL_DATABASE_URL": f"postgresql://labelmill:p-1@127.0.0.1:{self.ports['POSTGRES_PORT']}/labelmill",
            "LABELMILL_DATA_DIR": "./data",
        }
        done = subprocess.run(
            [shutil.which("labelmill") or "labelmill", *words],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, f"{words}: exit {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return json.loads(done.stdout) if done.stdout.strip() else None

    def billed(self) -> dict[str, Any]:
        """What the emulator counted."""
        script = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8089/_control/stats').read().decode())"
        counted: dict[str, Any] = json.loads(self.compose("exec", "-T", "emulator", "python", "-c", script))
        return counted

    def containers(self, service: str) -> list[dict[str, Any]]:
        lines = self.compose("ps", "-a", "--format", "json", service).splitlines()
        return [json.loads(line) for line in lines]

    def wait_until_healthy(self, service: str) -> None:
        wait_for(lambda: all(one["Health"] == "healthy" for one in self.containers(service)), f"{service} is healthy")


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 180) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.5)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    project = Project(tmp_path_factory.mktemp("clone") / "labelmill", f"labelmill-test-{os.getpid()}")
    project.compose("build", timeout_s=1200)
    try:
        project.compose("up", "-d", "--wait")
        yield project
    finally:
        project.compose("down", "-v", "--timeout", "30")
        subprocess.run(["docker", "image", "rm", "-f", f"{project.name}-labelmill"], capture_output=True, check=False)


SAMPLE = "ops/labelmill_ops/sample/utterances.jsonl"


@pytest.fixture(scope="module")
def trained(project: Project) -> str:
    """A model, made by the README's commands from the host."""
    assert project.cli("prepare", "intents", SAMPLE, "--target", "intent=intent", "--wait")["state"] == "ready"
    assert project.cli("train", "intents", "--dataset", "intents", "--yes", "--wait")["state"] == "succeeded"
    return "intents"


def test_the_image_is_small_and_its_user_is_not_root(project: Project) -> None:
    inspected = json.loads(
        subprocess.run(
            ["docker", "image", "inspect", f"{project.name}-labelmill"], capture_output=True, check=True
        ).stdout
    )[0]
    base = json.loads(
        subprocess.run(["docker", "image", "inspect", "python:3.11-slim"], capture_output=True, check=True).stdout
    )[0]
    assert inspected["Config"]["User"] not in {"", "root", "0"}
    assert inspected["Size"] - base["Size"] < 800e6
    assert project.compose("exec", "-T", "worker", "id", "-u").strip() != "0"


def test_the_main_job_runs_from_the_host(project: Project, trained: str) -> None:
    assert project.cli("evaluate", trained, "--dataset", trained, "--wait")["state"] == "completed"
    batch = project.cli("classify", SAMPLE, "--model", trained, "--wait", "-o", "labelled.csv")
    assert batch["rows"]["labelled"] == batch["rows"]["submitted"] > 0
    assert (project.folder / "labelled.csv").stat().st_size > 0


def test_the_main_job_runs_from_a_container(project: Project) -> None:
    def run(*words: str) -> Any:
        return json.loads(project.compose("run", "--rm", "-T", "cli", *words))

    assert run("prepare", "inside", SAMPLE, "--target", "intent=intent", "--wait")["state"] == "ready"
    assert run("train", "inside", "--dataset", "inside", "--yes", "--wait")["state"] == "succeeded"
    assert run("evaluate", "inside", "--dataset", "inside", "--wait")["state"] == "completed"
    batch = run("classify", SAMPLE, "--model", "inside", "--wait")
    rows = project.compose("run", "--rm", "-T", "cli", "results", batch["id"]).splitlines()
    assert len(rows) == batch["rows"]["submitted"]


def test_nothing_is_lost_or_paid_twice_while_services_are_killed_and_workers_added(
    project: Project, trained: str
) -> None:
    before = project.billed()
    source = project.folder / "texts.jsonl"
    source.write_text(
        "".join(json.dumps({"text": f"play song number {number} please"}) + "\n" for number in range(ROWS))
    )
    batch_id = project.cli("classify", "texts.jsonl", "--model", trained)["id"]

    def labelled() -> int:
        count: int = project.cli("status", "--json", batch_id)["rows"]["labelled"]
        return count

    wait_for(lambda: labelled() > 0, "the first rows are labelled")
    project.compose("up", "-d", "--no-recreate", "--scale", "worker=3")
    kills = 0
    for service in ("worker", "redis", "postgres", "worker-long", "flower"):
        names = [one["Name"] for one in project.containers(service)]
        subprocess.run(["docker", "kill", *names], capture_output=True, check=True)
        kills += len(names) if service == "worker" else 0
        project.compose("up", "-d", "--no-recreate", "--scale", "worker=3")
        project.wait_until_healthy(service)
    batch = project.cli("watch", batch_id)
    assert batch["state"] == "completed"
    assert batch["rows"]["labelled"] == ROWS
    project.compose("stop", "worker")  # what it drains is recorded
    texts = project.billed()["texts"] - before["texts"]
    in_flight = 64 * 100  # LABELMILL_MAX_IN_FLIGHT requests of LABELMILL_TEXTS_PER_REQUEST texts, for each kill
    assert ROWS <= texts <= ROWS + kills * in_flight
    project.compose("up", "-d", "--wait", "--scale", "worker=1")


def test_a_stop_drains_within_the_grace_period(project: Project) -> None:
    started_at = time.monotonic()
    project.compose("stop", "worker", "worker-long")
    assert time.monotonic() - started_at < 30
    assert {one["ExitCode"] for one in project.containers("worker")} <= {0}
    project.compose("up", "-d", "--wait")


def test_a_worker_is_unhealthy_while_it_cannot_take_work(project: Project) -> None:
    project.compose("stop", "redis")
    wait_for(lambda: project.containers("worker")[0]["Health"] == "unhealthy", "the worker is unhealthy")
    project.compose("start", "redis")
    project.wait_until_healthy("worker")


def test_down_and_up_keeps_what_was_stored(project: Project, trained: str) -> None:
    jobs = project.cli("status", "--json", "--limit", "100")
    project.compose("down", "--timeout", "30")
    project.compose("up", "-d", "--wait")
    assert project.cli("status", "--json", "--limit", "100") == jobs
    batch = project.cli("classify", SAMPLE, "--model", trained, "--wait")
    assert batch["state"] == "completed"


def test_a_second_clone_runs_beside_the_first(project: Project, tmp_path: Path) -> None:
    second = Project(tmp_path / "labelmill", f"{project.name}-second")
    second.compose("build", timeout_s=1200)
    try:
        second.compose("up", "-d", "--wait")
        assert second.cli("status", "--json") == []
        assert project.cli("status", "--json") != []
    finally:
        second.compose("down", "-v")
        subprocess.run(["docker", "image", "rm", "-f", f"{second.name}-labelmill"], capture_output=True, check=False)
