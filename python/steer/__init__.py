"""Read and steer language models through their internals, and measure what it costs.

    import steer
    model = steer.Model.from_pretrained("examples/data/demo")
    sae = steer.SAE.load("examples/data/demo/sae.safetensors")
    with model.steer({sae.feature(330): +6.0}):
        print(model.generate("In the land of Pelia,", max_new_tokens=40))
"""

from __future__ import annotations

from . import _torch as _torch  # first: loads torch, and checks that it is the right one

from ._build import VERSION as __version__
from ._core import (
    SAE,
    AutoSteer,
    AutoSteerOptions,
    AutoSteerResult,
    AutoSteerTrial,
    CalibratedStrength,
    ChatTemplate,
    Condition,
    Edit,
    EditAudit,
    Engine,
    FeatureLabels,
    GenerateResult,
    HookCall,
    HookHandle,
    Inspection,
    ModelConfig,
    Scope,
    Session,
    SteeringAudit,
    Steering,
    Tokenizer,
    difference_of_means,
    from_hosted_variant,
    from_vllm_json,
    hook_point,
    logistic_probe,
    principal_direction,
    set_threads,
    threads,
)
from ._errors import Error
from .cache import ActivationCache
from .feature import Feature, as_steering
from .model import Model

__all__ = [
    "ActivationCache",
    "AutoSteer",
    "AutoSteerOptions",
    "AutoSteerResult",
    "AutoSteerTrial",
    "CalibratedStrength",
    "ChatTemplate",
    "Condition",
    "Edit",
    "EditAudit",
    "Engine",
    "Error",
    "Feature",
    "FeatureLabels",
    "GenerateResult",
    "HookCall",
    "HookHandle",
    "Inspection",
    "Model",
    "ModelConfig",
    "SAE",
    "Scope",
    "Session",
    "Steering",
    "SteeringAudit",
    "Tokenizer",
    "__version__",
    "as_steering",
    "difference_of_means",
    "from_hosted_variant",
    "from_vllm_json",
    "hook_point",
    "logistic_probe",
    "principal_direction",
    "set_threads",
    "threads",
]
