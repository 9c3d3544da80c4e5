"""The recipe of the paper: Lighthouse first, ordinary attention for the rest, one optimiser and one data stream throughout."""
import json
import statistics
import time

import torch

from .module import LighthouseAttention, StageError

STAGES = ("lighthouse", "dense", "done")
_FORMAT = 1


class TwoStage:
    """Holds a model's LighthouseAttention modules in the stage that its count of steps says.

        two_stage = TwoStage(model, lighthouse_steps=10000, dense_steps=6000)
        while two_stage.stage != "done":
            loss = ...; loss.backward(); optimizer.step()
            two_stage.step(loss)

    dense_layers: layers, counted in the order of model.modules(), that are dense from the start. rewarm: steps over which
    learning_rate_factor rises from 0 to 1 after the switch, for a scheduler to multiply by; 0 for none. The state goes into
    a checkpoint by state_dict. In the Lighthouse stage model.eval(), model.generate() and export raise StageError.
    """

    def __init__(self, model, lighthouse_steps, dense_steps, dense_layers=(0, 1, -2, -1), rewarm=0):
        for name, value, least in (("lighthouse_steps", lighthouse_steps, 0), ("dense_steps", dense_steps, 0),
                                   ("rewarm", rewarm, 0)):
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} is {value}, wanted a whole number, at least {least}")
        self.layers = [m for m in model.modules() if isinstance(m, LighthouseAttention)]
        if not self.layers:
            raise ValueError(f"{type(model).__name__} has no LighthouseAttention module, wanted one for each layer")
        for i in dense_layers:
            if not -len(self.layers) <= i < len(self.layers):
                raise ValueError(f"dense_layers has {i}, wanted -{len(self.layers)} to {len(self.layers) - 1}")
        self.model = model
        self.lighthouse_steps, self.dense_steps, self.rewarm = lighthouse_steps, dense_steps, rewarm
        self.dense_layers = tuple(sorted({i % len(self.layers) for i in dense_layers}))
        self.steps = 0
        self.losses = []  # (step, loss)
        self.seconds = {"lighthouse": [], "dense": []}  # between calls of step()
        self._since = None
        self._shape = None  # of q and k in a Lighthouse layer, for the audit
        self.layers[next((i for i in range(len(self.layers)) if i not in self.dense_layers), 0)] \
            .register_forward_pre_hook(self._look)
        self._guard()
        self._apply()

    def _look(self, _, inputs):
        q, k = inputs[0], inputs[1]
        self._shape = (tuple(q.shape), tuple(k.shape), q.dtype, q.device)

    # ---- stage ----

    @property
    def stage(self):
        """"lighthouse", "dense" or "done"."""
        if self.steps < self.lighthouse_steps:
            return "lighthouse"
        return "dense" if self.steps < self.lighthouse_steps + self.dense_steps else "done"

    @property
    def learning_rate_factor(self):
        """1, but 0 to 1 over the `rewarm` steps that follow the switch."""
        since = self.steps - self.lighthouse_steps
        if self.lighthouse_steps == 0 or since < 0 or since >= self.rewarm:
            return 1.0
        return (since + 1) / (self.rewarm + 1)

    def step(self, loss=None):
        """After each optimiser step. `loss`, a number or a tensor of one, feeds the monitor. Returns the stage."""
        now = time.perf_counter()
        stage = self.stage
        if self._since is not None and stage in self.seconds:
            self.seconds[stage].append(now - self._since)
        self.steps += 1
        if loss is not None:
            self.losses.append((self.steps, float(loss.detach() if isinstance(loss, torch.Tensor) else loss)))
            now = time.perf_counter()
        self._since = now
        if self.stage != stage:
            self._apply()
            self._since = None
        return self.stage

    def _apply(self):
        lighthouse = self.stage == "lighthouse"
        for i, layer in enumerate(self.layers):
            layer.dense = not lighthouse or i in self.dense_layers
            layer.staged = True

    def require_dense(self, what):
        """StageError naming `what` while the stage is lighthouse."""
        if self.stage == "lighthouse":
            raise StageError(f"{what} in stage lighthouse, step {self.steps} of {self.lighthouse_steps}: "
                             "wanted the dense stage first")

    def _guard(self):
        train, generate = self.model.train, getattr(self.model, "generate", None)

        def guarded_train(mode=True):
            if not mode:
                self.require_dense("eval()")
            return train(mode)

        def guarded_generate(*arguments, **keywords):
            self.require_dense("generate()")
            return generate(*arguments, **keywords)

        self.model.train = guarded_train
        if generate is not None:
            self.model.generate = guarded_generate

    # ---- checkpoint ----

    def state_dict(self):
        return {"format": _FORMAT, "stage": self.stage, "steps": self.steps, "lighthouse_steps": self.lighthouse_steps,
                "dense_steps": self.dense_steps, "dense_layers": list(self.dense_layers), "rewarm": self.rewarm,
                "losses": [list(pair) for pair in self.losses]}

    def load_state_dict(self, state):
        """Goes on where state_dict was taken. ValueError for a state that is not one, or of other layers."""
        missing = sorted(set(self.state_dict()) - set(state))
        if missing:
            raise ValueError(f"the state has no {missing[0]}, wanted what TwoStage.state_dict gave")
        if state["format"] != _FORMAT:
            raise ValueError(f"the state has format {state['format']}, wanted {_FORMAT}")
        if state["stage"] not in STAGES:
            raise ValueError(f"the state has stage {state['stage']}, wanted one of {', '.join(STAGES)}")
        if tuple(state["dense_layers"]) != self.dense_layers:
            raise ValueError(f"the state has dense_layers {state['dense_layers']}, wanted {list(self.dense_layers)}")
        self.steps, self.lighthouse_steps = state["steps"], state["lighthouse_steps"]
        self.dense_steps, self.rewarm = state["dense_steps"], state["rewarm"]
        self.losses = [tuple(pair) for pair in state["losses"]]
        self._since = None
        self._apply()

    # ---- what it was worth ----

    def monitor(self, window=50):
        """What the losses say: {before, peak, now, recovered_after, advice}; None where there is nothing to say yet."""
        before = [loss for step, loss in self.losses if step <= self.lighthouse_steps][-window:]
        after = [(step, loss) for step, loss in self.losses if step > self.lighthouse_steps]
        found = {"before": statistics.fmean(before) if before else None, "peak": None, "now": None,
                 "recovered_after": None, "advice": None}
        if not after or not before:
            return found
        found["peak"] = max(loss for _, loss in after)
        found["now"] = statistics.fmean(loss for _, loss in after[-window:])
        for i in range(len(after)):
            if statistics.fmean(loss for _, loss in after[max(0, i - window + 1):i + 1]) <= found["before"] and \
                    i + 1 >= min(window, len(after)):
                found["recovered_after"] = after[i][0] - self.lighthouse_steps
                break
        if found["recovered_after"] is None:
            found["advice"] = ("the loss is not yet back where the switch found it: more dense_steps, p = 2, or a longer "
                               "run; 1,000 to 1,500 dense steps were needed at small scale")
        return found

    def audit(self, repeats=5):
        """Times a Lighthouse layer and a dense one on random tensors of the shape last seen: seconds, forward and backward.

        {lighthouse, dense, layers: how many of the layers are Lighthouse's}, medians; None before the first forward.
        """
        if self._shape is None:
            return None
        q_shape, k_shape, dtype, device = self._shape
        like = next(layer for i, layer in enumerate(self.layers) if i not in self.dense_layers or len(self.layers) == 1)
        layer = LighthouseAttention(like.levels, like.pool, like.topk, like.tile_topk, like.score, like.pad)
        q, k, v = (torch.randn(s, dtype=dtype, device=device, requires_grad=True) for s in (q_shape, k_shape, k_shape))
        found = {"layers": len(self.layers) - len(self.dense_layers)}
        for name, dense in (("lighthouse", False), ("dense", True)):
            layer.dense = dense
            found[name] = statistics.median(_seconds(layer, q, k, v) for _ in range(repeats + 1))
        return found

    def report(self, audit=True):
        """A dict of all of it: steps, seconds a step by stage, monitor, audit, and the attention's share of a step."""
        report = {"stage": self.stage, "steps": self.steps, "lighthouse_steps": self.lighthouse_steps,
                  "dense_steps": self.dense_steps, "dense_layers": list(self.dense_layers),
                  "seconds_a_step": {name: statistics.median(s) if s else None for name, s in self.seconds.items()},
                  "monitor": self.monitor(), "audit": self.audit() if audit else None}
        step, found = report["seconds_a_step"]["lighthouse"], report["audit"]
        if step and found:
            report["share_of_attention"] = (found["lighthouse"] * found["layers"]
                                            + found["dense"] * len(self.dense_layers)) / step
            report["dense_step_estimate"] = step + (found["dense"] - found["lighthouse"]) * found["layers"]
        return report

    def write_report(self, path, picture=None):
        """The report as JSON; `picture`: the losses with the switch, as PNG or SVG (needs matplotlib)."""
        with open(path, "w", encoding="utf-8") as file:
            json.dump(self.report(), file, indent=1)
        if picture:
            import matplotlib
            matplotlib.use("Agg")
            from matplotlib import pyplot
            figure, axes = pyplot.subplots(figsize=(7, 4))
            axes.plot([step for step, _ in self.losses], [loss for _, loss in self.losses], linewidth=0.8)
            axes.axvline(self.lighthouse_steps, color="black", linestyle="--", linewidth=0.8)
            axes.set_xlabel("step (dashed: Lighthouse to dense)")
            axes.set_ylabel("training loss")
            figure.tight_layout()
            figure.savefig(picture)
            pyplot.close(figure)


def _seconds(layer, q, k, v):
    if q.device.type != "cuda":
        start = time.perf_counter()
        torch.autograd.grad(layer(q, k, v).sum(), (q, k, v))
        return time.perf_counter() - start
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    torch.autograd.grad(layer(q, k, v).sum(), (q, k, v))
    stop.record()
    stop.synchronize()
    return 1e-3 * start.elapsed_time(stop)
