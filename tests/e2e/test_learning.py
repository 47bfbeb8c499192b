"""Auto-learning as a community sees it: people chat with a model, good answers become data, two volunteers train on
them, and the better version answers the next chat. Through the command line, REST and OpenAI's own client only."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from cotrain.chat_form import conversation_text
from tests.system import System, running_system
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

NAME = "Talks"
ANSWERS = {
    "gardens": "Gardens are quiet places where flowers grow in the summer.",
    "bread": "Good bread needs flour, water and a lot of time to rest.",
    "rivers": "Rivers carry their cold water down to the sea.",
    "winter": "In winter people stay at home and light a warm fire.",
    "music": "Music brings people together, and nobody is alone.",
    "schools": "Schools teach children to read, and they find friends.",
}
QUESTIONS = (
    "What can you tell me about {}?", "Please explain {} to me.", "I want to learn about {}.",
    "Why do people like {}?", "Say something about {}, please.",
)  # fmt: skip
GRUMBLES = ("Do you hate {}?", "{0} {0} {0}?", "Is {} bad?", "No {}!", "Stop it with {}!")
GOOD = [(form.format(one), answer) for form in QUESTIONS for one, answer in ANSWERS.items()]
POOR = [(form.format(one), "no no no no no no no") for form in GRUMBLES for one in ANSWERS]

LEARNING = """
[learning]
model = "Talks"
held_out_share = 0.2
variations_per_sample = 0

[learning.request.distributed]
nodes = 2
minPeers = 2

[learning.request.training]
batchSize = 16
gradientAccumulationSteps = 1
learningRate = 0.0003
maxSteps = 16
warmupSteps = 2
enableEarlyStopping = false

[learning.request.diloco]
innerSteps = 8
"""


def first_lessons(folder: Path) -> None:
    """What the first version learns: good answers to questions, poor ones to grumbling, in many orders."""
    folder.mkdir(parents=True)
    for name, times in (("train", 20), ("validation", 1)):
        with (folder / f"{name}.jsonl").open("w") as file:
            for turn in range(times):
                pairs = [*GOOD, *POOR]
                random.Random(turn).shuffle(pairs)
                for question, answer in pairs:
                    text = conversation_text([("user", question), ("assistant", answer)])
                    file.write(json.dumps({"text": text}) + "\n")


def train_first_version(system: System, shared: Path) -> str:
    """A version that answers, if not always to the point; returns the model's id."""
    first_lessons(shared / "datasets" / "raw" / "talks")
    session = system.open_session({
        "name": NAME,
        "training": {
            "batchSize": 6, "gradientAccumulationSteps": 1, "learningRate": 0.005, "maxSteps": 320, "warmupSteps": 20,
            "enableEarlyStopping": False,
        },
        "diloco": {"innerSteps": 80},
        "data": {"dataPath": "raw/talks", "seqLength": 160},
    })  # fmt: skip
    node = system.start_node("teacher", session["url"])
    path = f"/api/v1/sessions/{session['id']}"
    wait_until(lambda: system.get(path)["status"] == "completed", limit_s=240, what="the first version is trained")
    wait_until(lambda: node.popen.poll() is not None, limit_s=30, what="the teacher has left")
    (model,) = system.get("/api/v1/models")["items"]
    return str(model["id"])


def chat(client: openai.OpenAI, model: str, question: str, *, consent: bool = True) -> Any:
    return client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], temperature=0, max_tokens=90,
        extra_body={"consent": consent},
    )  # fmt: skip


def rate(client: openai.OpenAI, answer: str, rating: int) -> None:
    client.post("/feedback", body={"id": answer, "rating": rating}, cast_to=object)


def learning_session(system: System) -> str | None:
    """The session that the cycle has opened, once nodes can join it."""
    last = system.get("/api/v1/learning")["last"]
    if last is None or last["sessionId"] is None:
        return None
    view = system.get(f"/api/v1/sessions/{last['sessionId']}")
    return str(view["url"]) if view["status"] == "waiting" else None


def test_chats_make_the_next_version_of_the_model(tmp_path: Path) -> None:
    config = tmp_path / "coordinator.toml"
    config.write_text(LEARNING)
    with running_system(tmp_path) as system:
        coordinator = system.start_coordinator(options=("--config", str(config)))
        model = train_first_version(system, coordinator.shared)

        client = openai.OpenAI(base_url=f"{system.url}/v1", api_key=system.token, max_retries=2, timeout=120)
        assert [one.id for one in client.models.list()] == [model, f"{model}:1"]
        with ThreadPoolExecutor(8) as people:
            questions = [question for question, _ in [*GOOD, *POOR]]
            answers = list(people.map(lambda question: chat(client, model, question), questions))
        assert all(answer.model == f"{model}:1" for answer in answers)
        chat(client, model, "This stays between us.", consent=False)
        rate(client, answers[0].id, 1)
        assert system.get("/api/v1/learning")["chats"] == len(questions) == 60

        command = ["learn", "run", "--json", "--config", str(config), "--url", system.url]
        learn = system.start("learn", command, shared=coordinator.shared)
        url = wait_until(lambda: learning_session(system), limit_s=120, what="the cycle has opened a session")
        for name in ("ada", "grace"):
            system.start_node(name, url)
        wait_until(lambda: learn.popen.poll() is not None, limit_s=300, what="the cycle has ended")
        assert learn.popen.returncode == 0, learn.output()

        cycle = json.loads(learn.output().splitlines()[-1])
        assert cycle["chats"] == 60
        assert 10 <= cycle["good"] < 60, cycle
        assert cycle["good"] + sum(cycle["refused"].values()) == 60
        assert cycle["heldOut"] >= 1
        assert cycle["outcome"] == "promoted", cycle["message"]
        assert cycle["newLoss"] < cycle["oldLoss"]
        contributors = system.get(f"/api/v1/contributors?session={cycle['sessionId']}")["items"]
        assert len(contributors) == 2
        assert all(one["samples"] > 0 for one in contributors)

        assert system.get("/api/v1/learning")["chats"] == 0
        assert system.get(f"/api/v1/models/{model}")["promotedVersion"] == 2
        wait_until(  # the old version answers until the new one is loaded
            lambda: chat(client, model, "What can you tell me about bread?").model == f"{model}:2", limit_s=120,
            what="the new version answers",
        )  # fmt: skip
