"""goodfire 0.3.5, unmodified: every public method against the server. Cases of cases.py."""
import asyncio
from uuid import UUID

QUESTION = "In the land of Pelia, what is the feast?"
FEATURE = 330


def client(serving):
    import goodfire
    return goodfire.Client(api_key="none", base_url=serving.url)


def chat(client, variant, **more):
    answer = client.chat.completions.create([{"role": "user", "content": QUESTION}], model=variant, temperature=0,
                                            max_completion_tokens=24, **more)
    return answer.choices[0].message["content"]


def refused(call, error, word):
    try:
        call()
    except error as got:
        assert word in str(got), got
    else:
        raise AssertionError(f"expected {error.__name__}")


def case_goodfire_features(serving):
    """goodfire: search, rerank, lookup, neighbours and lists agree on features"""
    api = client(serving).features
    hits = list(api.search("feast", model="demo", top_k=8))
    assert hits and all("feast" in hit.label for hit in hits[:1]), hits
    looked_up = api.lookup([hit.index_in_sae for hit in hits], model="demo")
    assert [UUID(str(looked_up[hit.index_in_sae].uuid)) for hit in hits] == [UUID(str(hit.uuid)) for hit in hits]
    ranked = list(api.rerank(type(api.search("feast", model="demo"))(list(reversed(hits))), "feast", model="demo", top_k=3))
    assert {one.index_in_sae for one in ranked} <= {hit.index_in_sae for hit in hits} and len(ranked) == min(3, len(hits))
    near = list(api.neighbors(hits[0], model="demo", top_k=5))
    assert len(near) == 5 and hits[0].index_in_sae not in [one.index_in_sae for one in near]


def case_goodfire_chat(serving):
    """goodfire: chats with a variant, streamed as whole; nudges act; a plain variant does nothing"""
    import goodfire
    c = client(serving)
    plain = goodfire.Variant("demo")
    steered = goodfire.Variant("demo")
    feature = c.features.lookup([FEATURE], model="demo")[FEATURE]
    steered.set(feature, 2.0)
    assert chat(c, plain) == chat(c, "demo")
    assert chat(c, steered) != chat(c, plain)
    for variant in (plain, steered):
        pieces = [event.choices[0].delta.content for event in c.chat.completions.create(
            [{"role": "user", "content": QUESTION}], model=variant, temperature=0, max_completion_tokens=24, stream=True)]
        assert "".join(pieces) == chat(c, variant) and len(pieces) > 3, pieces
    logits = c.chat.logits([{"role": "user", "content": QUESTION}], model=steered, top_k=4).logits
    assert len(logits) == 4 and logits != c.chat.logits([{"role": "user", "content": QUESTION}], model="demo", top_k=4).logits


def case_goodfire_same_as_own(serving):
    """goodfire: a nudge there is the same steering as ours, in units of the maximum activation"""
    import json
    import urllib.request
    import goodfire
    c = client(serving)
    variant = goodfire.Variant("demo")
    variant.set(c.features.lookup([FEATURE], model="demo")[FEATURE], 2.0)
    body = {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_completion_tokens": 24,
            "steering": {"feature": FEATURE, "strength": 2.0, "unit": "max_activation"}}
    request = urllib.request.Request(serving.url + "/v1/chat/completions", json.dumps(body).encode())
    with urllib.request.urlopen(request) as answer:
        ours = json.load(answer)["choices"][0]["message"]["content"]
    assert chat(c, variant, system_prompt="") == ours


def case_goodfire_conditions(serving):
    """goodfire: conditionals act where they hold; abort_when raises the client's exception"""
    import goodfire
    c = client(serving)
    feature = c.features.lookup([FEATURE], model="demo")[FEATURE]
    never, always, abort = (goodfire.Variant("demo") for _ in range(3))
    never.set_when(feature > 1e6, {feature: 2.0})
    always.set_when(feature > -1e6, {feature: 2.0})
    plain, steered = goodfire.Variant("demo"), goodfire.Variant("demo")
    steered.set(feature, 2.0)
    assert chat(c, never) == chat(c, plain)
    assert chat(c, always) == chat(c, steered)
    abort.abort_when(feature > -1e6)
    from goodfire import InferenceAbortedException
    try:
        chat(c, abort)
    except InferenceAbortedException:
        pass
    else:
        raise AssertionError("expected InferenceAbortedException")


