"""Diagnoses against formulas of their own: loops over Python's floats, for models of every family."""

import copy
import math
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    BertConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    OPTConfig,
    PreTrainedModel,
)

from pi_sim import specs
from pi_sim.diagnosis import places
from pi_sim.diagnosis.brief import observe
from pi_sim.diagnosis.entropy import collapsed, entropies, overloaded
from pi_sim.diagnosis.examine import examine
from pi_sim.diagnosis.histogram import BINS, Histogram
from pi_sim.diagnosis.ranges import LIMIT, Quantity
from pi_sim.diagnosis.truncations import failures
from pi_sim.errors import UsageError
from pi_sim.run.diagnose import quantities
from pi_sim.zoo import anatomy
from pi_sim.zoo.attention import IMPLEMENTATIONS
from pi_sim.zoo.layers import DyT, LearnableLeakyReLU
from pi_sim.zoo.scales import Scaled
from pi_sim.zoo.surgery import operate

LAYERS, HEADS, WIDTH, VOCABULARY = 2, 4, 32, 40
WIDE = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "vocab_size": VOCABULARY}
CONFIGS = {
    "gpt2": GPT2Config(n_layer=LAYERS, n_head=HEADS, n_embd=WIDTH, vocab_size=VOCABULARY, eos_token_id=0),
    "gpt_neox": GPTNeoXConfig(**WIDE, intermediate_size=64),
    "opt": OPTConfig(**WIDE, ffn_dim=64, word_embed_proj_dim=WIDTH),
    "llama": LlamaConfig(**WIDE, intermediate_size=64, num_key_value_heads=2),
}


def model(family: str = "gpt2") -> PreTrainedModel:
    """A small random model, with attention that is far from uniform."""
    torch.manual_seed(1)
    config = copy.deepcopy(CONFIGS[family])  # surgery writes into it
    made = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    for weight in made.parameters():
        nn.init.normal_(weight, std=0.3)
    return made.eval()


def entropy(row: list[float]) -> float:
    return -sum(p * math.log(p) for p in row if p > 0)


def by_head(probabilities: Tensor) -> list[tuple[float, float]]:
    """(entropy, share of maximum) of each head of (B, H, T, T), in float64 loops."""
    found = []
    for head in probabilities.double().transpose(0, 1).tolist():
        rows = [(entropy(row), count) for text in head for count, row in enumerate(text, start=1)]
        shares = [value / math.log(count) for value, count in rows if count > 1]
        found.append((sum(value for value, _ in rows) / len(rows), sum(shares) / len(shares)))
    return found


@pytest.mark.parametrize("family", CONFIGS)
def test_entropies_of_every_family(family: str, ids: Tensor) -> None:
    made = model(family)
    expected = [by_head(layer) for layer in made(ids, output_attentions=True).attentions]
    seen = observe(made, ids)
    for layer in range(LAYERS):
        entropies, shares = zip(*expected[layer], strict=True)
        assert seen["entropy"][layer] == pytest.approx(entropies, rel=1e-5)
        assert seen["entropy_share"][layer] == pytest.approx(shares, rel=1e-5)
    assert seen["not_finite"] == {"nan": [0] * LAYERS, "inf": [0] * LAYERS}
    assert set(seen) == {"entropy", "entropy_share", "overload", "collapse", "not_finite"}


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("form", ["2relu", "2quad"])
def test_entropies_of_other_attention(family: str, form: str, ids: Tensor) -> None:
    made = operate(model(family), {"attention": form})
    seen, kept = observe(made, ids), []
    for path in anatomy.attentions(made):
        made.get_submodule(path).register_forward_hook(lambda module, args, output: kept.append(output[1]))
    made(ids)
    for layer in range(LAYERS):
        assert kept[layer].sum(-1).allclose(torch.ones(1))
        entropies, _ = zip(*by_head(kept[layer].detach()), strict=True)
        assert seen["entropy"][layer] == pytest.approx(entropies, rel=1e-5)


