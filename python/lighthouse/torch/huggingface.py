"""Hugging Face transformers: attn_implementation="lighthouse", and a Trainer callback that runs the recipe.

    model = AutoModelForCausalLM.from_config(config, attn_implementation="lighthouse")
    trainer = Trainer(model, ..., callbacks=[LighthouseCallback(levels=3, pool=4, topk=1536,
                                                                lighthouse_steps=10000, dense_steps=6000)])

The stage is kept in each checkpoint, in lighthouse.json, and taken up by resume_from_checkpoint. config.lighthouse says
which stage the weights are of. Importing this module registers the implementation.
"""
import json
import os

from torch import nn
from transformers import AttentionInterface, TrainerCallback
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from .._library import LighthouseError
from .module import LighthouseAttention, StageError
from .two_stage import TwoStage

FILE = "lighthouse.json"


def attach(model, levels, pool, topk, tile_topk=128, score=None, pad=False):
    """Gives each attention module of a transformers model a LighthouseAttention, which has no parameters."""
    found = [m for m in model.modules() if isinstance(m, nn.Module) and hasattr(m, "layer_idx")
             and hasattr(m, "q_proj") and hasattr(m, "k_proj")]
    if not found:
        raise LighthouseError(f"{type(model).__name__} has no attention module with q_proj and k_proj, wanted some")
    if model.config._attn_implementation != "lighthouse":
        raise LighthouseError(f"attn_implementation is {model.config._attn_implementation}, wanted lighthouse")
    for module in found:
        module.lighthouse = LighthouseAttention(levels, pool, topk, tile_topk, score, pad)


def attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **keywords):
    """transformers' attention interface: query [B,H,N,d], key and value [B,G,N,d] -> ([B,N,H,d], None)."""
    layer = getattr(module, "lighthouse", None)
    if layer is None:
        state = getattr(module.config, "lighthouse", None)
        if state is None or state["stage"] == "lighthouse":
            raise StageError("attn_implementation is lighthouse and the model is in stage "
                             f"{state['stage'] if state else 'unknown'}, wanted LighthouseCallback (or attach) to "
                             "train it, or attn_implementation sdpa once its dense stage is over")
    if layer is None or layer.dense:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling,
                                      **keywords)
    if attention_mask is not None:
        raise LighthouseError("attention_mask hides tokens or parts documents, wanted whole sequences without padding")
    if key.shape[2] != query.shape[2]:
        raise LighthouseError(f"{key.shape[2]} keys for {query.shape[2]} queries, wanted training without a cache")
    if scaling is not None and abs(scaling * query.shape[3] ** 0.5 - 1) > 1e-6:
        raise LighthouseError(f"scaling is {scaling}, wanted 1/sqrt({query.shape[3]})")
    return layer(query, key, value, dropout_p=dropout).transpose(1, 2), None


AttentionInterface.register("lighthouse", attention)
AttentionMaskInterface.register("lighthouse", sdpa_mask)


class LighthouseCallback(TrainerCallback):
    """Runs a TwoStage over transformers' Trainer. Arguments: LighthouseAttention's, then TwoStage's."""

    def __init__(self, levels, pool, topk, lighthouse_steps, dense_steps, tile_topk=128, score=None, pad=False,
                 dense_layers=(0, 1, -2, -1), rewarm=0):
        self.shape = dict(levels=levels, pool=pool, topk=topk, tile_topk=tile_topk, score=score, pad=pad)
        self.recipe = dict(lighthouse_steps=lighthouse_steps, dense_steps=dense_steps, dense_layers=dense_layers,
                           rewarm=rewarm)
        self.two_stage = None

    def _tell(self, model):
        numbers = {name: self.shape[name] for name in ("levels", "pool", "topk", "tile_topk")}
        model.config.lighthouse = {"stage": self.two_stage.stage, **numbers}

    def on_train_begin(self, args, state, control, model=None, **keywords):
        if self.two_stage is None:
            attach(model, **self.shape)
            self.two_stage = TwoStage(model, **self.recipe)
        resumed = args.resume_from_checkpoint
        if state.global_step > 0:
            folder = resumed if isinstance(resumed, str) else None
            path = os.path.join(folder or os.path.join(args.output_dir, f"checkpoint-{state.global_step}"), FILE)
            if not os.path.exists(path):
                raise LighthouseError(f"{path} is missing, wanted the stage of step {state.global_step}")
            with open(path, encoding="utf-8") as file:
                self.two_stage.load_state_dict(json.load(file))
        self._tell(model)

    def on_step_end(self, args, state, control, model=None, **keywords):
        before = self.two_stage.stage
        if self.two_stage.step() != before:
            self._tell(model)

    def on_log(self, args, state, control, logs=None, **keywords):
        if logs and "loss" in logs and self.two_stage is not None:
            self.two_stage.losses.append((state.global_step, float(logs["loss"])))

    def on_save(self, args, state, control, **keywords):
        path = os.path.join(args.output_dir, f"checkpoint-{state.global_step}", FILE)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(self.two_stage.state_dict(), file)
