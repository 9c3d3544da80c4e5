"""Exported models: logits of transformers, from the folder and from GGUF, are those of the training program's formulas."""
import json
import os
import pathlib
import struct
import subprocess

import numpy as np
import pytest

from lighthouse import LighthouseError, export

WIDTH, LAYERS, HEADS, KV, DIM, HIDDEN, BASE = 32, 2, 4, 2, 8, 48, 10000.0


def checkpoint(path, stage="finished", tied=False):
    rng = np.random.default_rng(0)
    shapes = {"embed": (256, WIDTH), "norm_out": (1, WIDTH)}
    for i in range(LAYERS):
        shapes.update({f"layer{i}.norm_in": (1, WIDTH), f"layer{i}.qkv": (WIDTH, (HEADS + 2 * KV) * DIM),
                       f"layer{i}.out": (HEADS * DIM, WIDTH), f"layer{i}.norm_mid": (1, WIDTH),
                       f"layer{i}.gate_up": (WIDTH, 2 * HIDDEN), f"layer{i}.down": (HIDDEN, WIDTH)})
    if not tied:
        shapes["head"] = (WIDTH, 256)
    weights = {name: rng.normal(1 if "norm" in name else 0, 0.2, shape).astype(np.float32) for name, shape in shapes.items()}
    export.write_safetensors(path, weights)
    metadata = {"format": "lighthouse-train-2", "stage": stage, "step": "7", "width": WIDTH, "layers": LAYERS,
                "heads": HEADS, "kv-heads": KV, "dim": DIM, "hidden": HIDDEN, "tied": "yes" if tied else "no",
                "rotary-base": BASE}
    _with_metadata(path, {k: str(v) for k, v in metadata.items()})
    return weights


def _with_metadata(path, metadata):
    raw = path.read_bytes()
    size, = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8:8 + size])
    header["__metadata__"] = metadata
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + size:])


def logits(w, text, tied):
    """train/model.h in NumPy, float64."""
    w = {name: a.astype(np.float64) for name, a in w.items()}
    n, half = len(text), DIM // 2
    angle = np.arange(n)[:, None] * BASE ** (-np.arange(half) / half)
    c, s = np.cos(angle)[:, None], np.sin(angle)[:, None]

    def norm(x, g):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * g

    def rotate(x):
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * c - b * s, b * c + a * s], -1)

    x = w["embed"][text]
    for i in range(LAYERS):
        own = {k.split(".")[1]: v for k, v in w.items() if k.startswith(f"layer{i}.")}
        heads = (norm(x, own["norm_in"]) @ own["qkv"]).reshape(n, -1, DIM)
        q, k, v = rotate(heads[:, :HEADS]), rotate(heads[:, HEADS:HEADS + KV]), heads[:, HEADS + KV:]
        k, v = np.repeat(k, HEADS // KV, 1), np.repeat(v, HEADS // KV, 1)
        weight = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(DIM) + np.triu(np.full((n, n), -np.inf), 1)
        weight = np.exp(weight - weight.max(-1, keepdims=True))
        o = np.einsum("hqk,khd->qhd", weight / weight.sum(-1, keepdims=True), v)
        x = x + o.reshape(n, -1) @ own["out"]
        gate, up = np.split(norm(x, own["norm_mid"]) @ own["gate_up"], 2, -1)
        x = x + (gate / (1 + np.exp(-gate)) * up) @ own["down"]
    return norm(x, w["norm_out"]) @ (w["embed"].T if tied else w["head"])


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("form", ["folder", "gguf"])
def test_logits(tmp_path, tied, form):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    arguments = [str(tmp_path / "c.safetensors"), str(tmp_path / "out")]
    keywords = {}
    weights = checkpoint(tmp_path / "c.safetensors", tied=tied)
    if form == "gguf":
        pytest.importorskip("gguf")
        arguments += ["--gguf", str(tmp_path / "out" / "model.gguf")]
        keywords["gguf_file"] = "model.gguf"
    assert export.main(arguments) == 0
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments[1])
    text = "Lighthouse: è 日\n\x00 end"
    ids = tokenizer(text)["input_ids"]
    assert ids == list(text.encode()) and tokenizer.decode(ids) == text
    model = transformers.AutoModelForCausalLM.from_pretrained(arguments[1], dtype=torch.float32, **keywords).eval()
    with torch.no_grad():
        got = model(torch.tensor([ids])).logits[0].double().numpy()
    want = logits(weights, np.array(ids), tied)
    assert np.abs(got - want).max() < 1e-5 * np.abs(want).max()