def test_blocks_of_queries_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    probabilities = torch.rand(2, 3, 50, 50).softmax(-1)
    whole = entropies(probabilities)
    monkeypatch.setattr("pi_sim.diagnosis.entropy.ELEMENTS", 700)
    assert entropies(probabilities).equal(whole)


class Attention(nn.Module):
    """Returns fixed probabilities (B, H, T, T), as eager attention would."""

    def __init__(self, probabilities: Tensor) -> None:
        super().__init__()
        self.probabilities = probabilities

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, self.probabilities


class Blocks(nn.Module):
    """A model whose numbered blocks are attention alone."""

    def __init__(self, *probabilities: Tensor) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.ModuleDict({"attn": Attention(each)}) for each in probabilities)

    def forward(self, ids: Tensor) -> Tensor:
        x = ids.float()
        for block in self.blocks:
            x = block["attn"](x)[0]
        return x


UNIFORM = torch.ones(1, 2, 16, 16).tril() / torch.arange(1, 17)[:, None]
ONE_HOT = torch.eye(16).expand(1, 2, 16, 16)


def test_uniform_attention_is_overload_and_one_hot_collapse() -> None:
    seen = observe(Blocks(UNIFORM, ONE_HOT), torch.zeros(1, 16))
    assert seen["entropy"][0] == pytest.approx([sum(math.log(t) for t in range(1, 17)) / 16] * 2)
    assert seen["entropy_share"] == [pytest.approx([1.0, 1.0]), [0.0, 0.0]]
    assert (seen["overload"], seen["collapse"]) == (0.5, 0.5)


WINDOW = 3
SHORT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 40}
SEEING = {
    "all": BertConfig(**SHORT),
    "earlier": LlamaConfig(**SHORT),
    "window": MistralConfig(**SHORT, num_key_value_heads=2, sliding_window=WINDOW),
}


@pytest.mark.parametrize("seen", SEEING)
@pytest.mark.parametrize("form", ["softmax", "2quad"])
def test_a_share_is_one_of_what_a_query_may_see(seen: str, form: str, ids: Tensor) -> None:
    made = AutoModel.from_config(SEEING[seen], attn_implementation=IMPLEMENTATIONS[form]).eval()
    for path, part in made.named_modules():
        if path.endswith(("query", "q_proj")):
            nn.init.zeros_(part.weight)
    found = observe(made, ids)
    counts = {"all": [8] * 8, "earlier": range(1, 9), "window": [min(t, WINDOW) for t in range(1, 9)]}
    assert found["entropy"] == [pytest.approx([sum(map(math.log, counts[seen])) / 8] * 2)]
    assert found["entropy_share"] == [pytest.approx([1.0, 1.0])]


def test_a_key_whose_exponential_underflows_is_not_hidden(ids: Tensor) -> None:
    made = model("llama")
    for path, part in made.named_modules():
        if path.endswith(("q_proj", "k_proj")):
            part.weight.data *= 100
    attentions = made(ids, output_attentions=True).attentions
    assert (attentions[0].amax(1)[:, -1] == 0).any()
    shares = [share for _, share in by_head(attentions[0].detach())]
    assert observe(made, ids)["entropy_share"][0] == pytest.approx(shares, rel=1e-5)


def test_limits_belong_to_neither() -> None:
    assert not overloaded(0.9) and overloaded(0.9001)
    assert not collapsed(0.1) and collapsed(0.0999)


def test_a_poisoned_weight_is_counted_and_becomes_null(ids: Tensor) -> None:
    made = model()
    made.transformer.h[1].mlp.c_proj.weight.data[0, 0] = torch.nan  # one column of the second block's output
    made.transformer.h[0].attn.c_attn.weight.data[:, 0] = torch.nan  # the first head's queries
    seen = observe(made, ids)
    assert seen["entropy"][0][0] is None and None not in seen["entropy"][0][1:]
    assert seen["entropy"][1] == [None] * HEADS  # the residual stream carries it everywhere
    assert seen["not_finite"]["nan"] == [ids.numel() * WIDTH] * LAYERS
    assert seen["overload"] + seen["collapse"] <= 0.5


