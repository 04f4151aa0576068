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
    Arm,
    AutoSteer,
    AutoSteerOptions,
    AutoSteerResult,
    AutoSteerTrial,
    Behaviour,
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
    Judge,
    ModelConfig,
    Question,
    Report,
    SAETrainer,
    Scope,
    Session,
    SteeringAudit,
    Steering,
    Tokenizer,
    difference_of_means,
    from_hosted_variant,
    from_vllm_json,
    hook_point,
    http_judge,
    load_behaviours,
    load_mmlu,
    load_questions,
    logistic_probe,
    principal_direction,
    search_labels,
    set_threads,
    study_behaviours,
    threads,
)
from ._errors import Error
from .cache import ActivationCache
from .experiment import Experiment, auto_steer, frame, judge, logit_judge, request_evidence, search_options
from .feature import Feature, as_steering
from .model import Model
from .tools import calibrate_strength, contrast, inspect, logit_effects, pooled_features, score, train_sae

__all__ = [
    "ActivationCache",
    "Arm",
    "AutoSteer",
    "AutoSteerOptions",
    "AutoSteerResult",
    "AutoSteerTrial",
    "Behaviour",
    "CalibratedStrength",
    "ChatTemplate",
    "Condition",
    "Edit",
    "EditAudit",
    "Engine",
    "Error",
    "Experiment",
    "Feature",
    "FeatureLabels",
    "GenerateResult",
    "HookCall",
    "HookHandle",
    "Inspection",
    "Judge",
    "Model",
    "ModelConfig",
    "Question",
    "Report",
    "SAE",
    "SAETrainer",
    "Scope",
    "Session",
    "Steering",
    "SteeringAudit",
    "Tokenizer",
    "__version__",
    "as_steering",
    "auto_steer",
    "calibrate_strength",
    "contrast",
    "difference_of_means",
    "frame",
    "from_hosted_variant",
    "from_vllm_json",
    "hook_point",
    "http_judge",
    "inspect",
    "judge",
    "load_behaviours",
    "load_mmlu",
    "load_questions",
    "logistic_probe",
    "logit_effects",
    "logit_judge",
    "pooled_features",
    "principal_direction",
    "request_evidence",
    "score",
    "search_labels",
    "search_options",
    "set_threads",
    "study_behaviours",
    "threads",
    "train_sae",
]
