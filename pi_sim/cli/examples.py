"""Examples that end the help of every command, by its words on the command line."""

import click

EXAMPLES = {
    "estimate": (
        "pi-sim estimate --model relu_nonorm",
        "pi-sim estimate --model gpt2 --seq-len 128 --protocol lean --network wan --by layer",
    ),
    "compare": (
        "pi-sim compare gelu_ln relu_nonorm --size gpt2",
        "pi-sim compare bert-base --protocol crypten_tanh --protocol lean --network lan",
    ),
    "sweep": (
        "pi-sim sweep --model gelu_ln --model relu_nonorm --seq-len 64 --seq-len 128",
        "pi-sim sweep --model gelu_ln --size gpt2 --protocol lean --network wan --out sweep.csv",
    ),
    "validate": ("pi-sim validate", "pi-sim validate --out pages"),
    "run two-party": (
        "pi-sim run two-party --model relu_nonorm --protocol lean",
        "pi-sim run two-party --model gelu_ln --protocol lean --prompt 'import numpy as'",
    ),
    "run party": (
        "pi-sim run party --rank 0 --rendezvous 0.0.0.0:9000 --bundle server --keys keys/party0",
        "pi-sim run party --rank 1 --rendezvous server.example:9000 --bundle client --keys keys/party1",
    ),
    "train": (
        "pi-sim train --model relu_nonorm --out runs/relu_nonorm",
        "pi-sim train --model gelu_ln --tokens 2000000 --seed 1 --out runs/gelu_ln",
    ),
    "convert": (
        "pi-sim convert runs/gelu_ln --activation relu --out runs/relufied",
        "pi-sim convert runs/gelu_ln --norm dyt --seq-len 64",
    ),
    "diagnose": (
        "pi-sim diagnose --model gelu_nonorm",
        "pi-sim diagnose --model relu_ln --protocol lean --out figures",
    ),
    "report": ("pi-sim report", "pi-sim report --records runs --out pages"),
    "models": ("pi-sim models", "pi-sim models --format csv"),
    "protocols": ("pi-sim protocols", "pi-sim protocols lean"),
    "networks": ("pi-sim networks", "pi-sim networks --format csv"),
    "export": (
        "pi-sim export --model relu_nonorm --protocol lean --out bundle",
        "pi-sim export --model my-gpt2/ --seq-len 64 --protocol lean --out bundle",
    ),
    "deal": (
        "pi-sim deal --bundle bundle --protocol lean --out dealt",
        "pi-sim deal --bundle bundle --protocol lean --sequences 10 --out dealt",
    ),
    "keys": ("pi-sim keys --out keys",),
    "calibrate": ("pi-sim calibrate", "pi-sim calibrate --out server.json"),
    "bench": ("pi-sim bench --quick", "pi-sim bench --protocol lean --out pages"),
    "latency": ("pi-sim latency --device cpu --quick", "pi-sim latency --out reports"),
}


def add_examples(group: click.Group, words: tuple[str, ...] = ()) -> None:
    """End the help of every command of a group with its examples."""
    for name, command in group.commands.items():
        path = (*words, name)
        if isinstance(command, click.Group):
            add_examples(command, path)
            continue
        lines = "\n".join(("\b", "Examples:", *(f"  {line}" for line in EXAMPLES[" ".join(path)])))
        command.epilog = "\n\n".join(filter(None, (command.epilog, lines)))