def test_infinities_are_counted_apart_from_nan(ids: Tensor) -> None:
    made = model()
    made.transformer.h[1].mlp.c_proj.bias.data[3] = torch.inf
    assert observe(made, ids)["not_finite"] == {"nan": [0, 0], "inf": [0, ids.numel()]}


def test_slopes_by_layer_and_alphas_beside_the_spread_they_follow(ids: Tensor) -> None:
    made = model()
    made.transformer.h[1].mlp.act = LearnableLeakyReLU(nn.Parameter(torch.tensor([0.25])))
    made.transformer.h[0].ln_1 = DyT(WIDTH, 0.5)
    embedded = made.transformer.wte(ids) + made.transformer.wpe(torch.arange(ids.shape[1]))
    numbers: list[float] = embedded.double().flatten().tolist()
    mean = sum(numbers) / len(numbers)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in numbers) / len(numbers))
    seen = observe(made, ids)
    assert seen["slopes"] == [None, 0.25]
    (alpha,) = seen["alphas"]
    assert (alpha["module"], alpha["alpha"]) == ("transformer.h.0.ln_1", 0.5)
    assert alpha["inverse_std"] == pytest.approx(1 / deviation, rel=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_a_training_is_not_disturbed(training: bool, ids: Tensor) -> None:
    made = Scaled(model(), 2.0, 2.0).train(training)
    state = torch.get_rng_state()
    seen = observe(made, ids)
    assert torch.get_rng_state().equal(state)
    assert made.training == made.model.transformer.h[0].training == training
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in made.modules())
    assert seen == observe(made.eval(), ids)


def test_attention_that_hides_its_probabilities_is_refused(ids: Tensor) -> None:
    made: Any = AutoModelForCausalLM.from_config(CONFIGS["gpt2"], attn_implementation="sdpa")
    with pytest.raises(UsageError, match="use eager attention"):
        observe(made, ids)
    assert not made.transformer.h[0].attn._forward_hooks


def test_a_model_without_attention_is_refused() -> None:
    with pytest.raises(UsageError, match="Linear has no attention"):
        observe(nn.Linear(2, 2), torch.zeros(1, 2))


def whole(made: PreTrainedModel, ids: Tensor, *quantities: Quantity) -> dict[str, Any]:
    """The whole diagnosis, which says how far it is."""
    told: list[float] = []
    found = examine(made, ids, list(quantities), told.append)
    assert told == [done / len(ids) for done in range(1, len(ids) + 1)]
    return found


@pytest.mark.parametrize("family", CONFIGS)
def test_one_sequence_at_a_time_sums_to_what_all_together_show(family: str, ids: Tensor) -> None:
    made = model(family)
    together, found = observe(made, ids), whole(made, ids)
    for layer in range(LAYERS):
        assert found["entropy"][layer] == pytest.approx(together["entropy"][layer], rel=1e-5)
    assert found["not_finite"] == together["not_finite"]
    assert all(None not in shares for shares in found["sparsity"].values())
    for name in ("overload", "collapse"):
        assert found[name] == pytest.approx(sum(found["by_layer"][name]) / LAYERS)


def test_sparsity_and_flops_of_a_known_relu_model(ids: Tensor) -> None:
    made = operate(model(), {"activation": "relu"})
    for block in made.transformer.h:
        nn.init.zeros_(block.mlp.c_fc.weight)
        block.mlp.c_fc.bias.data = torch.where(torch.arange(4 * WIDTH) < 48, -1.0, 1.0)
    found = whole(made, ids)
    assert found["sparsity"] == {"qkv": [0.0] * LAYERS, "up": [0.0] * LAYERS, "down": [48 / 128] * LAYERS}
    whole_work = LAYERS * 2 * WIDTH * (3 + 1 + 4 + 4) * WIDTH
    saved = LAYERS * 2 * 4 * WIDTH * WIDTH * 48 / 128
    assert found["flops"] == {"per_token": whole_work, "saved": saved, "share": saved / whole_work}


