"""The small model of torch_pretrain.py, its text, and one run of one or two stages: what is computed, without the command."""
import hashlib
import json
import math
import os
import time
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

import lighthouse.torch as lt
from torch_steps import after, before


@dataclass
class Run:
    """One run as its words say it: "two-stage tokens=98304 seed=2"; every field but the first by its name."""

    attention: str = "two-stage"  # dense, two-stage, or original: the other implementation's layer, and no dense stage
    seed: int = 1
    tokens: int = 98304
    batch: int = 1
    steps: int = 1400
    share: float = 0.45     # of the steps that are the dense stage's
    levels: int = 3
    pool: int = 2
    topk: int = 1536
    tile: int = 128
    layers: str = "0,-1"    # dense from the start
    back: str = ""          # roll-back one by one: LAYER:SHARE of the steps after which it is dense, before the switch
    rate: float = 2e-3
    dense_rate: float = 1.0  # factor on it in the dense stage
    warmup: int = 60
    rewarm: int = 0
    cooldown: float = 0.2   # share of the steps over which the rate falls to 0
    also: str = ""          # dense: shorter runs, STEPS each, that leave this one where their rate begins to fall
    every: int = 100        # steps between held-out losses
    measured: int = 1 << 20  # bytes of each; of the last four times as many
    width: int = 256
    depth: int = 6
    heads: int = 4
    hidden: int = 704
    init: float = 0.02      # standard deviation of the matrices at the start
    needs: float = 30.0     # seconds; not begun where fewer are left

    @classmethod
    def parse(cls, words):
        first, *rest = words.split()
        if first not in ("dense", "two-stage", "original"):
            raise ValueError(f"a run begins with {first}, wanted dense, two-stage or original")
        kinds, values = {f.name: f.type for f in fields(cls)}, {}
        for word in rest:
            name, equals, value = word.partition("=")
            if not equals or name not in kinds or name == "attention":
                raise ValueError(f"a run has {word}, wanted one of {', '.join(list(kinds)[1:])} with = and a value")
            values[name] = kinds[name](value)
        return cls(first, **values)

    @property
    def name(self):
        """A file's: what differs from the defaults."""
        plain = Run()
        more = [f"{f.name}={getattr(self, f.name)}" for f in fields(Run)
                if f.name not in ("attention", "needs", "every", "measured") and getattr(self, f.name) != getattr(plain, f.name)]
        return "_".join([self.attention, *more]).replace(":", "-").replace(",", "+")

    @property
    def dense_steps(self):
        return {"dense": self.steps, "original": 0}.get(self.attention, round(self.share * self.steps))


def corpus(folders, share, path):
    """Writes every file *.py below `folders` to path, each once, in the order of its relative path, held-out ones last:
    those whose SHA-256 is below `share`. (bytes to learn from, bytes in all, their SHA-256, files).
    """
    parts, seen = ([], []), set()
    for folder in folders:
        found = [os.path.join(at, name) for at, _, names in os.walk(folder) for name in names if name.endswith(".py")]
        for name in sorted(found, key=lambda name: os.path.relpath(name, folder)):
            try:
                with open(name, "rb") as file:
                    content = file.read()
            except OSError:
                continue
            key = hashlib.sha256(content).digest()
            if content and b"\0" not in content and key not in seen:
                seen.add(key)
                parts[int.from_bytes(key[:4], "big") < share * 2**32].append(content)
    pieces = [b"\n".join(part) for part in parts]
    with open(path, "wb") as file:
        file.write(b"".join(pieces))
    return len(pieces[0]), sum(map(len, pieces)), hashlib.sha256(b"".join(pieces)).hexdigest(), len(seen)


