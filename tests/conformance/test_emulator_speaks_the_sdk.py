"""The real SDK against the emulator: every call the product makes decodes, and the jobs live as Mistral's do."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from emulator_thread import EmulatorThread
from fine_tuning_client import FineTuningClient
from mistralai.client import Mistral
from mistralai.client.errors import HTTPValidationError, SDKError

from labelmill_ops.emulator.config import EmulatorConfig

# The SDK's types admit completion jobs and unset fields everywhere, which a classifier job never answers.
Client = Any

WORDS = {
    "music": ["play a song", "turn the music up", "play some jazz", "next track please", "play my favourite album"],
    "weather": ["will it rain", "is it sunny today", "weather this weekend", "how cold is it", "do i need an umbrella"],
}
ROWS: list[dict[str, Any]] = [
    {"text": f"{text} {extra}", "labels": {"intent": intent}}
    for intent, texts in WORDS.items()
    for text in texts
    for extra in ("now", "please", "tonight", "again")
]


def jsonl(rows: list[Any]) -> bytes:
    return b"\n".join(orjson.dumps(row) for row in rows) + b"\n"


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorThread]:
    config = EmulatorConfig(port=0, validate_s=0.1, train_s=0.3, refused_keys=frozenset({"revoked"}), max_inputs=50)
    with EmulatorThread(config) as running:
        yield running


@pytest.fixture(scope="module")
def mistral(emulator: EmulatorThread) -> Iterator[Mistral]:
    with Mistral(api_key="any", server_url=emulator.url) as client:
        yield client


def jobs_of(mistral: Client) -> FineTuningClient:
    """The fine-tuning jobs of the server that a client of the SDK talks to."""
    return FineTuningClient(mistral.sdk_configuration.server_url)


def upload(mistral: Client, content: bytes, name: str = "train.jsonl") -> str:
    return str(mistral.files.upload(file={"file_name": name, "content": content}, purpose="fine-tune").id)


def create_job(mistral: Client, content: bytes, **options: Any) -> Any:
    return jobs_of(mistral).create(
        model="ministral-3b-latest",
        job_type="classifier",
        training_files=[{"file_id": upload(mistral, content), "weight": 1}],
        hyperparameters={"training_steps": 100, "learning_rate": 0.0001},
        **{"auto_start": False, **options},
    )


def job_when(mistral: Client, job_id: str, reached: Callable[[Any], bool], timeout_s: float = 60) -> Any:
    deadline = time.monotonic() + timeout_s
    while not reached(job := jobs_of(mistral).get(job_id=job_id)):
        assert time.monotonic() < deadline, f"the job stayed {job.status}"
        time.sleep(0.01)
    return job


def job_in(mistral: Client, job_id: str, *statuses: str) -> Any:
    return job_when(mistral, job_id, lambda job: job.status in statuses)


def statuses_of(job: Any) -> list[str]:
    return [event.data.status for event in reversed(job.events)]


@pytest.fixture(scope="module")
def trained(mistral: Client) -> Any:
    validation = upload(mistral, jsonl(ROWS[::4]), "validation.jsonl")
    job = create_job(mistral, jsonl(ROWS), validation_files=[validation])
    job_in(mistral, job.id, "VALIDATED")
    jobs_of(mistral).start(job_id=job.id)
    return job_in(mistral, job.id, "SUCCESS", "FAILED")


def test_files_are_uploaded_listed_retrieved_downloaded_and_deleted(mistral: Client) -> None:
    content = jsonl(ROWS[:3])
    uploaded = mistral.files.upload(file={"file_name": "some.jsonl", "content": content}, purpose="fine-tune")
    assert (uploaded.filename, uploaded.size_bytes, uploaded.num_lines) == ("some.jsonl", len(content), 3)
    listed = mistral.files.list(page_size=1, search="some", purpose="fine-tune")
    assert [file.id for file in listed.data] == [uploaded.id]
    assert mistral.files.retrieve(file_id=uploaded.id).signature == uploaded.signature
    assert mistral.files.download(file_id=uploaded.id).read() == content
    assert mistral.files.delete(file_id=uploaded.id).deleted
    with pytest.raises(SDKError) as missing:
        mistral.files.retrieve(file_id=uploaded.id)
    assert missing.value.status_code == 404


def test_a_job_waits_validated_with_its_price_until_it_is_started(mistral: Client) -> None:
    created = create_job(mistral, jsonl(ROWS))
    assert created.status == "QUEUED"
    job = job_in(mistral, created.id, "VALIDATED")
    assert (job.metadata.cost, job.metadata.cost_currency) == (4.0, "EUR")
    assert job.metadata.expected_duration_seconds > 0
    assert job.metadata.train_tokens > 0
    assert job.metadata.data_tokens > 0
    assert job.metadata.estimated_start_time > 0
    assert job.classifier_targets[0].labels == ["music", "weather"]
    assert jobs_of(mistral).start(job_id=job.id).status == "RUNNING"
    with pytest.raises(SDKError) as twice:
        jobs_of(mistral).start(job_id=job.id)
    assert twice.value.status_code == 400


def test_a_job_goes_through_all_statuses_to_a_named_model(trained: Any) -> None:
    assert statuses_of(trained) == ["QUEUED", "VALIDATING", "VALIDATED", "RUNNING", "SUCCESS"]
    prefix, kind, base, workspace, date, number = trained.fine_tuned_model.split(":")
    assert (prefix, kind, base) == ("ft", "classifier", "ministral-3b-latest")
    assert (len(workspace), len(date), len(number)) == (8, 8, 8)
    assert trained.trained_tokens == trained.metadata.train_tokens


def test_checkpoints_carry_losses_that_go_down_with_the_step(trained: Any) -> None:
    checkpoints = list(reversed(trained.checkpoints))
    steps = [checkpoint.step_number for checkpoint in checkpoints]
    assert steps == sorted(set(steps))
    assert steps[-1] == 100
    for name in ("train_loss", "valid_loss"):
        losses = [getattr(checkpoint.metrics, name) for checkpoint in checkpoints]
        assert losses == sorted(losses, reverse=True)


def test_auto_start_needs_no_start(mistral: Client) -> None:
    job = create_job(mistral, jsonl(ROWS), auto_start=True, suffix="mine")
    assert ":mine:" in job_in(mistral, job.id, "SUCCESS").fine_tuned_model


def test_jobs_are_listed_newest_first_and_filtered(mistral: Client, trained: Any) -> None:
    newest = create_job(mistral, jsonl(ROWS), suffix="listed")
    assert jobs_of(mistral).list().data[0].id == newest.id
    assert [job.id for job in jobs_of(mistral).list(suffix="listed").data] == [newest.id]
    succeeded = jobs_of(mistral).list(status="SUCCESS").data
    assert trained.id in [job.id for job in succeeded]
    assert newest.id not in [job.id for job in succeeded]


def test_a_job_can_be_cancelled_before_and_while_it_runs(mistral: Client) -> None:
    waiting = create_job(mistral, jsonl(ROWS))
    assert jobs_of(mistral).cancel(job_id=waiting.id).status == "CANCELLED"
    running = create_job(mistral, jsonl(ROWS), auto_start=True)
    job_in(mistral, running.id, "RUNNING")
    jobs_of(mistral).cancel(job_id=running.id)
    assert job_in(mistral, running.id, "CANCELLED", "SUCCESS").fine_tuned_model is None


def test_the_wandb_key_is_never_echoed(mistral: Client, emulator: EmulatorThread) -> None:
    integration = {"project": "intents", "api_key": "w" * 40, "name": "first"}
    job = create_job(mistral, jsonl(ROWS), integrations=[integration])
    got = jobs_of(mistral).get(job_id=job.id)
    assert got.integrations[0].project == "intents"
    assert "w" * 40 not in f"{job} {got} {emulator.stats()}"
    assert [found.id for found in jobs_of(mistral).list(wandb_project="intents").data] == [job.id]


LABELLED = {"text": "a", "labels": {"intent": "x"}}
OTHER = {"text": "b", "labels": {"intent": "y"}}
BAD_FILES = {
    "empty": (b"", "the file is empty"),
    "broken JSON": (jsonl([LABELLED]) + b'{"text": \n', "line 2: not valid JSON"),
    "no text": (jsonl([LABELLED, {"labels": {"intent": "y"}}]), "line 2: no text"),
    "no labels": (jsonl([LABELLED, {"text": "b"}]), "line 2: no labels"),
    "other targets": (jsonl([LABELLED, {"text": "b", "labels": {"topic": "y"}}]), "line 2: targets ['topic'] differ"),
    "list and single": (jsonl([LABELLED, {"text": "b", "labels": {"intent": ["y"]}}]), "a list of labels in some rows"),
    "single label": (jsonl([LABELLED, LABELLED]), "has 1 label(s)"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_training_file_fails_validation_with_its_reason(mistral: Client, kind: str) -> None:
    content, reason = BAD_FILES[kind]
    job = job_in(mistral, create_job(mistral, content).id, "FAILED_VALIDATION", "VALIDATED")
    assert job.status == "FAILED_VALIDATION"
    assert reason in job.events[0].data.error


def test_a_validation_label_unseen_in_training_fails_validation(mistral: Client) -> None:
    validation = upload(mistral, jsonl([{"text": "c", "labels": {"intent": "z"}}]), "validation.jsonl")
    job = create_job(mistral, jsonl([LABELLED, OTHER]), validation_files=[validation])
    failed = job_in(mistral, job.id, "FAILED_VALIDATION", "VALIDATED")
    assert "validation.jsonl, line 1: label 'z'" in failed.events[0].data.error


def test_classifier_targets_must_be_those_of_the_files(mistral: Client) -> None:
    unknown = [{"name": "topic", "labels": ["x", "y"], "weight": 1}]
    job = create_job(mistral, jsonl([LABELLED, OTHER]), classifier_targets=unknown)
    failed = job_in(mistral, job.id, "FAILED_VALIDATION", "VALIDATED")
    assert "classifier_targets ['topic']" in failed.events[0].data.error


def test_classifier_targets_give_labels_and_their_order(mistral: Client) -> None:
    asked = [{"name": "intent", "labels": ["weather", "unused", "music"], "weight": 1}]
    job = job_in(mistral, create_job(mistral, jsonl(ROWS), classifier_targets=asked, auto_start=True).id, "SUCCESS")
    answer = mistral.classifiers.classify(model=job.fine_tuned_model, inputs="play a song now")
    scores = answer.results[0]["intent"].scores
    assert list(scores) == ["weather", "unused", "music"]
    assert max(scores, key=lambda label: scores[label]) == "music"


def test_a_trained_model_classifies_a_text_and_a_list_in_order(mistral: Client, trained: Any) -> None:
    model = trained.fine_tuned_model
    answer = mistral.classifiers.classify(model=model, inputs=["will it rain tonight", "play some jazz again"])
    assert answer.model == model
    best = [max(result["intent"].scores.items(), key=lambda item: item[1])[0] for result in answer.results]
    assert best == ["weather", "music"]
    assert all(sum(result["intent"].scores.values()) == pytest.approx(1) for result in answer.results)
    alone = mistral.classifiers.classify(model=model, inputs="will it rain tonight")
    assert alone.results[0]["intent"].scores == pytest.approx(answer.results[0]["intent"].scores)


def test_a_chat_is_classified_by_its_messages(mistral: Client, trained: Any) -> None:
    chat = {"messages": [{"role": "user", "content": "play some jazz"}]}
    (result,) = mistral.classifiers.classify_chat(model=trained.fine_tuned_model, input=chat).results
    assert result["intent"].scores["music"] > 0.5


def test_several_targets_of_both_kinds_and_chat_rows_train_together(mistral: Client) -> None:
    rows = [
        {
            "messages": [{"role": "user", "content": row["text"]}],
            "labels": {**row["labels"], "words": [word for word in ("now", "please", "play") if word in row["text"]]},
        }
        for row in ROWS
    ]
    job = job_in(mistral, create_job(mistral, jsonl(rows), auto_start=True).id, "SUCCESS", "FAILED_VALIDATION")
    losses = {target.name: target.loss_function for target in job.classifier_targets}
    assert losses == {"intent": "single_class", "words": "multi_class"}
    (result,) = mistral.classifiers.classify(model=job.fine_tuned_model, inputs="play a song now").results
    assert result["intent"].scores["music"] > 0.5
    words = result["words"].scores
    assert words["play"] > 0.5
    assert words["now"] > 0.5
    assert words["please"] < 0.5


def test_embeddings_have_1024_numbers_and_usage(mistral: Client) -> None:
    answer = mistral.embeddings.create(model="mistral-embed", inputs=["one text", "another", "one text"])
    vectors = [item.embedding for item in answer.data]
    assert [len(vector) for vector in vectors] == [1024] * 3
    assert vectors[0] == vectors[2] != vectors[1]
    assert answer.usage.total_tokens > 0


def test_models_are_listed_updated_archived_and_deleted(mistral: Client) -> None:
    job = job_in(mistral, create_job(mistral, jsonl(ROWS), auto_start=True).id, "SUCCESS")
    model = job.fine_tuned_model
    cards = {card.id: card for card in mistral.models.list().data}
    assert cards[model].job == job.id
    assert cards["mistral-embed"].type == "base"
    assert mistral.models.update(model_id=model, name="intents").name == "intents"
    assert mistral.models.archive(model_id=model).archived
    assert mistral.models.retrieve(model_id=model).archived
    assert not mistral.models.unarchive(model_id=model).archived
    assert mistral.models.delete(model_id=model).deleted
    with pytest.raises(SDKError) as gone:
        mistral.classifiers.classify(model=model, inputs="play")
    assert gone.value.status_code == 404
    assert orjson.loads(gone.value.body)["type"] == "invalid_model"


@pytest.mark.parametrize(
    ("inputs", "status"), [([""], 422), ([], 422), (["a"] * 51, 422), (["x" * 40_000], 400)], ids=str
)
def test_inputs_that_mistral_refuses_are_refused(mistral: Client, trained: Any, inputs: list[str], status: int) -> None:
    with pytest.raises((SDKError, HTTPValidationError)) as refused:
        mistral.classifiers.classify(model=trained.fine_tuned_model, inputs=inputs)
    assert refused.value.status_code == status


def test_a_refused_key_gets_401(emulator: EmulatorThread) -> None:
    with Mistral(api_key="revoked", server_url=emulator.url) as client, pytest.raises(SDKError) as refused:
        client.models.list()
    assert refused.value.status_code == 401
    assert orjson.loads(refused.value.body) == {"detail": "Unauthorized"}


def test_a_required_key_is_the_only_one_accepted() -> None:
    config = EmulatorConfig(port=0, key="right")
    with EmulatorThread(config) as emulator, Mistral(api_key="wrong", server_url=emulator.url) as client:
        with pytest.raises(SDKError, match="Unauthorized"):
            client.models.list()
        with Mistral(api_key="right", server_url=emulator.url) as accepted:
            assert accepted.models.list().data


def test_a_state_folder_keeps_files_jobs_and_models_over_a_restart(tmp_path: Path) -> None:
    config = EmulatorConfig(port=0, validate_s=0, train_s=0, state_dir=tmp_path)
    question = "will it rain tonight"
    with EmulatorThread(config) as emulator, Mistral(api_key="any", server_url=emulator.url) as client:
        job = job_in(client, create_job(client, jsonl(ROWS), auto_start=True).id, "SUCCESS")
        before = client.classifiers.classify(model=job.fine_tuned_model, inputs=question).results
        waiting = job_in(client, create_job(client, jsonl(ROWS)).id, "VALIDATED")
    with EmulatorThread(config) as emulator, Mistral(api_key="any", server_url=emulator.url) as client:
        assert client.classifiers.classify(model=job.fine_tuned_model, inputs=question).results == before
        assert client.files.download(file_id=job.training_files[0]).read() == jsonl(ROWS)
        jobs_of(client).start(job_id=waiting.id)
        assert job_in(client, waiting.id, "SUCCESS").fine_tuned_model


def test_a_long_training_is_cancelled_soon() -> None:
    config = EmulatorConfig(port=0, validate_s=0, train_s=600)
    with EmulatorThread(config) as emulator, Mistral(api_key="any", server_url=emulator.url) as client:
        job = job_in(client, create_job(client, jsonl(ROWS), auto_start=True).id, "RUNNING")
        jobs_of(client).cancel(job_id=job.id)
        cancelled = job_in(client, job.id, "CANCELLED")
        assert statuses_of(cancelled)[-2:] == ["CANCELLATION_REQUESTED", "CANCELLED"]


def test_a_job_that_a_restart_interrupted_is_taken_up_again(tmp_path: Path) -> None:
    slow = EmulatorConfig(port=0, validate_s=0, train_s=600, state_dir=tmp_path)
    with EmulatorThread(slow) as emulator, Mistral(api_key="any", server_url=emulator.url) as client:
        job = job_in(client, create_job(client, jsonl(ROWS), auto_start=True).id, "RUNNING")
    quick = EmulatorConfig(port=0, validate_s=0, train_s=0, state_dir=tmp_path)
    with EmulatorThread(quick) as emulator, Mistral(api_key="any", server_url=emulator.url) as client:
        assert job_in(client, job.id, "SUCCESS", "CANCELLED", "FAILED").status == "SUCCESS"
