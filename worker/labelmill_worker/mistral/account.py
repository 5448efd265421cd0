"""What an account can do at Mistral, for `labelmill doctor`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from labelmill.contracts.errors import BillingRequired, CredentialsRefused, FactoryClosed, LabelmillError, WorkerUnable
from labelmill_worker.ports.batch_jobs import BatchJobs
from labelmill_worker.ports.control_plane import ControlPlane, RemoteModel

_EMBEDDINGS = "embed"
AccountCheck = dict[str, Any]


def check_account(
    plane: ControlPlane, jobs: BatchJobs, on_models: Callable[[list[RemoteModel]], None] = lambda _: None
) -> AccountCheck:
    """`status`, `summary`, `remedy`, and `refused` where the key is. Three requests; never raises a LabelmillError.
    `on_models` gets the list of models."""
    try:
        models = plane.list_models()
        on_models(models)
    except LabelmillError as error:
        return failed_check(error)
    can = {
        "embedding": any(_EMBEDDINGS in model.id for model in models),
        "prompt": any(model.can_chat for model in models),
    }
    try:
        plane.check_factory()
        can["factory"] = True
    except (FactoryClosed, CredentialsRefused):
        can["factory"] = False  # the key was good for the models
    except LabelmillError as error:
        return failed_check(error)
    able = [method for method in ("embedding", "prompt", "factory") if can[method]]
    unable = [method for method in ("embedding", "prompt", "factory") if not can[method]]
    summary = f"the key is accepted; {len(models)} models; can train by {', '.join(able) or 'no method'}"
    if unable:
        summary += f", not by {', '.join(unable)}"
    summary += _words_about_batch_jobs(jobs)
    if not able:
        return {"status": "warning", "summary": summary, "remedy": "ask Mistral which models the workspace may use"}
    return {"status": "ok", "summary": summary, "remedy": ""}


def _words_about_batch_jobs(jobs: BatchJobs) -> str:
    try:
        jobs.check_billing()
    except BillingRequired:
        return "; runs no batch jobs: the account has no billing for them"
    except LabelmillError:
        return ""  # an endpoint that does not know them
    return "; runs batch jobs"


def failed_check(error: LabelmillError) -> AccountCheck:
    """The result of a check that failed."""
    if isinstance(error, CredentialsRefused):
        remedy = "set a valid MISTRAL_API_KEY in the workers' environment and start them again"
        return {"status": "failed", "summary": error.message, "remedy": remedy, "refused": True}
    if isinstance(error, WorkerUnable):
        remedy = "correct the workers' environment and start them again"
        return {"status": "failed", "summary": error.message, "remedy": remedy}
    remedy = "check LABELMILL_MISTRAL_URL and the network of the workers; see https://status.mistral.ai"
    return {"status": "failed", "summary": error.message, "remedy": remedy}