@pytest.mark.parametrize("family", CONFIGS)
def test_a_relu_after_norms_shows_at_qkv_and_up(family: str, ids: Tensor) -> None:
    sparsity = whole(operate(model(family), {"relu_after_norm": True}), ids)["sparsity"]
    for role in ("qkv", "up"):
        assert all(0.2 < share < 0.8 for share in sparsity[role])


def test_zeros_in_a_scaled_ffn_are_seen(ids: Tensor) -> None:
    plan = {"norm": "none", "final_norm": "none", "activation": "relu", "ffn": "scaled"}
    found = whole(operate(model(), plan), ids)
    negative = [each["negative"] for each in found["histograms"]]
    assert found["sparsity"]["down"] == pytest.approx(negative) and min(negative) > 0
    assert found["flops"]["share"] == pytest.approx(sum(negative) / LAYERS * 4 / (3 + 1 + 4 + 4))
    assert found["missing"] == []


OWN = {"n_embd": 16, "n_layer": 2, "n_head": 2, "rotary_dim": 4, "vocab_size": 40, "bos_token_id": 0, "eos_token_id": 0}


def test_matrices_of_unknown_names_are_said_not_to_be_looked_at(ids: Tensor) -> None:
    made = AutoModelForCausalLM.from_config(GPTJConfig(**OWN), attn_implementation="eager").eval()
    found = whole(made, ids)
    assert found["sparsity"]["up"] == [None] * 2 and found["sparsity"]["qkv"] == [0.0] * 2
    (sentence,) = (each for each in found["missing"] if "zeros" in each.lower())
    assert sentence == (
        "Zeros before transformer.h.*.mlp.fc_in, transformer.h.*.mlp.fc_out are not counted: the names tell no role."
    )


def test_experts_that_are_no_modules_are_said_not_to_be_looked_at() -> None:
    config = MixtralConfig(**SHORT, num_local_experts=2, num_key_value_heads=2)
    assert places.unknown(AutoModelForCausalLM.from_config(config)) == ["model.layers.0.mlp"]


@pytest.mark.parametrize("family", CONFIGS)
def test_every_name_of_the_known_families_is_known(family: str) -> None:
    assert places.unknown(model(family)) == []


def test_a_layer_without_ffn_has_no_sparsity_there(ids: Tensor) -> None:
    found = whole(operate(model(), {"dropped_ffn": [1]}), ids)
    assert found["missing"] == []
    assert found["sparsity"]["up"][0] == 0.0 and found["sparsity"]["up"][1] is None
    assert [each["layer"] for each in found["histograms"]] == [0]


def test_histogram_counts_as_a_loop_does() -> None:
    batches = torch.randn(3, 500, generator=torch.Generator().manual_seed(0))
    histogram, counts = Histogram(2.0), [0] * BINS
    for batch in batches:
        histogram.add(batch)
    numbers: list[float] = batches.double().flatten().tolist()
    for x in numbers:
        if -2 <= x < 2:
            counts[int((x + 2) / 4 * BINS)] += 1
    assert histogram.to_json() == {
        "reach": 2.0,
        "counts": counts,
        "below": sum(x < -2 for x in numbers),
        "above": sum(x > 2 for x in numbers),
        "negative": sum(x < 0 for x in numbers) / len(numbers),
    }


def test_pre_activations_below_zero_are_a_relus_zeros(ids: Tensor) -> None:
    found = whole(operate(model("opt"), {"activation": "relu"}), ids)
    negative = [each["negative"] for each in found["histograms"]]
    assert negative == pytest.approx(found["sparsity"]["down"])
    for each in found["histograms"]:
        assert sum(each["counts"]) + each["below"] + each["above"] == ids.numel() * 64


def ranges(found: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["quantity"], row["module"]): row for row in found["ranges"]}