def test_what_is_refused(tmp_path, capsys):
    path = tmp_path / "c.safetensors"
    checkpoint(path, stage="lighthouse")
    assert export.main([str(path), str(tmp_path / "out")]) == 2
    assert "in stage lighthouse, step 7: wanted stage finished" in capsys.readouterr().err
    checkpoint(path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("kept")
    with pytest.raises(LighthouseError, match="wanted a folder that is not there yet"):
        export.write_huggingface(export.Trained(path), str(tmp_path / "full"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(LighthouseError, match="is damaged"):
        export.Trained(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.safetensors", "full"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The program, and the folder of a small run that it finished."""
    program = pathlib.Path(os.environ["LIGHTHOUSE_LIBRARY"]).resolve().parent / "lighthouse"
    if not program.exists() or subprocess.run([program, "train", "--help"], capture_output=True).returncode:
        pytest.skip("no lighthouse train beside the library")
    folder = tmp_path_factory.mktemp("run")
    (folder / "text").write_bytes(pathlib.Path(__file__).read_bytes() * 2)
    flags = dict(width=32, layers=2, heads=4, kv_heads=2, dim=8, hidden=48, context=128, batch=2, levels=2, pool=2, topk=16,
                 tile_topk=8, lighthouse_steps=4, dense_steps=12, dense_layers=0, held_out_windows=1, retrieval_trials=0)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    subprocess.run([program, "train", "--quiet", "--text", folder / "text", *flags, folder / "run"], check=True,
                   capture_output=True)
    return program, folder / "run"


def test_the_program_exports_the_same(run, tmp_path):
    program, folder = run
    subprocess.run([program, "train", "--export", tmp_path / "c", folder], check=True)
    assert export.main([str(folder), str(tmp_path / "python")]) == 0
    names = sorted(p.name for p in (tmp_path / "python").iterdir())
    assert names == sorted(p.name for p in (tmp_path / "c").iterdir()) and len(names) == 4
    for name in names:
        if name.endswith(".json"):
            assert json.loads((tmp_path / "c" / name).read_text()) == json.loads((tmp_path / "python" / name).read_text())
    (meta, c), (meta_too, python) = (export.read_safetensors(tmp_path / made / "model.safetensors")
                                     for made in ("c", "python"))
    assert meta == meta_too and c.keys() == python.keys()
    assert all(np.array_equal(c[name], array) for name, array in python.items())


def test_the_same_greedy_text(run, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    program, folder = run
    subprocess.run([program, "train", "--export", tmp_path / "out", folder], check=True)
    text = subprocess.run([program, "train", "--generate=40", "--temperature", "0", "--prompt", "import ", folder],
                          check=True, capture_output=True).stdout[:-1]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    ids = tokenizer("import ", return_tensors="pt")["input_ids"]
    got = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False)
    assert bytes(got[0].tolist()) == text and len(text) == len("import ") + 40


@pytest.mark.parametrize("tied", [False, True])
def test_llama_cpp(tmp_path, tied):
    """llama.cpp, as the package xllamacpp has it, gives all 256 probabilities after a text that ends in any byte."""
    pytest.importorskip("gguf")
    llama = pytest.importorskip("xllamacpp")
    weights = checkpoint(tmp_path / "c.safetensors", tied=tied)
    assert export.main([str(tmp_path / "c.safetensors"), str(tmp_path / "out"), "--gguf", str(tmp_path / "m.gguf")]) == 0
    given = llama.CommonParams()
    given.model.path, given.n_ctx, given.cpuparams.n_threads, given.warmup = str(tmp_path / "m.gguf"), 256, 1, False
    given.cache_type_k = given.cache_type_v = llama.ggml_type.GGML_TYPE_F32
    given.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED  # it would round to float16
    server = llama.Server(given)
    for text in ("Lighthouse: è 日 end", "a\x00b\n\n", "  "):
        want = logits(weights, np.array(list(text.encode())), tied)[-1]
        want = want - want.max() - np.log(np.exp(want - want.max()).sum())
        answer = server.handle_completions({"prompt": list(text.encode()), "max_tokens": 1, "logprobs": 256,
                                            "logit_bias": {"65": 100}})  # for what is drawn, which must be text
        top = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        got = {entry["id"]: entry["logprob"] for entry in top}
        assert sorted(got) == list(range(256))
        assert max(abs(got[i] - want[i]) for i in got) < 1e-5 * np.abs(want).max()
