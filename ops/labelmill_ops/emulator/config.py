"""What can be set on an emulator, and the names its parts find each other by."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from labelmill_ops.emulator.fault_kinds import Fault
from labelmill_ops.emulator.limit_option import ModelLimit

DEFAULT_PORT = 8377


@dataclass(frozen=True)
class EmulatorConfig:
    """How an emulator behaves. Durations are seconds."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT  #: 0 takes any free port
    key: str | None = None  #: the only API key accepted; None accepts every key that is not refused
    refused_keys: frozenset[str] = field(default_factory=frozenset)  #: keys answered with 401
    latency_s: float = 0.0  #: added to every `/v1` request
    requests_per_second: float | None = None  #: above it requests get 429; None: no limit
    model_limits: Mapping[str, ModelLimit] = field(default_factory=dict)  #: model, or `*` for any other → its limits
    deprecated: Mapping[str, str] = field(default_factory=dict)  #: dated name → the model that is to replace it
    validate_s: float = 0.5  #: a job's validation lasts at least this long
    train_s: float = 1.5  #: a job's training lasts at least this long
    batch_queue_s: float = 0.3  #: a batch job waits so long before it runs
    batch_run_s: float = 1.0  #: a batch job runs at least this long
    batch_billing: bool = True  #: False: batch jobs are answered with 402
    max_inputs: int = 10_000  #: inputs of one request; above it 422
    max_input_chars: int = 8192 * 4  #: characters of one input; above it 400
    max_file_bytes: int = 512 * 1024 * 1024
    max_body_bytes: int = 64 * 1024 * 1024  #: of a JSON request; above it 413
    inference_threads: int = 2
    faults: tuple[Fault, ...] = ()  #: what goes wrong on purpose
    fault_seed: int = 0
    state_dir: Path | None = None  #: files, jobs and models survive a restart here; None keeps them in memory

    def __post_init__(self) -> None:
        """Refuse values that would make the emulator hang or never answer."""
        for name in ("latency_s", "validate_s", "train_s", "batch_queue_s", "batch_run_s"):
            if getattr(self, name) < 0:
                message = f"{name} must not be negative"
                raise ValueError(message)
        if self.requests_per_second is not None and self.requests_per_second <= 0:
            message = "requests_per_second must be above 0"
            raise ValueError(message)
