"""A model that `lighthouse train` made, as others read it: a Hugging Face Llama, and GGUF.

    python -m lighthouse export RUN_FOLDER OUT [--gguf FILE]

OUT becomes a folder with config.json, model.safetensors (float32) and a tokenizer of bytes: token i is byte i. Refused before
the dense stage is over: until then the weights are those of a model that looks ahead.
"""
import argparse
import json
import os
import shutil
import struct
import sys
import tempfile

import numpy as np

from ._library import LighthouseError

CHECKPOINT = "checkpoint.safetensors"
FORMATS = ("lighthouse-train-1", "lighthouse-train-2")
FINISHED = "finished"
EPSILON = 1e-5  # of the model's norms


def read_safetensors(path):
    """(metadata, {name: float32 array}) of the F32 tensors of a file."""
    try:
        with open(path, "rb") as file:
            size, = struct.unpack("<Q", file.read(8))
            if size > 1 << 26:
                raise ValueError
            header = json.loads(file.read(size))
            data = file.read()
        metadata = header.pop("__metadata__", {})
        tensors = {}
        for name, entry in header.items():
            if entry["dtype"] == "F32":
                start, end = entry["data_offsets"]
                tensors[name] = np.frombuffer(data[start:end], "<f4").reshape(entry["shape"])
    except OSError as error:
        raise LighthouseError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, struct.error):
        raise LighthouseError(f"{path} is damaged, wanted a safetensors file") from None
    return metadata, tensors


def write_safetensors(path, tensors):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, array in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array, "<f4").tobytes())


class Trained:
    """A checkpoint whose dense stage is over: its shape and its weights."""

    def __init__(self, path):
        if os.path.isdir(path):
            path = os.path.join(path, CHECKPOINT)
        metadata, self.weights = read_safetensors(path)
        found = metadata.get("format")
        if found not in FORMATS:
            raise LighthouseError(f"{path} has format {found}, wanted one of {', '.join(FORMATS)}")
        if metadata.get("stage") != FINISHED:
            raise LighthouseError(f"{path} is in stage {metadata.get('stage')}, step {metadata.get('step')}: wanted stage "
                                  f"{FINISHED}, the dense stage over")
        try:
            self.width, self.layers, self.heads, self.kv_heads, self.dim, self.hidden = (
                int(metadata[name]) for name in ("width", "layers", "heads", "kv-heads", "dim", "hidden"))
            self.tied = metadata["tied"] == "yes"
            self.rotary_base = float(metadata["rotary-base"])
            self.tokens = int(metadata["context"]) if "context" in metadata else 1 << 20
        except (KeyError, ValueError) as error:
            raise LighthouseError(f"{path} has no setting {error}, wanted the shape of its model") from None
        for name, shape in (("embed", (256, self.width)), ("norm_out", (1, self.width))):
            if name not in self.weights or self.weights[name].shape != shape:
                raise LighthouseError(f"{path} has no {name} of shape {list(shape)}")

    def llama(self):
        """The weights under transformers' names, [out, in]."""
        d, f = self.dim, self.hidden
        named = {"model.embed_tokens.weight": self.weights["embed"]}
        for i in range(self.layers):
            own = {name: self.weights[f"layer{i}.{name}"]
                   for name in ("norm_in", "qkv", "out", "norm_mid", "gate_up", "down")}
            qkv, gate_up, prefix = own["qkv"].T, own["gate_up"].T, f"model.layers.{i}."
            ends = (self.heads * d, (self.heads + self.kv_heads) * d)
            named.update({
                prefix + "input_layernorm.weight": own["norm_in"][0],
                prefix + "self_attn.q_proj.weight": qkv[:ends[0]],
                prefix + "self_attn.k_proj.weight": qkv[ends[0]:ends[1]],
                prefix + "self_attn.v_proj.weight": qkv[ends[1]:],
                prefix + "self_attn.o_proj.weight": own["out"].T,
                prefix + "post_attention_layernorm.weight": own["norm_mid"][0],
                prefix + "mlp.gate_proj.weight": gate_up[:f],
                prefix + "mlp.up_proj.weight": gate_up[f:],
                prefix + "mlp.down_proj.weight": own["down"].T,
            })
        named["model.norm.weight"] = self.weights["norm_out"][0]
        if not self.tied:
            named["lm_head.weight"] = self.weights["head"].T
        return named