def case_goodfire_inspect(serving):
    """goodfire: inspect, activations, contrast, attribute"""
    import goodfire
    c = client(serving)
    messages = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "The feast is in the autumn."}]
    other = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "No."}]
    seen = c.features.inspect(messages, model="demo", aggregate_by="max")
    top = seen.top(k=5)
    assert len(list(top)) == 5 and len(seen.tokens) > 5
    steered = goodfire.Variant("demo")
    feature = c.features.lookup([FEATURE], model="demo")[FEATURE]
    steered.set(feature, 2.0)
    there = {a.feature.index_in_sae: a.activation for a in c.features.inspect(messages, model=steered, aggregate_by="max").top(k=50)}
    here = {a.feature.index_in_sae: a.activation for a in seen.top(k=50)}
    assert there.get(FEATURE, 0) > here.get(FEATURE, 0), (there, here)
    assert c.features.activations(messages, model="demo").shape[0] == len(seen.tokens)
    ones, others = c.features.contrast(dataset_1=[messages], dataset_2=[other], model="demo", top_k=3)
    assert len(list(ones)) == 3 and len(list(others)) == 3
    several = c.features.contrast(dataset_1=[messages, messages[:1]], dataset_2=[other, other], model="demo")
    assert len(several) == 2
    found = c.features.attribute(messages, 5, model="demo")
    assert found.num_input_tokens == len(seen.tokens) and len(found.features) > 0


def case_goodfire_auto(serving):
    """goodfire: AutoConditional answers; AutoSteer answers with edits or the client's exception and a sentence"""
    import goodfire
    from goodfire.api.exceptions import InvalidRequestException
    c = client(serving)
    condition = c.features.AutoConditional("the text speaks of a feast", model="demo")
    variant = goodfire.Variant("demo")
    variant.set_when(condition, {c.features.lookup([FEATURE], model="demo")[FEATURE]: 1.0})
    assert isinstance(chat(c, variant), str)
    try:
        edits = c.features.AutoSteer("be more concise", model="demo")
        assert c.features.AutoSteer("be more concise", model="demo") == edits  # kept: a search has one outcome
        steered = goodfire.Variant("demo")
        steered.set(edits)
        assert chat(c, steered) != chat(c, "demo")
        print("        edits:", edits)
    except InvalidRequestException as refusal:
        assert "Auto Steer found no steering" in str(refusal), refusal
        print("        refused:", refusal)


def case_goodfire_refusals(serving):
    """goodfire: what cannot be served is the client's own exception with a sentence"""
    from goodfire.api.exceptions import InvalidRequestException, NotFoundException
    c = client(serving)
    feature = c.features.lookup([FEATURE], model="demo")[FEATURE]
    refused(lambda: c.features.search("feast", model="nobody") and chat(c, "nobody"), NotFoundException, "does not exist")
    refused(lambda: c.features.lookup([10 ** 9], model="demo"), InvalidRequestException, "indices")
    refused(lambda: c.features.generate_contrastive_stimulus("be kind"), InvalidRequestException, "contrastive")
    import goodfire
    variant = goodfire.Variant("demo")
    variant.set_when(feature > feature, {feature: 1.0})
    refused(lambda: chat(c, variant), InvalidRequestException, "number")


def case_goodfire_async(serving):
    """goodfire, asynchronous: 171 chats at once, as the study opens them"""
    import goodfire
    variant = goodfire.Variant("demo")

    async def all_of():
        c = goodfire.AsyncClient(api_key="none", base_url=serving.url)
        ask = lambda: c.chat.completions.create([{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}],
                                                model=variant, temperature=0, max_completion_tokens=8)
        return await asyncio.gather(*(ask() for _ in range(171)))

    answers = asyncio.run(all_of())
    assert len(answers) == 171 and len({answer.choices[0].message["content"] for answer in answers}) == 1