def extremes(row: dict[str, Any]) -> tuple[float, float]:
    return row["min"], row["max"]


@torch.no_grad()
def test_ranges_are_those_of_the_model_itself(ids: Tensor) -> None:
    made = model()
    found = ranges(whole(made, ids))
    out = made(ids, output_hidden_states=True)
    block, x = made.transformer.h[0], out.hidden_states[0]
    variances = [_variance(row) for row in x.double().flatten(0, 1).tolist()]
    assert extremes(found["variance", "transformer.h.0.ln_1"]) == pytest.approx((min(variances), max(variances)))
    query, key, _ = block.attn.c_attn(block.ln_1(x)).double().unflatten(-1, (3, HEADS, -1)).unbind(2)
    heads = [(query[text, :, head].tolist(), key[text, :, head].tolist()) for text in range(2) for head in range(HEADS)]
    rows = [[_product(q, k) for k in keys[: t + 1]] for queries, keys in heads for t, q in enumerate(queries)]
    maxima = [max(row) for row in rows]
    assert extremes(found["row maximum", "transformer.h.0.attn"]) == pytest.approx((min(maxima), max(maxima)), rel=1e-4)
    lowest = min(min(row) - max(row) for row in rows)
    assert extremes(found["score minus row maximum", "transformer.h.0.attn"]) == pytest.approx((lowest, 0.0), rel=1e-4)
    logits = (out.logits.min().item(), out.logits.max().item())
    assert extremes(found["logits", "output"]) == pytest.approx(logits, rel=1e-4)
    stream = found["residual stream", "transformer.h.0"]
    assert stream["largest"] >= out.hidden_states[1].abs().max().item() * (1 - 1e-5)
    assert stream["layer"] == 0 and found["logits", "output"]["layer"] is None
    assert all(row["fits"] for row in found.values())


def _product(query: list[float], key: list[float]) -> float:
    return sum(a * b for a, b in zip(query, key, strict=True)) / math.sqrt(WIDTH / HEADS)


def _variance(row: list[float]) -> float:
    mean = sum(row) / len(row)
    return sum((x - mean) ** 2 for x in row) / len(row)


def test_what_fixed_point_cannot_hold_does_not_fit(ids: Tensor) -> None:
    made = model()
    made.transformer.wte.weight.data[:, 0] = 2 * LIMIT
    found = ranges(whole(made, ids))
    assert not found["residual stream", "transformer.h.0"]["fits"]
    made.transformer.wte.weight.data[:, 0] = torch.nan
    broken = ranges(whole(made, ids))["logits", "output"]
    assert (broken["min"], broken["max"], broken["largest"], broken["fits"]) == (None, None, None, False)


@torch.no_grad()
def test_expected_failures_of_truncations(ids: Tensor) -> None:
    """Of the products alone: a bias is added to what was truncated, and a norm truncates its squares."""
    made = model()
    made.transformer.h[0].mlp.c_fc.bias.data[:] = 100
    failed = {(row["op"], row["module"]): row["failed"] for row in whole(made, ids)["truncations"]}
    seen: dict[str, Tensor] = {}
    for path in ("transformer.h.0.mlp.c_fc", "transformer.ln_f", "lm_head"):
        made.get_submodule(path).register_forward_pre_hook(lambda _, args, path=path: seen.update({path: args[0]}))
    made(ids)
    up, normed, head = (x.double() for x in seen.values())
    products = {
        ("linear", "transformer.h.0.mlp.c_fc"): up @ made.transformer.h[0].mlp.c_fc.weight.double(),
        ("layernorm", "transformer.ln_f"): (normed - normed.mean(-1, keepdim=True)).square(),
        ("linear", "lm_head"): head @ made.lm_head.weight.double().T,
    }
    for place, values in products.items():
        assert failed[place] == pytest.approx(values.abs().sum().item() / 2**32 / len(ids), rel=1e-4)
    assert {op for op, _ in failed} == {"linear", "layernorm", "matmul", "scale"}


