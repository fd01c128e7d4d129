"""Makes tests/golden/optim.json: five steps of each optimizer on fixed gradients.

    python tools/golden_optim.py torch > a.json     # needs torch
    python tools/golden_optim.py tf a.json > tests/golden/optim.json     # needs TensorFlow 2

Two weights and a bias; the weights decay, the bias does not. Gradients of step k are given, so that no
network is needed.
"""
import json
import sys

import numpy as np

SHAPES = {"a.weight": (3, 2), "b.bias": (4,), "c.weight": (2, 2, 1, 2)}
STEPS, LR, DECAY, CLIP = 5, 0.05, 0.01, 2.0


def inputs():
    random = np.random.default_rng(7)
    weights = {n: random.standard_normal(s).astype(np.float32) for n, s in SHAPES.items()}
    gradients = []
    for step in range(STEPS):
        # Steps differ in size: some are clipped and some are not.
        scale = [0.3, 3.0, 0.1, 1.5, 0.8][step]
        gradients.append({n: (scale * random.standard_normal(s)).astype(np.float32) for n, s in SHAPES.items()})
    return weights, gradients


def flat(weights):
    return {n: np.asarray(w, np.float64).ravel().tolist() for n, w in weights.items()}


def by_torch():
    import torch

    weights, gradients = inputs()
    adamw = {"kind": "adamw", "betas": [0.9, 0.99], "eps": 1e-8}
    sgd = {"kind": "sgd", "momentum": 0.9}
    cases = [(sgd, "after_clipping"), (sgd, "before_clipping"), (adamw, "decoupled"), (adamw, "after_clipping")]
    made = []
    for settings, how in cases:
        for clip in ["none", "global"]:
            parameters = {n: torch.nn.Parameter(torch.tensor(w)) for n, w in weights.items()}
            decayed = [p for n, p in parameters.items() if n.endswith("weight")]
            others = [p for n, p in parameters.items() if not n.endswith("weight")]
            rate = 0.0 if how == "before_clipping" else DECAY
            groups = [{"params": decayed, "weight_decay": rate}, {"params": others, "weight_decay": 0.0}]
            if settings["kind"] == "sgd":
                optimizer = torch.optim.SGD(groups, lr=LR, momentum=settings["momentum"], foreach=False)
            else:
                make = torch.optim.AdamW if how == "decoupled" else torch.optim.Adam
                optimizer = make(groups, lr=LR, betas=tuple(settings["betas"]), eps=settings["eps"], foreach=False)
            for step in gradients:
                for n, p in parameters.items():
                    p.grad = torch.tensor(step[n])
                    if how == "before_clipping" and n.endswith("weight"):
                        p.grad += DECAY * p.detach()
                if clip == "global":
                    torch.nn.utils.clip_grad_norm_(parameters.values(), CLIP, foreach=False)
                optimizer.step()
            after = flat({n: p.detach().numpy() for n, p in parameters.items()})
            made.append({"by": f"torch {torch.__version__}", "optimizer": settings, "how": how, "clip": clip, "after": after})
    shapes = {n: list(s) for n, s in SHAPES.items()}
    return {"lr": LR, "decay": DECAY, "clip": CLIP, "shapes": shapes, "weights": flat(weights),
            "gradients": [flat(g) for g in gradients], "cases": made}


def by_tf(golden):
    import tensorflow as tf

    weights, gradients = inputs()
    for settings in [{"kind": "rmsprop", "rho": 0.9, "momentum": 0.9, "eps": 1.0},
                     {"kind": "rmsprop", "rho": 0.8, "momentum": 0.5, "eps": 1e-3},
                     {"kind": "sgd", "momentum": 0.9}]:
        for clip in ["none", "global", "per_tensor"]:
            with tf.Graph().as_default(), tf.compat.v1.Session() as session:
                variables = {n: tf.compat.v1.Variable(w) for n, w in weights.items()}
                places = {n: tf.compat.v1.placeholder(tf.float32, s) for n, s in SHAPES.items()}
                # The loss whose gradient is what is fed, and L2 inside it.
                loss = tf.add_n([tf.reduce_sum(v * places[n]) for n, v in variables.items()])
                loss += DECAY * tf.add_n([tf.nn.l2_loss(v) for n, v in variables.items() if n.endswith("weight")])
                v1 = tf.compat.v1.train
                if settings["kind"] == "sgd":
                    optimizer = v1.MomentumOptimizer(LR, settings["momentum"])
                else:
                    optimizer = v1.RMSPropOptimizer(LR, settings["rho"], settings["momentum"], settings["eps"])
                pairs = optimizer.compute_gradients(loss, list(variables.values()))
                if clip == "global":
                    clipped, _ = tf.clip_by_global_norm([g for g, _ in pairs], CLIP)
                    pairs = list(zip(clipped, [v for _, v in pairs]))
                elif clip == "per_tensor":
                    pairs = [(tf.clip_by_norm(g, CLIP), v) for g, v in pairs]
                train = optimizer.apply_gradients(pairs)
                session.run(tf.compat.v1.global_variables_initializer())
                for step in gradients:
                    session.run(train, {places[n]: g for n, g in step.items()})
                after = flat(session.run(variables))
            golden["cases"].append({"by": f"tensorflow {tf.__version__}", "optimizer": settings,
                                    "how": "before_clipping", "clip": clip, "after": after})
    return golden


if __name__ == "__main__":
    made = by_torch() if sys.argv[1] == "torch" else by_tf(json.load(open(sys.argv[2])))
    json.dump(made, sys.stdout, indent=0)
    print()
