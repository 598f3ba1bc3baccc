"""What the agent makes of an engine's words: errors in every form, metrics, and how long it waits."""

from __future__ import annotations

import json

import pytest

from lora_agent import backoff, refusals
from lora_agent.backoff import Ends, Step, Trouble
from lora_agent.engine import NoAnswer, Refusal
from lora_agent.vllm import MESSAGE_LIMIT, busy_adapters, told

MESSAGE = "The lora adapter 'a1' cannot be found."


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        pytest.param(json.dumps({"error": {"message": MESSAGE, "code": 404}}), MESSAGE, id="nested"),
        pytest.param(json.dumps({"object": "error", "message": MESSAGE, "code": 404}), MESSAGE, id="flat"),
        pytest.param(json.dumps({"error": "Unauthorized"}), "Unauthorized", id="the API key's"),
        pytest.param(json.dumps({"detail": "Not Found"}), "Not Found", id="FastAPI's own"),
        pytest.param("Internal Server Error", "Internal Server Error", id="plain text"),
        pytest.param("", "", id="nothing"),
        pytest.param("[1]", "[1]", id="not an object"),
        pytest.param(json.dumps({"error": {"message": "a\nb\x00c"}}), "a b c", id="control characters"),
        pytest.param('{"message": "\\ud800"}', " ", id="half a surrogate pair"),
    ],
)
def test_an_error_s_message_is_found(answer: str, message: str) -> None:
    assert told(answer) == message
    assert told(answer).encode() == message.encode()


def test_an_error_of_megabytes_is_cut() -> None:
    assert len(told(json.dumps({"error": {"message": "x" * 2_500_000}}))) == MESSAGE_LIMIT


@pytest.mark.parametrize(
    ("refusal", "reason", "final"),
    [
        pytest.param(Refusal(500, "LoRA rank 32 is greater"), "LoadRefused", True, id="a bad adapter is a 500"),
        pytest.param(Refusal(404, "No adapter found for /x"), "LoadRefused", True, id="the engine sees no files"),
        pytest.param(Refusal(404, "Not Found"), "RuntimeLoadingDisabled", True, id="no such route"),
        pytest.param(Refusal(401, "Unauthorized"), "EngineUnauthorized", True, id="API key"),
        pytest.param(Refusal(503, "dying"), "EngineNotReady", False, id="not now"),
    ],
)
def test_a_refused_load_has_a_reason(refusal: Refusal, reason: str, *, final: bool) -> None:
    trouble = refusals.of_load(refusal)
    assert (trouble.reason, trouble.ends is not Ends.TRANSIENT) == (reason, final)


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        pytest.param(Refusal(404, "does not exist"), "ProbePending", id="unloaded meanwhile"),
        pytest.param(Refusal(500, "EngineCore"), "ProbePending", id="engine trouble"),
        pytest.param(Refusal(400, "no completions"), "ProbeRefused", id="a model without completions"),
        pytest.param(Refusal(403, "no"), "EngineUnauthorized", id="API key"),
    ],
)
def test_a_refused_probe_has_a_reason(refusal: Refusal, reason: str) -> None:
    assert refusals.of_probe(refusal).reason == reason


@pytest.mark.parametrize(
    ("trouble", "change"),
    [
        pytest.param(refusals.of_load(Refusal(500, "x" * 900)), "spec.source", id="load"),
        pytest.param(refusals.of_load(Refusal(401, "x")), "VLLM_API_KEY", id="load, API key"),
        pytest.param(refusals.of_probe(Refusal(400, "x" * 900)), "--model", id="probe"),
        pytest.param(refusals.of_probe(Refusal(401, "x")), "--api-key", id="probe, API key"),
        pytest.param(refusals.of_listing(Refusal(401, "x")), "--api-key", id="listing, API key"),
    ],
)
def test_what_is_refused_for_good_names_what_to_change_however_long_the_engine_talks(
    trouble: Trouble, change: str
) -> None:
    told_of = backoff.after(None, trouble, step=Step.LOAD, now=0, jitter=0)
    assert change in told_of.message


def test_silence_is_waited_out() -> None:
    assert refusals.silence(NoAnswer("t"), reason="ProbePending").ends is Ends.TRANSIENT


def info(running: str, waiting: str, at: float) -> str:
    labels = f'max_lora="4",running_lora_adapters="{running}",waiting_lora_adapters="{waiting}"'
    return f"vllm:lora_requests_info{{{labels}}} {at!r}\n"


HEAD = '# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{engine="0",model_name="base"} 1.0\n'
IDLE = 'vllm:num_requests_running{engine="0"} 0.0\nvllm:num_requests_waiting{engine="0"} 0.0\n'


@pytest.mark.parametrize(
    ("metrics", "busy"),
    [
        pytest.param(HEAD + info("a", "a", 1.7e9) + info("b,c", "d", 1.8e9), {"b", "c", "d"}, id="the latest counts"),
        pytest.param(HEAD + info("a", "a", 1.7e9) + info("", "", 1.8e9), set(), id="only the base is asked"),
        pytest.param(IDLE + info("a", "a", 1.7e9), set(), id="idle: whatever was said last"),
        pytest.param(HEAD, None, id="no word of adapters"),
        pytest.param("", None, id="no metrics"),
    ],
)
def test_busy_adapters_are_read_from_the_metrics(metrics: str, busy: set[str] | None) -> None:
    assert busy_adapters(metrics) == busy


def test_waits_double_up_to_their_bound_and_start_anew_for_another_step() -> None:
    trouble = Trouble("HubUnavailable", "m" * 2000, ends=Ends.TRANSIENT)
    last, waits = None, []
    for _ in range(9):
        last = backoff.after(last, trouble, step=Step.FETCH, now=0, jitter=0.5)
        waits.append(last.retry_seconds)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert last is not None
    assert len(last.message) == 1024
    assert backoff.after(last, trouble, step=Step.LOAD, now=0, jitter=0.5).failures == 1


@pytest.mark.parametrize("ends", list(Ends))
@pytest.mark.parametrize("jitter", [0.0, 0.999])
def test_jitter_spreads_a_wait_by_a_quarter_and_a_server_may_ask_for_more(ends: Ends, jitter: float) -> None:
    plain = backoff.after(None, Trouble("R", "", ends=ends), step=Step.FETCH, now=10, jitter=0.5).retry_seconds
    spread = backoff.after(None, Trouble("R", "", ends=ends), step=Step.FETCH, now=10, jitter=jitter)
    assert 0.74 * plain <= spread.retry_seconds <= 1.26 * plain
    asked = backoff.after(
        None, Trouble("R", "", ends=ends, at_least_seconds=500), step=Step.FETCH, now=10, jitter=jitter
    )
    assert asked.due >= 510