def _byte_names():
    """GPT-2's printable name of each byte, which byte-level tokenizers use."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    names, others = {b: chr(b) for b in printable}, 0
    for b in range(256):
        if b not in names:
            names[b] = chr(256 + others)
            others += 1
    return [names[b] for b in range(256)]


def _tokenizer():
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
            "pre_tokenizer": level, "post_processor": None, "decoder": level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": {name: b for b, name in enumerate(_byte_names())}, "merges": []}}


def _config(model):
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 256, "hidden_size": model.width,
            "intermediate_size": model.hidden, "num_hidden_layers": model.layers, "num_attention_heads": model.heads,
            "num_key_value_heads": model.kv_heads, "head_dim": model.dim, "hidden_act": "silu",
            "max_position_embeddings": model.tokens, "rms_norm_eps": EPSILON, "attention_bias": False, "mlp_bias": False,
            "rope_theta": model.rotary_base, "rope_parameters": {"rope_type": "default", "rope_theta": model.rotary_base},
            "tie_word_embeddings": model.tied, "torch_dtype": "float32", "bos_token_id": None, "eos_token_id": None}


def write_huggingface(model, folder):
    """Writes the folder whole or not at all; it must not exist yet, or be empty."""
    if os.path.exists(folder) and (not os.path.isdir(folder) or os.listdir(folder)):
        raise LighthouseError(f"OUT is {folder}, wanted a folder that is not there yet")
    parent = os.path.dirname(os.path.abspath(folder))
    if not os.path.isdir(parent):
        raise LighthouseError(f"OUT is {folder}, wanted it in a folder that exists")
    made = tempfile.mkdtemp(prefix=".export-", dir=parent)
    try:
        os.chmod(made, 0o755)
        write_safetensors(os.path.join(made, "model.safetensors"), model.llama())
        for name, content in (("config.json", _config(model)), ("tokenizer.json", _tokenizer()),
                              ("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast",
                                                         "clean_up_tokenization_spaces": False,
                                                         "model_max_length": model.tokens})):
            with open(os.path.join(made, name), "w", encoding="utf-8") as file:
                json.dump(content, file, indent=1)
        if os.path.isdir(folder):
            os.rmdir(folder)
        os.rename(made, folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def write_gguf(model, path):
    """The same model as GGUF (needs the package gguf). There rotation pairs neighbours: rows of q and k change places."""
    try:
        import gguf
    except ImportError:
        raise LighthouseError("the package gguf is not here, wanted it for --gguf (pip install gguf)") from None
    writer = gguf.GGUFWriter(path + ".part", "llama")
    writer.add_name("lighthouse")
    writer.add_context_length(model.tokens)
    writer.add_embedding_length(model.width)
    writer.add_block_count(model.layers)
    writer.add_feed_forward_length(model.hidden)
    writer.add_head_count(model.heads)
    writer.add_head_count_kv(model.kv_heads)
    writer.add_key_length(model.dim)
    writer.add_value_length(model.dim)
    writer.add_rope_dimension_count(model.dim)
    writer.add_rope_freq_base(model.rotary_base)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_vocab_size(256)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(_byte_names())
    writer.add_token_types([gguf.TokenType.NORMAL] * 256)
    # llama.cpp loads no such tokenizer without merges: one that never happens, its left side being no token.
    writer.add_token_merges(["\u0100\u0100 \u0100"])
    writer.add_add_bos_token(False)
    parts = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
             "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
             "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
    whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    for name, array in model.llama().items():
        name = name[: -len(".weight")]
        if name in whole:
            name = whole[name]
        else:
            layer, part = name[len("model.layers."):].split(".", 1)
            if part in ("self_attn.q_proj", "self_attn.k_proj"):
                heads = model.heads if part == "self_attn.q_proj" else model.kv_heads
                array = array.reshape(heads, 2, model.dim // 2, model.width).swapaxes(1, 2).reshape(array.shape)
            name = f"blk.{layer}.{parts[part]}"
        writer.add_tensor(name + ".weight", np.ascontiguousarray(array, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(path + ".part", path)


def main(arguments):
    parser = argparse.ArgumentParser(prog="lighthouse export", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_folder", metavar="RUN_FOLDER", help="of `lighthouse train`, or a checkpoint file")
    parser.add_argument("out", metavar="OUT", help="folder to make")
    parser.add_argument("--gguf", metavar="FILE", help="also write GGUF")
    given = parser.parse_args(arguments)
    try:
        model = Trained(given.run_folder)
        write_huggingface(model, given.out)
        if given.gguf:
            write_gguf(model, given.gguf)
    except LighthouseError as error:
        print(f"lighthouse export: {error}", file=sys.stderr)
        return 2
    return 0
