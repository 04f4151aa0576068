"""The cases of run.py: cases.py SERVER SCORE SOURCE WORK. Prints what each client did, and counts cases."""
import asyncio
import json
import os
import pathlib
import re
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from counted_cases import end, run_cases
from docs_cases import *
from goodfire_cases import *  # more of them

os.environ["NO_PROXY"] = "127.0.0.1,localhost"
SERVER, SCORE, SOURCE, WORK = (pathlib.Path(argument) for argument in sys.argv[1:5])
DEMO = SOURCE / "examples/data/demo"
NUDGE = {"feature": 330, "strength": 6.0}
QUESTION = "In the land of Pelia, what is the feast?"


class Serving:
    """The program on a free port, with the demo model; ends with the block."""
    program, docs, work = SERVER, SOURCE / "docs", WORK

    def __init__(self, *arguments, key=None):
        steering = WORK / "imaginative.json"
        hash_of_sae = self.sae_hash()
        steering.write_text(json.dumps({
            "format": "steer.steering", "version": 1,
            "saes": {hash_of_sae: {"path": str((DEMO / "sae.safetensors").resolve())}},
            "edits": [{"kind": "nudge", "point": "blocks.1.hook_resid_post", "sae": hash_of_sae, "feature": 330,
                       "value": 6.0}]}))
        command = [SERVER, "--port", "0", "--model", DEMO, "--name", "demo", "--sae", f"demo={DEMO}/sae.safetensors",
                   "--labels", DEMO / "labels.jsonl", "--steering", f"imaginative={steering}", *arguments]
        self.start(command, key)

    def start(self, command, key):
        variables = dict(os.environ)
        variables.pop("STEER_API_KEY", None)
        if key:
            variables["STEER_API_KEY"] = key
        self.log = open(WORK / "server.log", "w")
        self.process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=self.log, text=True,
                                        env=variables)
        line = self.process.stdout.readline()
        self.url = re.search(r"http://\S+", line).group(0)

    @staticmethod
    def sae_hash():
        """As the server says it."""
        if not hasattr(Serving, "known"):
            probe = Serving.__new__(Serving)
            probe.start([SERVER, "--port", "0", "--model", DEMO, "--sae", f"demo={DEMO}/sae.safetensors"], None)
            with probe, urllib.request.urlopen(probe.url + "/v1/steerings") as answer:
                Serving.known = json.load(answer)["saes"][0]["hash"]
        return Serving.known

    def another(self, *arguments):
        return Serving(*arguments)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        assert self.process.wait(60) == 0, "the server did not end as it should"
        self.log.close()


def score(items):
    """log p of texts' tails by steer's own scorer."""
    lines = "".join(json.dumps(item) + "\n" for item in items)
    done = subprocess.run([SCORE, DEMO, DEMO / "sae.safetensors"], input=lines, capture_output=True, text=True, check=True)
    return [float(line) for line in done.stdout.split()]


def close(a, b, tolerance=1e-4):
    assert len(a) == len(b) and all(abs(x - y) <= tolerance for x, y in zip(a, b)), f"{a[:4]} and {b[:4]} differ"


def texts_of_mmlu(count):
    """(context, continuation) of multiple-choice items: MMLU's, or the demo's own questions."""
    folder = pathlib.Path(os.environ.get("STEER_MMLU", SOURCE / "../shared/data/mmlu"))
    items = []
    for path in sorted(folder.glob("test/*.csv"))[:8]:
        import csv
        for row in list(csv.reader(path.open()))[:5]:
            question = row[0][:300] + "".join(f"\n{letter}. {text[:80]}" for letter, text in zip("ABCD", row[1:5]))
            items.append((question + "\nAnswer:", f" {row[5]}"))
    for line in (DEMO / "questions.jsonl").read_text().splitlines():
        items.append((json.loads(line)["question"] + "\nAnswer:", " A"))
    return items[:count]


# ---- the cases