class Block(torch.nn.Module):
    def __init__(self, run, functions, layer):
        super().__init__()
        self.heads, self.before, self.after, self.layer = run.heads, *functions, layer
        self.norm_in, self.norm_mid = (torch.nn.Parameter(torch.ones(run.width)) for _ in range(2))
        shapes = ((3 * run.width, run.width), (run.width, run.width), (2 * run.hidden, run.width), (run.width, run.hidden))
        self.qkv, self.out, self.gate_up, self.down = (torch.nn.Parameter(run.init * torch.randn(*shape)) for shape in shapes)
        with torch.no_grad():
            for last in (self.out, self.down):
                last /= math.sqrt(2 * run.depth)
        self.attention = lt.LighthouseAttention(run.levels, run.pool, run.topk, run.tile)

    def forward(self, x, cosine, sine):
        norm_in, qkv, out, norm_mid, gate_up, down = (
            w.to(x.dtype) for w in (self.norm_in, self.qkv, self.out, self.norm_mid, self.gate_up, self.down))
        q, k, v = self.before(x, norm_in, qkv, cosine, sine, self.heads)
        if self.layer is not None and not self.attention.dense:
            o = self.layer(q, k, v)
        else:
            o = self.attention(*(x.transpose(1, 2) for x in (q, k, v)))
        return self.after(x, o.transpose(1, 2), out, norm_mid, gate_up, down)


class Model(torch.nn.Module):
    """A decoder over bytes: weights float32, everything else bfloat16."""

    def __init__(self, run, functions, layer=None):
        super().__init__()
        self.embed, self.head = (torch.nn.Parameter(run.init * torch.randn(256, run.width)) for _ in range(2))
        self.norm = torch.nn.Parameter(torch.ones(run.width))
        self.blocks = torch.nn.ModuleList(Block(run, functions[:2], layer) for _ in range(run.depth))
        self.end = functions[2]
        half = run.width // run.heads // 2
        angle = torch.arange(run.tokens)[:, None, None] * 1e4 ** (-torch.arange(half) / half)
        for name, x in (("cosine", angle.cos()), ("sine", angle.sin())):
            self.register_buffer(name, x.bfloat16(), persistent=False)

    def forward(self, text):
        """Mean loss in nats of bytes [B,1:N+1] after bytes [B,0:N]."""
        x = functional.embedding(text[:, :-1], self.embed.bfloat16())
        for block in self.blocks:
            x = block(x, self.cosine, self.sine)
        return self.end(x, self.norm.bfloat16(), self.head.bfloat16(), text[:, 1:])


def end(x, norm, head, target):
    logits = functional.linear(functional.rms_norm(x, norm.shape, norm), head)
    return functional.cross_entropy(logits.flatten(0, 1).float(), target.flatten())


