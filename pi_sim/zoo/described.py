"""Which of Hugging Face's model classes a config describes."""

from typing import Any

import transformers
from transformers.models.auto import modeling_auto

from pi_sim.errors import UsageError

FALLBACK_MODEL_MAPPINGS = (
    modeling_auto.MODEL_FOR_MASKED_LM_MAPPING,
    modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING,
    modeling_auto.MODEL_MAPPING,
)
"""What a family is used for where its config does not say; encoders, which fill in masks, have a causal form too."""


def model_class(config: Any) -> Any:
    """The class that the config's `architectures` name, or else the usual one of its family."""
    for name in config.architectures or ():
        found = getattr(transformers, str(name), None)
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            return found
    usual = next((mapping[type(config)] for mapping in FALLBACK_MODEL_MAPPINGS if type(config) in mapping), None)
    if usual is None:
        raise UsageError(f"transformers has no model for a config of type {config.model_type!r} alone.")
    return usual[0] if isinstance(usual, tuple) else usual