def case_curl(serving):
    """curl: a body without a content type, a stream, a status."""
    curl = lambda *more: subprocess.run(["curl", "-sS", "--noproxy", "*", *more], capture_output=True, text=True, check=True).stdout
    whole = json.loads(curl(serving.url + "/v1/completions", "-d", json.dumps(
        {"prompt": QUESTION, "max_tokens": 8, "temperature": 0, "steering": NUDGE})))
    assert whole["usage"]["steering"]["fired"], whole
    stream = curl("-N", serving.url + "/v1/completions", "-d",
                  json.dumps({"prompt": QUESTION, "max_tokens": 8, "temperature": 0, "stream": True, "steering": NUDGE}))
    pieces = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
    assert "".join(piece["choices"][0]["text"] for piece in pieces) == whole["choices"][0]["text"]
    assert curl("-o", "/dev/null", "-w", "%{http_code}", serving.url + "/nothing") == "404"


def curl_stream(serving, rows, file):
    body = {"prompt": "In the land", "max_tokens": 400, "n": rows, "temperature": 1, "ignore_eos": True, "stream": True}
    return subprocess.Popen(["curl", "-sSN", "--noproxy", "*", serving.url + "/v1/completions", "-d", json.dumps(body)],
                            stdout=file)


def rows_of(serving):
    with urllib.request.urlopen(serving.url + "/health") as answer:
        health = json.load(answer)
    return health["rows_running"] + health["rows_waiting"]


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def case_killed_client(serving):
    """curl killed in the middle of its stream: its rows are freed."""
    client = curl_stream(serving, 64, subprocess.PIPE)
    assert client.stdout.read(200)
    assert rows_of(serving) > 0
    client.kill()
    client.wait()
    until(lambda: rows_of(serving) == 0)


def case_stopped_under_load(_):
    """SIGTERM under load: answers under way are told, the program ends with 0."""
    files = [WORK / f"stream{i}" for i in range(4)]
    with Serving("--grace", "0.2") as serving:
        clients = [curl_stream(serving, 64, file.open("w")) for file in files]
        until(lambda: rows_of(serving) >= 200)
    assert [client.wait(60) for client in clients] == [0] * 4, "a connection was broken"
    for file in files:
        last = file.read_text().rstrip().splitlines()[-1]
        assert "the server has stopped" in last, last


def case_openai(serving):
    """openai: chat, completions, logprobs, n, a stream with usage, errors by their class."""
    import openai
    client = openai.OpenAI(base_url=serving.url + "/v1", api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == ["demo", "demo+imaginative"]
    messages = [{"role": "user", "content": QUESTION}]
    ask = dict(model="demo", messages=messages, temperature=0, max_completion_tokens=24)
    plain = client.chat.completions.create(**ask, logprobs=True, top_logprobs=3)
    assert plain.choices[0].finish_reason in ("stop", "length")
    tokens = plain.choices[0].logprobs.content
    assert len(tokens) == plain.usage.completion_tokens and all(len(token.top_logprobs) == 3 for token in tokens)
    assert all(token.top_logprobs[0].token == token.token for token in tokens)  # greedy
    assert "".join(token.token for token in tokens).strip() in plain.choices[0].message.content
    steered = client.chat.completions.create(**ask, extra_body={"steering": NUDGE})
    assert steered.choices[0].message.content != plain.choices[0].message.content
    assert steered.usage.model_extra["steering"]["edits"][0]["edited"] > 0
    by_name = client.chat.completions.create(**{**ask, "model": "demo+imaginative"})
    assert by_name.choices[0].message.content == steered.choices[0].message.content
    text, usage = "", None
    for chunk in client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}):
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        usage = chunk.usage or usage
    assert text == plain.choices[0].message.content and usage.total_tokens == plain.usage.total_tokens
    many = client.completions.create(model="demo", prompt=[QUESTION, "In the land"], n=2, max_tokens=6, seed=1, stop=["\n"])
    assert [choice.index for choice in many.choices] == [0, 1, 2, 3]
    for change, error in (({"model": "gpt-4o"}, openai.NotFoundError), ({"temperature": -1}, openai.BadRequestError),
                          ({"messages": []}, openai.BadRequestError),
                          ({"extra_body": {"steering": "nobody"}}, openai.NotFoundError),
                          ({"extra_body": {"steering": {**NUDGE, "scope": {"where": "span", "begin": 400, "end": 401}},
                                           "require_fired": True}}, openai.UnprocessableEntityError),
                          ({"timeout": 0.02, "max_completion_tokens": 400, "n": 64, "extra_body": {"ignore_eos": True}},
                           openai.APITimeoutError)):
        try:
            client.chat.completions.create(**{**ask, **change})
            raise AssertionError(f"expected {error.__name__} for {change}")
        except error:
            pass
    try:
        client.chat.completions.create(**ask, response_format={"type": "json_object"})
        raise AssertionError("expected response_format to be refused")
    except openai.BadRequestError as refused:
        assert refused.param == "response_format", refused


