"""Reward of a judge: a model behind an OpenAI API scores each completion by a rubric.

A request without a score in its answer is repeated after the time that the server asks for (Retry-After, RFC 9110, 10.2.3). If all
attempts fail, the run fails: a missing reward is never replaced by a number.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING, Any

from tunesmith_api.base import parse_duration
from tunesmith_api.failures import FailureClass
from tunesmith_api.rewards import Judge, Reward, RewardType
from tunesmith_api.run import judge_key_variable
from tunesmith_runtime import credentials
from tunesmith_runtime.data.formats.template import filler
from tunesmith_runtime.data.records import Prompt
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.retry_after import retry_after
from tunesmith_runtime.train.rewards.base import Completion, Rate, Scorer
from tunesmith_runtime.workdir import Work

if TYPE_CHECKING:
    import httpx

    from tunesmith_runtime.train.methods.base import Setup

log = logging.getLogger(__name__)

FORM = "End your reply with a line `Score: N`, where N is a number from {} (worst) to {} (best)."
SCORE = re.compile(r"score\W{0,6}?((?:(?<=\W)-)?[0-9]+(?:\.[0-9]+)?)", re.IGNORECASE)
"""A score after marks such as `:` and `**`. A minus sign belongs to the number unless it follows the word itself, as a dash."""
TRANSIENT = frozenset({408, 409, 425, 429})
"""Statuses below 500 after which a request may succeed later."""
LONGEST_WAIT = 600.0
"""Seconds that a server may ask to wait; beyond them the attempt ends."""
FIRST_WAIT = 1.0
"""Seconds before the second request where the server asks for none; each further wait is twice as long."""
SHOWN = 200
"""Characters of a reply in a message."""


class Unanswered(Exception):
    """A request that was not answered with a score."""

    def __init__(self, problem: str, wait: float | None = None) -> None:
        """`wait`: seconds after which the server asks to repeat it."""
        super().__init__(problem)
        self.wait = wait


class JudgeClient:
    """Asks a judge for scores."""

    def __init__(self, name: str, judge: Judge, key: str | None) -> None:
        """`name` is that of the reward, for messages. `key`: sent to the server, and in no message."""
        import httpx

        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._judge, self._key, self._where = judge, key, f"rewards[].judge of {name}: {judge.url}"
        self._fill = filler(judge.rubric, f"judge.rubric of {name}")
        self._stop = Event()
        self._client = httpx.Client(headers=headers, timeout=parse_duration(judge.timeout), follow_redirects=False)

    def rate(self, completions: Sequence[Completion]) -> list[float]:
        """Return the reward of each completion, from 0 to 1. Raises RunFailure (JudgeFailed, BadSpec)."""
        with ThreadPoolExecutor(self._judge.concurrency) as pool:
            asked = [pool.submit(self._reward, each) for each in completions]
            try:
                return [each.result() for each in asked]
            except BaseException:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _reward(self, completion: Completion) -> float:
        scale = self._judge.scale
        question = f"{self._fill(values_of(completion))}\n\n{FORM.format(f'{scale.min:g}', f'{scale.max:g}')}"
        for number in range(self._judge.retries + 1):
            try:
                return (self._score(question) - scale.min) / (scale.max - scale.min)
            except Unanswered as problem:
                last = problem
            wait = min(60.0, FIRST_WAIT * 2**number) if last.wait is None else last.wait
            if wait > LONGEST_WAIT:
                raise self._failed(f"{last}, and asks to wait for {wait:.0f} s")
            if number < self._judge.retries and not self._stop.is_set():
                log.info("%s: %s; asking again in %.0f s", self._where, last, wait)
                self._stop.wait(wait)
        raise self._failed(f"{last} ({self._judge.retries + 1} requests)")

    def _score(self, question: str) -> float:
        """Return the score of a reply. Raises Unanswered, and RunFailure (BadSpec) for a request that is refused."""
        reply = self._ask(question)
        found = SCORE.findall(reply)
        scale = self._judge.scale
        if not found:
            raise Unanswered(f"the reply has no score: ...{reply[-SHOWN:]!r}")
        score = float(found[-1])
        if not scale.min <= score <= scale.max:
            raise Unanswered(f"the score {score:g} is not from {scale.min:g} to {scale.max:g}")
        return score

    def _ask(self, question: str) -> str:
        import httpx

        body = {
            "model": self._judge.model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": self._judge.max_tokens,
        }
        try:
            answer = self._client.post(f"{self._judge.url.rstrip('/')}/chat/completions", json=body)
        except httpx.HTTPError as error:
            raise Unanswered(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__) from error
        self._check_status(answer)
        try:
            return str(answer.json()["choices"][0]["message"]["content"] or "")
        except (ValueError, LookupError, TypeError) as error:
            raise Unanswered(f"the reply is no chat completion: {self._shown(answer)}") from error

    def _check_status(self, answer: httpx.Response) -> None:
        """Raise Unanswered for a status that may pass, RunFailure (BadSpec) for another than success."""
        status = answer.status_code
        if answer.is_success:
            return
        if status >= 500 or status in TRANSIENT:
            raise Unanswered(f"{status} {answer.reason_phrase}", retry_after(answer.headers.get("Retry-After", "")))
        hint = (
            "correct judge.url and judge.model in spec.rewards: the server has POST URL/chat/completions for this model"
        )
        if status in (401, 403):
            secret = self._judge.api_key_secret
            named = (
                f"the key api-key of the Secret {secret} in this namespace"
                if secret
                else "judge.apiKeySecret in spec.rewards"
            )
            hint = f"{'correct' if secret else 'set'} {named}"
        raise RunFailure(
            FailureClass.BAD_SPEC, f"{self._where} answers {status} {answer.reason_phrase}: {self._shown(answer)}", hint
        )

    def _shown(self, answer: httpx.Response) -> str:
        """Return the beginning of a reply, without the key, which a server may repeat."""
        text = answer.text.replace(self._key, "***") if self._key else answer.text
        return text[:SHOWN]

    def _failed(self, problem: str) -> RunFailure:
        return RunFailure(FailureClass.JUDGE_FAILED, f"{self._where}: {problem}")


def values_of(completion: Completion) -> dict[str, Any]:
    """Return what a rubric can name: the columns of the row, the prompt as text, and the completion."""
    return {**completion.columns, "prompt": text_of(completion.prompt), "completion": completion.text}


def text_of(prompt: Prompt) -> str:
    """Return a prompt as text: a single message as it is, several with their roles."""
    if isinstance(prompt.prompt, str):
        return prompt.prompt
    messages = [(str(each["role"]), str(each.get("content") or "")) for each in prompt.prompt]
    if len(messages) == 1:
        return messages[0][1]
    return "\n\n".join(f"{role}: {content}" for role, content in messages)


def open_judge(reward: Reward, setup: Setup) -> Rate:
    """Return the client of a judge. Raises RunFailure (BadSpec) for an API key that no header can carry."""
    assert reward.judge is not None, "a rule of Reward"
    variable = judge_key_variable((setup.job.rewards or []).index(reward))
    if reward.judge.api_key_secret:
        credentials.check([variable], FailureClass.BAD_SPEC)
    return JudgeClient(reward.name, reward.judge, os.environ.get(variable)).rate


def check(reward: Reward, _: Work) -> Callable[[Prompt], None]:
    """Return what raises RowError for a row without a column of the rubric."""
    assert reward.judge is not None, "a rule of Reward"
    fill = filler(reward.judge.rubric, f"judge.rubric of {reward.name} in spec.rewards")

    def check_prompt(prompt: Prompt) -> None:
        fill(values_of(Completion("", 0, 0, prompt)))

    return check_prompt


JUDGE = Scorer(RewardType.JUDGE, open_judge, check)