def test_a_truncation_fails_in_proportion_and_at_most_once() -> None:
    assert failures(torch.tensor([2.0**30, -(2.0**29)])) == 0.375
    assert failures(torch.tensor([2.0**40, 1.0])) == 2
    assert failures(torch.tensor([torch.nan, torch.inf, 1.0])) == 3


@torch.no_grad()
def test_a_transposed_weight_is_no_input(ids: Tensor) -> None:
    made = model("llama")
    made.lm_head.weight[0, 0] = 12345
    found = ranges(whole(made, ids))
    hidden = made(ids, output_hidden_states=True).hidden_states[-1]
    assert found["input", "lm_head"]["largest"] == pytest.approx(hidden.abs().max().item(), rel=1e-4)


def test_a_kernels_domain_is_held_or_left(ids: Tensor) -> None:
    magnitude = Quantity("gelu", "|input|", torch.abs, "small", 0, 1e-3)
    variance = Quantity("layernorm", "variance", lambda x, *_: x.var(-1, unbiased=False), "wide", 0, 1e6)
    found = ranges(whole(operate(model(), {"activation": "gelu"}), ids, magnitude, variance))
    left, held = found["|input|", "transformer.h.1.mlp.act"], found["variance", "transformer.ln_f"]
    assert (left["kernel"], left["domain"], left["inside"]) == ("small", [0, 1e-3], False)
    assert (held["kernel"], held["inside"]) == ("wide", True)


@pytest.mark.parametrize(("keys", "inside"), [(50, True), (64, False)])
def test_flat_rows_over_many_keys_leave_the_softmax(keys: int, inside: bool) -> None:
    """Entropic overload is what its division by the row's sum is not right for."""
    made = model()
    for block in made.transformer.h:
        nn.init.zeros_(block.attn.c_attn.weight)
        nn.init.zeros_(block.attn.c_attn.bias)
    text = torch.zeros(1, keys, dtype=torch.long)
    found = ranges(whole(made, text, *quantities(specs.protocol_card("crypten"))))
    row = found["row sum of exponentials", "transformer.h.0.attn"]
    assert (extremes(row), row["inside"]) == ((1.0, keys), inside)
    assert found["row maximum", "transformer.h.0.attn"]["inside"]


def test_what_cannot_be_captured_is_said(ids: Tensor) -> None:
    made = model()
    for block in made.transformer.h:
        block.mlp.act = nn.Softplus()
    found = whole(made, ids)
    assert found["ranges"] == found["truncations"] == []
    (sentence,) = found["missing"]
    assert sentence.startswith("Ranges are missing, because the model cannot be captured: ")
    assert "softplus" in sentence
    assert len(found["histograms"]) == LAYERS


LONG = """
import resource, torch
from transformers import GPT2Config, GPT2LMHeadModel
from pi_sim.diagnosis.brief import observe
from pi_sim.diagnosis.examine import examine
from pi_sim.graph.capture import capture
T, H, V = 2048, 8, 32768
config = GPT2Config(n_layer=1, n_head=H, n_embd=32, vocab_size=V, n_positions=T, bos_token_id=0, eos_token_id=0)
config._attn_implementation = "eager"
model, ids = GPT2LMHeadModel(config).eval(), torch.zeros(1, T, dtype=torch.long)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / (4 * H * T * T)
capture(model, T)
with torch.no_grad():
    model(ids, use_cache=False)
plain = peak()
observe(model, ids)
seen = peak()
examine(model, ids, [], lambda share: None)
print(seen - plain, peak() - plain)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts memory as Linux does")
def test_long_sequences_need_little_more_memory_than_the_model_itself() -> None:
    """In attention matrices (1, H, T, T) above the model's own peak, which is more than two."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}  # what is freed is gone
    done = subprocess.run([sys.executable, "-c", LONG], capture_output=True, text=True, env=environment, check=True)
    observed, examined = map(float, done.stdout.split())
    assert observed < 0.25
    assert examined < 1.25
