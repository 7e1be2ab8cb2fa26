"""The judge: asked over HTTP by a real client, of a server in this process."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tunesmith_api.failures import FailureClass
from tunesmith_api.rewards import Judge, Reward
from tunesmith_runtime.data.records import Prompt
from tunesmith_runtime.data.row_error import RowError
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.train.rewards import Completion, judge

KEY = "sk-a-key-of-the-judge"
Answer = tuple[int, str, dict[str, str]]
"""Status, content of the reply or body of an error, and headers."""


@dataclass
class Server:
    """A server with the OpenAI API, which `answer` answers by the number of the request, from 0, and its question."""

    url: str = ""
    answer: Callable[[int, str], Answer] = lambda *_: (200, "Score: 5", {})
    requests: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def client(self, key: str | None = None, **settings: Any) -> judge.JudgeClient:
        options = {"url": self.url, "model": "m", "rubric": "Rate {completion} for {prompt} as {answer}.", **settings}
        return judge.JudgeClient("taste", Judge.model_validate(options), key)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server()
    monkeypatch.setattr(judge, "FIRST_WAIT", 0.01)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with made.lock:
                number = len(made.requests)
                made.requests.append({"path": self.path, "key": self.headers["Authorization"], **body})
                made.times.append(time.monotonic())
                made.at_once += 1
                made.most_at_once = max(made.most_at_once, made.at_once)
            status, content, headers = made.answer(number, body["messages"][0]["content"])
            reply = json.dumps({"choices": [{"message": {"content": content}}]}) if status == 200 else content
            with made.lock:
                made.at_once -= 1
            self.send_response(status)
            for name, value in {"Content-Length": str(len(reply.encode())), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.encode())

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    made.url = f"http://127.0.0.1:{http.server_port}/v1"
    yield made
    http.shutdown()
    http.server_close()
    thread.join()


def completion(text: str = "iron", **columns: Any) -> Completion:
    return Completion(
        text, 1, 8, Prompt([{"role": "user", "content": "Name a metal."}], columns={"answer": "tin", **columns})
    )


def test_a_completion_is_judged_by_the_rubric_on_the_scale(server: Server) -> None:
    server.answer = lambda _, question: (200, "Score: 1? No:\n**Score:** " + ("4.5" if "iron" in question else "2"), {})
    client = server.client(KEY, scale={"min": 2, "max": 7}, maxTokens=64)
    assert client.rate([completion(), completion("wood")]) == [0.5, 0.0]
    first = next(each for each in server.requests if "iron" in each["messages"][0]["content"])
    assert first["messages"] == [
        {
            "role": "user",
            "content": "Rate iron for Name a metal. as tin.\n\n"
            "End your reply with a line `Score: N`, where N is a number from 2 (worst) to 7 (best).",
        }
    ]
    assert (first["path"], first["key"], first["model"], first["temperature"], first["max_tokens"]) == (
        "/v1/chat/completions",
        f"Bearer {KEY}",
        "m",
        0,
        64,
    )


@pytest.mark.parametrize(
    ("reply", "reward"),
    [
        ("Score: -5", 0.25),
        ("**Score:** -10", 0.0),
        ("Score:-2.5", 0.375),
        ("Score: **10**", 1.0),
        ("Score - 5", 0.75),
        ("Score-5", 0.75),
    ],
)
def test_a_minus_sign_of_a_score_is_read_and_a_dash_is_not(server: Server, reply: str, reward: float) -> None:
    server.answer = lambda *_: (200, reply, {})
    assert server.client(scale={"min": -10, "max": 10}).rate([completion()]) == [reward]


def test_a_score_below_the_scale_is_not_taken_for_a_positive_one(server: Server) -> None:
    server.answer = lambda *_: (200, "Score: -5", {})
    with pytest.raises(RunFailure, match="the score -5 is not from 0 to 10"):
        server.client(retries=0).rate([completion()])


def test_a_server_without_a_key_is_sent_none(server: Server) -> None:
    server.client().rate([completion()])
    assert server.requests[0]["key"] is None


def test_requests_are_made_at_once_up_to_the_bound(server: Server) -> None:
    def answer(_number: int, _question: str) -> Answer:
        time.sleep(0.05)
        return 200, "Score: 10", {}

    server.answer = answer
    assert server.client(concurrency=3).rate([completion()] * 9) == [1.0] * 9
    assert 2 <= server.most_at_once <= 3


def test_a_busy_server_is_asked_again_when_it_says(server: Server) -> None:
    server.answer = lambda number, _: (200, "Score: 10", {}) if number else (429, "", {"Retry-After": "1"})
    assert server.client().rate([completion()]) == [1.0]
    assert server.times[1] - server.times[0] >= 1


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ((500, "oh", {}), "500 Internal Server Error"),
        ((200, "It is fine.", {}), "the reply has no score: ...'It is fine.'"),
        ((200, "Score: 11", {}), "the score 11 is not from 0 to 10"),
        ((429, "", {"Retry-After": "3600"}), "429 Too Many Requests, and asks to wait for 3600 s"),
    ],
)
def test_a_reward_that_is_not_known_ends_the_attempt(server: Server, answer: Answer, problem: str) -> None:
    """It is never taken for 0. The attempt is repeated."""
    server.answer = lambda *_: answer
    with pytest.raises(RunFailure) as failure:
        server.client(retries=2).rate([completion()])
    assert failure.value.failure is FailureClass.JUDGE_FAILED
    assert f"rewards[].judge of taste: {server.url}: {problem}" in failure.value.message
    assert len(server.requests) == (1 if "3600" in problem else 3)


def test_a_server_that_takes_too_long_or_is_gone_ends_the_attempt(server: Server) -> None:
    def answer(_number: int, _question: str) -> Answer:
        time.sleep(0.5)
        return 200, "Score: 10", {}

    server.answer = answer
    with pytest.raises(RunFailure, match="ReadTimeout") as failure:
        server.client(timeout="0.1s", retries=0).rate([completion()])
    assert failure.value.failure is FailureClass.JUDGE_FAILED
    server.url = "http://127.0.0.1:1/v1"
    with pytest.raises(RunFailure, match="ConnectError") as failure:
        server.client(retries=1).rate([completion()])
    assert failure.value.failure is FailureClass.JUDGE_FAILED


@pytest.mark.parametrize(
    ("status", "secret", "hint"),
    [
        (401, "tunesmith-judge", "correct the key api-key of the Secret tunesmith-judge in this namespace"),
        (403, None, "set judge.apiKeySecret in spec.rewards"),
        (404, None, "correct judge.url and judge.model in spec.rewards"),
        (302, None, "correct judge.url and judge.model in spec.rewards"),
    ],
)
def test_a_refusal_ends_the_job_and_repeats_no_key(server: Server, status: int, secret: str | None, hint: str) -> None:
    server.answer = lambda *_: (status, f"no: {KEY}", {"Location": "/elsewhere"} if status == 302 else {})
    with pytest.raises(RunFailure) as failure:
        server.client(KEY, **({"apiKeySecret": secret} if secret else {})).rate([completion()] * 3)
    assert failure.value.failure is FailureClass.BAD_SPEC
    assert "no: ***" in failure.value.message
    assert KEY not in f"{failure.value}"
    assert (failure.value.hint or "").startswith(hint)


def test_several_messages_are_shown_with_their_roles() -> None:
    prompt = Prompt([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "A metal?"}])
    assert judge.text_of(prompt) == "system: Be brief.\n\nuser: A metal?"
    assert judge.text_of(Prompt("A metal?")) == "A metal?"


def test_a_row_without_a_column_of_the_rubric_is_refused() -> None:
    settings = {"url": "https://judge.example/v1", "model": "m", "rubric": "{completion} {answer}"}
    check = judge.check(Reward.model_validate({"name": "taste", "type": "judge", "judge": settings}), None)  # type: ignore[arg-type]
    check(Prompt("a", columns={"answer": 3}))
    with pytest.raises(RowError, match=r"has no 'answer', which judge\.rubric of taste in spec\.rewards names"):
        check(Prompt("a", columns={"solution": 3}))