def case_openai_async(serving):
    """openai, asynchronous: 40 chats at once, each steered in its own way, as one after another."""
    import openai
    bodies = [{"steering": {"feature": 17 * i % 768, "strength": 0.2 * i}} for i in range(40)]

    async def all_of(at_once):
        async with openai.AsyncOpenAI(base_url=serving.url + "/v1", api_key="none", max_retries=0) as client:
            ask = lambda body: client.completions.create(model="demo", prompt=QUESTION, temperature=0, max_tokens=12, extra_body=body)
            answers = await asyncio.gather(*map(ask, bodies)) if at_once else [await ask(body) for body in bodies]
            return [answer.choices[0].text for answer in answers]

    together, alone = asyncio.run(all_of(True)), asyncio.run(all_of(False))
    assert together == alone and len(set(alone)) > 5


def case_openai_key(_):
    """openai with a key: wrong and right."""
    import openai
    with Serving(key="the-key") as serving:
        for key, status in (("the-kez", 401), ("the-key", 200)):
            try:
                openai.OpenAI(base_url=serving.url + "/v1", api_key=key, max_retries=0).models.list()
                assert status == 200
            except openai.AuthenticationError:
                assert status == 401
    assert "the-k" not in (WORK / "server.log").read_text()


def case_lm_eval(serving):
    """lm-eval, local-completions: log-likelihoods of 40 items equal steer's own score, steered and not."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI
    items = texts_of_mmlu(40)
    for name, steering in (("demo", {}), ("demo+imaginative", {"feature": 330, "strength": 6.0})):
        api = LocalCompletionsAPI(model=name, base_url=serving.url + "/v1/completions", tokenizer_backend="remote",
                                  num_concurrent=4, batch_size=4, max_length=512)
        instances = [Instance("loglikelihood", {}, item, i) for i, item in enumerate(items)]
        answers = api.loglikelihood(instances)
        expected = []
        for context, continuation in items:
            begin, ids = api._encode_pair(context, continuation)
            expected.append({"ids": (begin + ids)[-511:], "begin": len(begin), **steering})
        close([answer[0] for answer in answers], score(expected))
        assert {type(answer[1]) for answer in answers} == {bool}


def case_lm_eval_chat(serving):
    """lm-eval, local-chat-completions: generation until a stop string."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalChatCompletion
    api = LocalChatCompletion(model="demo", base_url=serving.url + "/v1/chat/completions", num_concurrent=1)
    chat = api.apply_chat_template([{"role": "user", "content": QUESTION}])
    texts = api.generate_until([Instance("generate_until", {}, (chat, {"until": ["</thinking>"], "max_gen_toks": 40}), 0)])
    assert texts[0] and "</thinking>" not in texts[0], texts


def case_inspect(serving):
    """inspect-ai with the OpenAI-compatible provider: a task of two questions, scored."""
    os.environ.update(STEER_BASE_URL=serving.url + "/v1", STEER_API_KEY="none", INSPECT_LOG_DIR=str(WORK / "inspect"))
    from inspect_ai import Task, eval
    from inspect_ai.dataset import Sample
    from inspect_ai.scorer import includes
    task = Task(dataset=[Sample(input=QUESTION, target="a"), Sample(input="What is the river of Pelia?", target="e")],
                scorer=includes())
    log = eval(task, model="openai-api/steer/demo", max_tokens=32, display="none", temperature=0)[0]
    assert log.status == "success" and len(log.samples) == 2, log.error
    os.environ.pop("STEER_API_KEY")


