#!/usr/bin/env python3
"""Writes vectors.h: twenty steps of torch.optim on a small network, for test_parity.c.

    vectors.py > vectors.h              needs PyTorch (Debian: python3-torch)

Each case is a network of one hidden layer on one batch, with the loss and the optimizer of torch. Biases do not decay, which in
torch is a group of its own.
"""

import torch
import torch.nn.functional as F

COLUMNS, HIDDEN, ROWS, CLASSES, STEPS = 4, 3, 6, 3, 20
SGD, ADAM, ADAMW = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW

# name, YAML of the optimizer and what torch is given; then activation, number of classes, YAML of the loss, torch's loss
CASES = [
    ("sgd", "{kind: sgd, learning_rate: 0.1}", SGD, dict(lr=0.1), "tanh", 0, "bce", {}),
    ("momentum", "{kind: sgd, learning_rate: 0.05, momentum: 0.9}", SGD, dict(lr=0.05, momentum=0.9), "relu", 0,
     "{kind: bce, positive_weight: 2.5}", dict(pos_weight=torch.tensor([2.5]))),
    ("nesterov", "{kind: sgd, learning_rate: 0.05, momentum: 0.8, nesterov: true, weight_decay: 0.1}", SGD,
     dict(lr=0.05, momentum=0.8, nesterov=True, weight_decay=0.1), "gelu", 3, "cross_entropy", {}),
    ("adam", "{kind: adam, learning_rate: 0.02, weight_decay: 0.1}", ADAM, dict(lr=0.02, weight_decay=0.1), "gelu", 3,
     "{kind: cross_entropy, class_weights: [1, 0.5, 3]}", dict(weight=torch.tensor([1, 0.5, 3]))),
    ("adam_betas", "{kind: adam, learning_rate: 0.02, betas: [0.8, 0.95], epsilon: 0.001}", ADAM,
     dict(lr=0.02, betas=(0.8, 0.95), eps=0.001), "tanh", 3, "{kind: cross_entropy, label_smoothing: 0.2}",
     dict(label_smoothing=0.2)),
    ("adamw", "{kind: adamw, learning_rate: 0.03, weight_decay: 0.2}", ADAMW, dict(lr=0.03, weight_decay=0.2), "relu", 3,
     "{kind: cross_entropy, class_weights: [1, 0.5, 3], label_smoothing: 0.1}",
     dict(weight=torch.tensor([1, 0.5, 3]), label_smoothing=0.1)),
]


def numbers(tensor):
    return ", ".join(f"{value:.9g}f" if any(c in f"{value:.9g}" for c in ".en") else f"{value:.9g}.0f"
                     for value in tensor.detach().flatten().tolist())


def run(case):
    name, optimizer_yaml, optimizer_class, options, activation, classes, loss_yaml, loss_options = case
    generator = torch.Generator().manual_seed(len(name))
    outputs = max(classes, 1)
    shapes = [("layers.0.weight", (HIDDEN, COLUMNS)), ("layers.0.bias", (HIDDEN,)), ("head.weight", (outputs, HIDDEN)),
              ("head.bias", (outputs,))]
    start = [torch.randn(shape, generator=generator) * 0.7 for _, shape in shapes]
    x = torch.randn((ROWS, COLUMNS), generator=generator)
    y = torch.randint(0, classes or 2, (ROWS,), generator=generator)
    leaves = [value.clone().requires_grad_(True) for value in start]
    decay = options.get("weight_decay", 0)
    groups = [{"params": [leaf for leaf in leaves if leaf.dim() > 1], "weight_decay": decay},
              {"params": [leaf for leaf in leaves if leaf.dim() == 1], "weight_decay": 0}]
    optimizer = optimizer_class(groups, **options)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        hidden = {"tanh": torch.tanh, "relu": torch.relu, "gelu": F.gelu}[activation](F.linear(x, leaves[0], leaves[1]))
        logits = F.linear(hidden, leaves[2], leaves[3])
        if classes:
            loss = F.cross_entropy(logits, y, **loss_options)
        else:
            loss = F.binary_cross_entropy_with_logits(logits, y.float().unsqueeze(1), **loss_options)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    label = "classes: [0, 1, 2]" if classes else "above: 0"
    print(f"    {{.name = \"{name}\",\n     .plan = VECTORS_PLAN(\"{label}\", \"{activation}\", \"{optimizer_yaml}\", \"{loss_yaml}\"),")
    print(f"     .classes = {classes},\n     .x = {{{numbers(x)}}},\n     .y = {{{numbers(y.float())}}},")
    print(f"     .start = {{{numbers(torch.cat([value.flatten() for value in start]))}}},")
    print(f"     .end = {{{numbers(torch.cat([value.flatten() for value in leaves]))}}},")
    print(f"     .losses = {{{numbers(torch.stack(losses))}}}}},")


print(f"/* Written by vectors.py with PyTorch {torch.__version__}: do not edit. */")
print(f"""#ifndef CS_TESTS_NN_VECTORS_H
#define CS_TESTS_NN_VECTORS_H

#define VECTORS_COLUMNS {COLUMNS}
#define VECTORS_HIDDEN {HIDDEN}
#define VECTORS_ROWS {ROWS}
#define VECTORS_STEPS {STEPS}
#define VECTORS_PARAMETERS_MAX {HIDDEN * COLUMNS + HIDDEN + CLASSES * HIDDEN + CLASSES}

#define VECTORS_PLAN(label_, activation_, optimizer_, loss_) \\
    "plan: p\\nfederation: horizontal\\ndataset: {{name: d, kind: table, features: [a, b, c, d], label: {{column: y, " \\
    label_ "}}, standardize: none}}\\nmodel: {{kind: mlp, hidden: [3], activation: " activation_ "}}\\n" \\
    "training: {{rounds: 1, local_steps: 20, batch_size: 6, optimizer: " optimizer_ ", loss: " loss_ "}}\\n"

static const struct vectors {{
    const char *name, *plan;
    size_t classes; /* 0: yes or no */
    float x[VECTORS_ROWS * VECTORS_COLUMNS], y[VECTORS_ROWS];
    float start[VECTORS_PARAMETERS_MAX], end[VECTORS_PARAMETERS_MAX]; /* in the order of the model's table */
    float losses[VECTORS_STEPS];                                      /* before each step */
}} vectors[] = {{""")
for case in CASES:
    run(case)
print("};\n\n#endif")