class Training:
    """One run. text: uint8 on the device, of which the first `learnt` bytes are learnt from, the rest held out."""

    def __init__(self, run, text, learnt, compiled, layer=None, log=None, until=math.inf):
        self.run, self.text, self.held, self.log, self.until = run, text[:learnt], text[learnt:], log, until
        torch.manual_seed(run.seed)
        functions = (before, after, end)
        self.device = text.device
        with torch.device(self.device):
            self.model = Model(run, tuple(torch.compile(f, dynamic=False) for f in functions) if compiled else functions,
                               layer)
        matrices = [p for p in self.model.parameters() if p.dim() > 1]
        vectors = [p for p in self.model.parameters() if p.dim() == 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
            lr=run.rate, betas=(0.9, 0.95), fused=self.device.type == "cuda")
        layers = range(run.depth) if run.attention == "dense" else filter(None, run.layers.split(","))
        self.two_stage = lt.TwoStage(self.model, run.steps - run.dense_steps, run.dense_steps,
                                     dense_layers=tuple(map(int, layers)), rewarm=run.rewarm)
        self.back = {round(float(share) * run.steps): int(layer)
                     for layer, _, share in (pair.partition(":") for pair in filter(None, run.back.split(",")))}
        self.seconds, self.points, self.snapshots = 0.0, [], {}

    def window(self, step):
        """Bytes [B,N+1] of a step: the same for every attention at one seed."""
        generator = torch.Generator().manual_seed(self.run.seed * 1000003 + step)
        starts = torch.randint(len(self.text) - self.run.tokens, (self.run.batch, 1), generator=generator)
        at = starts.to(self.device, non_blocking=True) + torch.arange(self.run.tokens + 1, device=self.device)
        return self.text[at].long()

    def synchronize(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    @contextmanager
    def dense(self):
        """All layers dense for as long as it lasts: what the weights are worth as the ordinary model they will be."""
        layers = self.two_stage.layers
        before = [layer.dense for layer in layers]
        for layer in layers:
            layer.dense = True
        yield
        for layer, dense in zip(layers, before):
            layer.dense = dense

    def held_out(self, tokens):
        """Mean loss under dense attention of held-out bytes, `tokens` of them or all there are, in whole sequences."""
        n, batch = self.run.tokens, self.run.batch
        count = max(min(tokens, len(self.held) - 1) // n // batch, 1)
        with torch.no_grad(), self.dense():
            losses = [self.model(torch.stack([self.held[i * n:(i + 1) * n + 1] for i in range(j * batch, (j + 1) * batch)])
                                 .long()) for j in range(count)]
        return torch.stack(losses).mean().item()

    def rate(self, step, steps):
        """Warm-up, constant, and a line to 0 over the last `cooldown` of the steps, wherever the switch falls."""
        run = self.run
        falling = (steps - step) / max(run.cooldown * steps, 1)
        stage = run.dense_rate if run.attention == "two-stage" and self.two_stage.stage != "lighthouse" else 1.0
        return run.rate * min((step + 1) / run.warmup, 1.0, falling) * stage * self.two_stage.learning_rate_factor

    def warm(self):
        """Compiles and makes plans, for both attentions, before the clock starts."""
        text = self.window(0)
        with self.dense():
            self.model(text).backward()
        self.model(text).backward()
        self.model.zero_grad(set_to_none=True)
        self.held_out(1)

    def step(self, step, steps):
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(step, steps)
        loss = self.model(self.window(step))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.model.zero_grad(set_to_none=True)
        return loss.detach()

    def go(self, first, steps):
        """Steps first to steps - 1; False where time ran out."""
        run, losses = self.run, []
        cuts = {round(int(shorter) * (1 - run.cooldown)): int(shorter) for shorter in filter(None, run.also.split(","))}
        since = self.synchronize()
        for step in range(first, steps):
            if steps == run.steps:
                if step in cuts:
                    self.seconds += self.synchronize() - since
                    self.snapshots[step] = (cuts[step], self.seconds, self.state())
                    since = self.synchronize()
                if step in self.back and self.two_stage.stage == "lighthouse":
                    self.two_stage.layers[self.back[step]].dense = True
            losses.append(self.step(step, steps))
            self.two_stage.step()
            stopped = time.time() > self.until
            if (step + 1) % run.every == 0 or step + 1 == steps or stopped:
                self.seconds += self.synchronize() - since
                last = step + 1 == steps
                self.point(steps, step + 1, torch.stack(losses), self.held_out(run.measured * (4 if last else 1)), last, stopped)
                losses = []
                since = self.synchronize()
            if stopped:
                return False
        return True

    def point(self, of, steps, losses, held_out, last, stopped):
        run = self.run
        point = {"of": of, "steps": steps, "tokens": steps * run.batch * run.tokens, "seconds": round(self.seconds, 3),
                 "training": round(losses[-50:].mean().item(), 5), "held_out": round(held_out, 5),
                 "dense_layers": sum(layer.dense for layer in self.two_stage.layers)}
        if last:
            point["last"] = True
        if stopped and not last:
            point["stopped"] = True
        if run.attention == "original" or run.share == 0:
            point["losses"] = [round(loss, 5) for loss in losses.tolist()]
        self.points.append(point)
        if self.log:
            self.log.write(json.dumps(point) + "\n")
            self.log.flush()

    def state(self):
        return ([p.detach().clone() for p in self.model.parameters()],
                [{k: v.clone() for k, v in self.optimizer.state[p].items()} for g in self.optimizer.param_groups
                 for p in g["params"]])

    def restore(self, state):
        weights, moments = state
        with torch.no_grad():
            for p, kept in zip(self.model.parameters(), weights):
                p.copy_(kept)
        for p, kept in zip((p for g in self.optimizer.param_groups for p in g["params"]), moments):
            self.optimizer.state[p] = kept

    def __call__(self):
        """All points of the run and of the shorter ones that leave it."""
        if self.log:
            self.log.write(json.dumps(asdict(self.run)) + "\n")
        with sdpa_kernel([SDPBackend.CUDNN_ATTENTION]) if self.device.type == "cuda" else nullcontext():
            self.warm()
            going = self.go(0, self.run.steps)
            for first, (steps, seconds, state) in self.snapshots.items():
                if going:
                    self.restore(state)
                    self.seconds = seconds
                    going = self.go(first, steps)
        return self.points