def case_auto_steer_job(serving):
    """Auto Steer as a job: its events end with the result; one that was cancelled stays so"""
    def call(path, body=None, method=None):
        request = urllib.request.Request(serving.url + path, json.dumps(body).encode() if body else None, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.read().decode()
    job = json.loads(call("/v1/auto_steer", {"behaviour": "concise"}))
    other = json.loads(call("/v1/auto_steer", {"behaviour": "formal"}))
    assert json.loads(call(f"/v1/auto_steer/{other['id']}", method="DELETE"))["status"] == "cancelled"
    events = [json.loads(line[6:]) for line in call(f"/v1/auto_steer/{job['id']}/events").splitlines() if line.startswith("data: {")]
    assert [event["status"] for event in events[:-1]] == ["running"] * (len(events) - 1) and events[-1]["status"] == "done"
    assert events[-1]["result"]["verdict"] and "<svg" in events[-1]["result"]["curve_svg"]
    assert json.loads(call(f"/v1/auto_steer/{other['id']}"))["status"] == "cancelled"


def case_auto_steer_safe(serving):
    """Auto Steer in mode safe: bounds, a certificate of questions of its own; a search under way ends when cancelled"""
    def call(path, body=None, method=None):
        request = urllib.request.Request(serving.url + path, json.dumps(body).encode() if body else None, method=method)
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.loads(answer.read())
    lines = (DEMO / "questions_dev.jsonl").read_text().splitlines()
    asked = [json.loads(line) for line in lines]
    def questions(some):
        return [{"message": one["question"] + "\n" + "\n".join(f"{name}. {text}" for name, text in zip("ABCD", one["choices"]))
                 + "\n\nThink step by step inside <thinking> tags, then give the letter of the right choice, and nothing "
                 "else, inside <answer> tags.",
                 "choices": list("ABCD"[:len(one["choices"])]), "right": "ABCD".index(one["answer"])} for one in some]
    body = {"behaviour": "funny", "mode": "safe", "max_tokens": 96, "prompts": [one["message"] for one in questions(asked[:4])],
            "questions": questions(asked[4:8]),
            "certificate": {"questions": questions(asked[8:20]), "accuracy_loss": 0.5, "format_loss": 0.9}}
    job = call("/v1/auto_steer", body)
    while call(f"/v1/auto_steer/{job['id']}")["progress"] == "":
        time.sleep(0.1)
    begun = time.monotonic()
    assert call(f"/v1/auto_steer/{job['id']}", method="DELETE")["status"] == "cancelled"
    job = call("/v1/auto_steer", body)  # waits until the first has ended
    while call(f"/v1/auto_steer/{job['id']}")["progress"] == "":
        time.sleep(0.1)
    assert time.monotonic() - begun < 60, "the cancelled search went on"
    while (state := call(f"/v1/auto_steer/{job['id']}"))["status"] == "running":
        time.sleep(0.5)
    assert state["status"] == "done" and state["mode"] == "safe", state
    result = state["result"]
    assert result["explanation"] and (result["certificate"] or result["verdict"] != "steered"), result
    for bad, field in ((dict(body, questions=[]), "questions"), (dict(body, mode="published"), "certificate"),
                       (dict(body, questions=[{"message": "?", "choices": ["A"], "right": 0}]), "choices")):
        try:
            call("/v1/auto_steer", bad)
        except urllib.error.HTTPError as error:
            assert error.code == 400 and field in error.read().decode(), field
        else:
            raise AssertionError(field)


def main():
    with Serving() as serving:
        counts = run_cases(globals(), serving, only=sys.argv[5] if len(sys.argv) > 5 else "")
    end(*counts)


main()
