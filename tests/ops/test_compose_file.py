"""What docker-compose.yml and the image's scripts promise, read without an engine; tests/containers runs them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from labelmill.contracts.messages import QUEUES

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "ops/docker"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
WITH_S3: dict[str, dict[str, Any]] = yaml.safe_load((SCRIPTS / "s3.yml").read_text())["services"]
RUN_ONCE = {"setup", "migrate", "cli"}
LONG_RUNNING = sorted(SERVICES.keys() - RUN_ONCE)


def queues_of(service: str) -> set[str]:
    command = SERVICES[service]["command"]
    return set(command[command.index("-Q") + 1].split(","))


def test_the_services_that_are_documented_are_there() -> None:
    documented = re.findall(r"^\| `([a-z-]+)`", (ROOT / "docs/containers.md").read_text(), re.MULTILINE)
    assert {name for name in documented if name.islower()} == SERVICES.keys()


def test_workers_serve_every_queue_and_long_work_has_workers_of_its_own() -> None:
    assert queues_of("worker") | queues_of("worker-long") == set(QUEUES)
    assert queues_of("worker").isdisjoint({"prepare", "train"})


def test_ports_are_published_on_loopback_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_only_workers_hold_the_key() -> None:
    holders = {name for name, service in SERVICES.items() if "MISTRAL_API_KEY" in service.get("environment", {})}
    assert holders == {"worker", "worker-long"}


def test_no_password_stands_on_a_command_line() -> None:
    for name, service in SERVICES.items():
        assert "${" not in str(service.get("command", "")), name


def test_the_data_folder_lies_elsewhere_in_every_kind_of_worker() -> None:
    folders = [SERVICES[name]["environment"]["LABELMILL_DATA_DIR"] for name in ("worker", "worker-long", "cli")]
    assert len(set(folders)) == 3
    for name, folder in zip(("worker", "worker-long", "cli"), folders, strict=True):
        assert any(volume.endswith(f":{folder}") for volume in SERVICES[name]["volumes"]), name


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_a_service_restarts_is_checked_and_bounded_in_memory_and_logs(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"]
    assert service["deploy"]["resources"]["limits"].keys() >= {"memory", "pids"}
    assert service["logging"]["options"].keys() >= {"max-size", "max-file"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_has_a_read_only_root(name: str) -> None:
    assert SERVICES[name]["read_only"] is True


def test_every_setting_of_the_compose_file_is_documented() -> None:
    text = (ROOT / "docker-compose.yml").read_text() + (SCRIPTS / "s3.yml").read_text()
    documented = (ROOT / "docs/containers.md").read_text() + (ROOT / "README.md").read_text()
    missing = {name for name in re.findall(r"\$\{([A-Z_]+)", text) if name not in documented}
    assert not missing


def test_with_files_in_s3_workers_and_the_command_line_hold_its_key_and_no_other_service_does() -> None:
    holders = {name for name, service in WITH_S3.items() if "AWS_SECRET_ACCESS_KEY" in service["environment"]}
    assert holders == WITH_S3.keys() == {"worker", "worker-long", "cli"}
    assert not any("AWS_" in str(service.get("environment", "")) for service in SERVICES.values())
    dockerfile = (SCRIPTS / "Dockerfile").read_text()
    assert "'.[local,s3]'" in dockerfile
    for name in ("worker", "worker-long"):  # in /tmp they would be in memory
        assert WITH_S3[name]["environment"]["LABELMILL_CACHE_DIR"] == "/cache/files"
        assert "cache:/cache" in WITH_S3[name]["volumes"]
    assert re.search(r"install -d -m 1777 .*/cache\b", dockerfile)


def run_entrypoint(**environment: str) -> dict[str, str]:
    done = subprocess.run(
        ["sh", str(SCRIPTS / "entrypoint.sh"), "env"],
        env={"PATH": os.environ["PATH"], "LABELMILL_EMULATOR_URL": "http://emulator:8089"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def test_workers_without_a_key_ask_the_emulator() -> None:
    environment = run_entrypoint(MISTRAL_API_KEY="", LABELMILL_MISTRAL_URL="")
    assert environment["LABELMILL_MISTRAL_URL"] == "http://emulator:8089"
    assert environment["MISTRAL_API_KEY"]
    assert environment["LABELMILL_ALLOW_HTTP"] == "true"


def test_workers_with_a_key_never_ask_the_emulator() -> None:
    environment = run_entrypoint(MISTRAL_API_KEY="a-key", LABELMILL_MISTRAL_URL="")
    assert environment["MISTRAL_API_KEY"] == "a-key"
    assert environment["LABELMILL_MISTRAL_URL"] == ""
    assert "LABELMILL_ALLOW_HTTP" not in environment


def run_setup(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`setup` with a stand-in for the name service: the emulator runs where EMULATOR is set."""
    bin_dir = folder / "bin"
    bin_dir.mkdir()
    getent = bin_dir / "getent"
    getent.write_text('#!/bin/sh\n[ -n "${EMULATOR:-}" ]\n')
    getent.chmod(0o755)
    return subprocess.run(
        ["sh", str(SCRIPTS / "setup.sh")],
        env={"PATH": f"{bin_dir}:{os.environ['PATH']}", "LABELMILL_UID": "0", "LABELMILL_GID": "0"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({}, "there is nobody to ask"),
        ({"EMULATOR": "yes", "MISTRAL_API_KEY_IS_SET": "yes"}, "MISTRAL_API_KEY is set and the emulator runs"),
        ({"EMULATOR": "yes"}, "LABELMILL_UID is 0"),
        ({"MISTRAL_API_KEY_IS_SET": "yes"}, "LABELMILL_UID is 0"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused_before_anything_starts(
    tmp_path: Path, environment: dict[str, str], sentence: str
) -> None:
    done = run_setup(tmp_path, **environment)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
