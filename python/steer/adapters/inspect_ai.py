"""A model provider for inspect_ai.

    inspect eval task.py --model steer/path/to/model -M steering=funny.json
"""

from __future__ import annotations

import asyncio
from typing import Any

from inspect_ai.model import (
    ChatCompletionChoice, ChatMessage, ChatMessageAssistant, GenerateConfig, ModelAPI, ModelOutput, ModelUsage, modelapi,
)  # fmt: skip

from .._core import SAE, GenerateResult, Steering
from .._errors import Error
from ..model import Model

_STOPS = {"stop_token": "stop", "stop_string": "stop", "length": "max_tokens", "context": "model_length"}


class SteerAPI(ModelAPI):
    """Answers chats on one steered model. Generation runs in a thread; calls take turns."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),
        steering: str | Steering | None = None,
        sae: str | None = None,
        **model_args: Any,
    ) -> None:
        """model_name: a path. steering: a file; sae: what it refers to by hash alone. model_args: those of
        Model.from_pretrained."""
        super().__init__(model_name, base_url, api_key, [], config)
        self.steered = Model.from_pretrained(model_name, **model_args)
        saes = [SAE.load(sae)] if sae else []
        self.steering = Steering.load(steering, saes=saes) if isinstance(steering, str) else steering

    async def generate(self, input: list[ChatMessage], tools: Any, tool_choice: Any, config: GenerateConfig) -> ModelOutput:
        if tools:
            raise Error("[inspect_ai] expected no tools: steer runs chat templates without them", "unsupported")
        chat = [{"role": m.role, "content": m.text} for m in input]
        options: dict[str, Any] = dict(
            max_new_tokens=config.max_tokens or 256, stop=list(config.stop_seqs or ()), seed=config.seed or 0,
            steering=self.steering, return_type="results",
        )  # fmt: skip
        if config.temperature is not None:
            options.update(do_sample=config.temperature > 0, temperature=config.temperature)
        if config.top_p is not None:
            options["top_p"] = config.top_p
        if config.top_k is not None:
            options["top_k"] = config.top_k
        prompt = self.steered.chat.render(chat)[1]
        (result,) = await asyncio.to_thread(self.steered.generate, [prompt], **options)
        return self._output(result, len(prompt))

    def _output(self, result: GenerateResult, prompt: int) -> ModelOutput:
        message = ChatMessageAssistant(content=result.text, source="generate", model=self.model_name)
        edits = [{"edit": e.edit, "seen": e.seen, "edited": e.edited, "mean_change": e.mean_change} for e in result.audit.edits]
        new = len(result.ids)
        return ModelOutput(
            model=self.model_name,
            choices=[ChatCompletionChoice(message=message, stop_reason=_STOPS.get(result.finish, "unknown"))],  # type: ignore[arg-type]
            usage=ModelUsage(input_tokens=prompt, output_tokens=new, total_tokens=prompt + new),
            metadata={"steering_audit": edits, "warnings": list(result.warnings)},
        )

    def max_connections(self) -> int:
        return 1


@modelapi(name="steer")
def steer() -> type[ModelAPI]:
    """For inspect_ai's registry."""
    return SteerAPI
