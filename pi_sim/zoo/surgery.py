"""Surgery: swap the norms, activations, attention and FFNs of a Hugging Face causal language model.

A plan is a table such as {"norm": "none", "final_norm": "none", "activation": "relu"}, the switches of
`pi_sim.specs.Surgery`; what it does not name is left as it is. Weights that a switch does not replace stay untouched.

Plans may follow one another. What all of them made of the family's own model is one plan again: it travels in
config.json under `pi_sim`, from which `zoo.build.load` rebuilds the same model.

Tested on GPT-2, GPT-NeoX, OPT, Llama, Mistral, Qwen2 and Qwen3. In other families a switch is carried out where that
takes no knowledge of their own, such as norm = none, and refused where it does.
"""

from typing import Any

from transformers import PreTrainedModel

from pi_sim import specs
from pi_sim.specs.designs import DEPENDENT_SETTINGS, REQUIRES, Surgery
from pi_sim.zoo.swaps import SWAPS

Plan = dict[str, Any]


def apply_surgery(model: PreTrainedModel, plan: Plan) -> PreTrainedModel:
    """Carry out the plan on the model, in place, and record in the model's config what it is now.

    Raises `UsageError` for an unknown switch, for one that this model has no place for, and for what no model can be.
    """
    switches = specs.validate_table(Surgery, plan, "surgery")
    after = _combined_surgery(getattr(model.config, "pi_sim", {}), switches)
    for switch, swap in SWAPS.items():
        if switch in switches.plan():
            swap(model, switches)
    model.config.pi_sim = after.plan()
    return model


def affected_switches(plan: Plan) -> set[str]:
    """The switches that a plan decides: those that it names, and the settings of these."""
    return {*plan, *(setting for setting in DEPENDENT_SETTINGS if not plan.keys().isdisjoint(REQUIRES[setting][0]))}


def _combined_surgery(known: Plan, switches: Surgery) -> Surgery:
    """What a model is after both: a switch replaces the same one with its settings, and dropped FFNs stay dropped."""
    chosen = switches.model_dump(mode="json", exclude_unset=True)
    kept = {switch: value for switch, value in known.items() if switch not in affected_switches(chosen)}
    if "dropped_ffn" in chosen:
        chosen["dropped_ffn"] = sorted({*known.get("dropped_ffn", []), *chosen["dropped_ffn"]})
    return specs.validate_table(Surgery, {**kept, **chosen}, "the model after this surgery")
