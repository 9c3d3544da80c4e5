"""lighthouse.torch on the CPU, and on a CUDA device where there is one. Skipped where PyTorch is not installed."""
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import lighthouse
import lighthouse.torch as lt

SHAPE = dict(levels=3, pool=2, topk=16, tile_topk=8)  # of 96 tokens 88 rows: backward reads q k v
NARROW = dict(levels=3, pool=4, topk=8, tile_topk=4)  # of 192 tokens 76 rows: backward reads the rows
KINDS = pytest.mark.parametrize("shape, tokens", [(SHAPE, 96), (NARROW, 192)], ids=["tokens", "rows"])
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=cuda)]


def draw(device="cpu", dtype=torch.float32, tokens=96, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, heads, tokens, 16, generator=generator).to(device, dtype).requires_grad_()
            for heads in (4, 2, 2)]


def gradients(inputs, shape=SHAPE):
    out = lt.lighthouse_attention(*inputs, **shape)
    dout = torch.linspace(-1, 1, out.numel(), device=out.device).view_as(out).to(out.dtype)
    return (out, *torch.autograd.grad(out, inputs, dout)), dout


@KINDS
@pytest.mark.parametrize("dtype, share", [(torch.float32, 2e-5), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
@pytest.mark.parametrize("device", DEVICES)
def test_agrees_with_the_reference(device, dtype, share, shape, tokens):
    inputs = draw(device, dtype, tokens)
    got, dout = gradients(inputs, shape)
    exact = lighthouse.trace(*(x.detach().float().cpu().numpy() for x in (*inputs, dout)), **shape)
    for name, g in zip(("out", "dq", "dk", "dv"), got):
        error = np.abs(g.detach().float().cpu().numpy() - exact[name]).max()
        assert error < share * np.abs(exact[name]).max(), name


@KINDS
@pytest.mark.parametrize("device", DEVICES)
def test_strides_change_no_bit(device, shape, tokens):
    inputs = draw(device, tokens=tokens)
    want, _ = gradients(inputs, shape)
    fused = torch.cat([x.detach().transpose(1, 2).flatten(2) for x in inputs], dim=2).requires_grad_()
    parts = [p.unflatten(2, (-1, 16)).transpose(1, 2) for p in fused.split([64, 32, 32], dim=2)]
    got, _ = gradients(parts, shape)
    assert all(g.transpose(1, 2).is_contiguous() for g in got)
    assert all(torch.equal(g, w) for g, w in zip(got, want))
    assert torch.equal(want[0], torch.ops.lighthouse.forward(*inputs, None, None, *shape.values())[0])


@KINDS
@pytest.mark.parametrize("kv_heads", [2, 4])
@pytest.mark.parametrize("device", DEVICES)
def test_a_dout_of_any_layout_gives_the_same_bits(device, kv_heads, shape, tokens):
    q, k, v = (torch.randn(2, heads, tokens, 16, generator=torch.Generator().manual_seed(heads)).to(device).requires_grad_()
               for heads in (4, kv_heads, kv_heads))
    out = lt.lighthouse_attention(q, k, v, **shape)
    dout = torch.linspace(-1, 1, tokens * 16, device=device).view(1, 1, tokens, 16).expand_as(out)
    want = torch.autograd.grad(out, (q, k, v), dout.contiguous(), retain_graph=True)
    wide = torch.zeros(2, 4, tokens, 32, device=device)
    wide[..., :16] = dout
    layouts = {"expanded": dout, "tokens first": dout.transpose(1, 2).contiguous().transpose(1, 2), "rows apart": wide[..., :16],
               "columns": dout.transpose(2, 3).contiguous().transpose(2, 3), "batch inside": dout.permute(1, 2, 0, 3)
               .contiguous().permute(2, 0, 1, 3)}
    for name, dout in layouts.items():
        got = torch.autograd.grad(out, (q, k, v), dout, retain_graph=True)
        assert all(torch.equal(g, w) for g, w in zip(got, want)), name


@KINDS
@pytest.mark.parametrize("device", DEVICES)
def test_a_scored_forward_is_followed_by_a_backward(device, shape, tokens):
    inputs = draw(device, tokens=tokens)
    by_norm = lambda q, k: (q.norm(dim=-1), k.norm(dim=-1))
    out = lt.lighthouse_attention(*inputs, **shape, score=by_norm)
    want = torch.ops.lighthouse.forward(*inputs, *(lt.pyramid(s, shape["levels"], shape["pool"]) for s in by_norm(*inputs[:2])),
                                        *shape.values())[0]
    for g, w in zip(torch.autograd.grad(out.sum(), inputs), torch.autograd.grad(want.sum(), inputs)):
        assert torch.equal(g, w)


@KINDS
@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(device, shape, tokens):
    forward = (*draw(device, tokens=tokens), None, None, *shape.values())
    torch.library.opcheck(torch.ops.lighthouse.forward.default, forward)
    q, k, v = (x.detach() for x in forward[:3])
    out, index, kept, lse = torch.ops.lighthouse.forward(q, k, v, *forward[3:])
    backward = (q, k, v) if kept.shape[0] == 1 else (None, None, None)
    torch.library.opcheck(torch.ops.lighthouse.backward.default,
                          (out, *backward, index, kept, lse, 2, False, *shape.values()))


@KINDS
@pytest.mark.parametrize("device", DEVICES)
def test_compiled_without_a_break(device, shape, tokens):
    inputs = draw(device, tokens=tokens)
    compiled = torch.compile(lambda *x: lt.lighthouse_attention(*x, **shape) * 2, fullgraph=True, backend="aot_eager")
    want = lt.lighthouse_attention(*inputs, **shape) * 2
    got = compiled(*inputs)
    assert torch.equal(got, want)
    for g, w in zip(torch.autograd.grad(got.sum(), inputs), torch.autograd.grad(want.sum(), inputs)):
        assert torch.equal(g, w)


@KINDS
@pytest.mark.parametrize("device", DEVICES)
def test_checkpointing_autocast_and_inference(device, shape, tokens):
    from torch.utils.checkpoint import checkpoint

    inputs = draw(device, tokens=tokens)
    layer = lt.LighthouseAttention(**shape)
    got = torch.autograd.grad(checkpoint(layer, *inputs, use_reentrant=False).sum(), inputs)
    assert all(torch.equal(g, w) for g, w in zip(got, torch.autograd.grad(layer(*inputs).sum(), inputs)))
    with torch.autocast(device, dtype=torch.bfloat16):
        assert layer(*inputs).dtype == torch.bfloat16
    with torch.inference_mode():
        assert torch.equal(layer(*inputs), layer(*(x.detach() for x in inputs)))


@KINDS
def test_a_second_derivative_is_refused(shape, tokens):
    inputs = draw(tokens=tokens)
    first, = torch.autograd.grad(lt.lighthouse_attention(*inputs, **shape).sum(), inputs[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        first.sum().backward()


def test_padding_and_its_warning():
    inputs = draw(tokens=93)
    with pytest.raises(lighthouse.LighthouseError, match="tokens is 93"):
        lt.lighthouse_attention(*inputs, **SHAPE)
    with pytest.warns(UserWarning, match="93 tokens are padded with 3"):
        out = lt.lighthouse_attention(*inputs, **SHAPE, pad=True)
    filled = [torch.nn.functional.pad(x, (0, 0, 0, 3)) for x in inputs]
    assert torch.equal(out, lt.lighthouse_attention(*filled, **SHAPE)[:, :, :93])


def test_given_scores_decide():
    q, k, v = (x.detach() for x in draw())
    seen = []

    def latest(q, k):
        seen.append(tuple(q.shape))
        rising = torch.arange(96.0)
        return rising.expand(2, 4, 96), rising.expand(2, 2, 96)

    score_q, score_k = (lt.pyramid(s, 3, 2) for s in latest(q, k))
    index = torch.ops.lighthouse.forward(q, k, v, score_q, score_k, 3, 2, 16, 8)[1]
    assert seen and (index == index[0, 0]).all()
    # Two tiles of 12 coarse entries: the last 8 of each are parents, so their children are there and the others' are not.
    children = sorted(set(index[0, 0].tolist()) & set(range(96, 144)))
    assert children == [96 + c for tile in (0, 24) for c in range(tile + 8, tile + 24)]
    assert torch.equal(lt.lighthouse_attention(q, k, v, **SHAPE, score=latest),
                       torch.ops.lighthouse.forward(q, k, v, score_q, score_k, 3, 2, 16, 8)[0])


def test_the_dilated_scorer():
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, 2, 96, 16, generator=generator) for _ in range(3))
    score_q, _ = lt.dilated(4)(q, k)
    strand = torch.arange(3, 96, 4)
    o = torch.nn.functional.scaled_dot_product_attention(q[:, :, strand], k[:, :, strand], k[:, :, strand], is_causal=True)
    assert torch.allclose(score_q[:, :, strand], o.norm(dim=-1), atol=1e-5)
    out = lt.LighthouseAttention(**SHAPE, score=lt.dilated(4))(q, k, v)
    assert out.isfinite().all() and not torch.equal(out, lt.LighthouseAttention(**SHAPE)(q, k, v))


def test_what_is_refused():
    q, k, v = draw()
    cases = [
        (lambda: lt.lighthouse_attention(q, k.double(), v, **SHAPE), "k is torch.float64"),
        (lambda: lt.lighthouse_attention(q.double(), k.double(), v.double(), **SHAPE), "q is torch.float64"),
        (lambda: lt.lighthouse_attention(q, k.to("meta"), v, **SHAPE), "k is on meta"),
        (lambda: lt.lighthouse_attention(q[:, :3], k, v, **SHAPE), "k has 2 heads"),
        (lambda: lt.lighthouse_attention(q, k[:, :, :95], v, **SHAPE), "k has shape"),
        (lambda: lt.lighthouse_attention(q[0], k, v, **SHAPE), "q has 3 dimensions"),
        (lambda: lt.lighthouse_attention(q, k, v, **SHAPE, attn_mask=q), "attn_mask"),
        (lambda: lt.lighthouse_attention(q, k, v, **SHAPE, dropout_p=0.1), "dropout_p is 0.1"),
        (lambda: lt.lighthouse_attention(q, k, v, **SHAPE, documents=[1]), "documents"),
        (lambda: lt.LighthouseAttention(3, 2, 20, 8), "topk is 20"),
    ]
    for call, text in cases:
        with pytest.raises(ValueError, match=text) as caught:
            call()
        assert "\n" not in str(caught.value)


@KINDS
def test_a_graph_outlives_the_plans_that_are_kept(shape, tokens):
    inputs = draw(tokens=tokens)
    want, dout = gradients(inputs, shape)
    out = lt.lighthouse_attention(*inputs, **shape)
    lt.release_plans()
    assert all(torch.equal(g, w) for g, w in zip(torch.autograd.grad(out, inputs, dout), want[1:]))
    assert lt.plans_kept() == 0


def test_plans_are_bounded():
    before = lt.plans_kept(64)
    try:
        lt.release_plans()
        for tokens in (96, 192, 288):
            lt.lighthouse_attention(*draw(tokens=tokens), **SHAPE)
        assert lt.plans_kept() == 3 and lt.plans_kept(2) == 2
        lt.lighthouse_attention(*draw(tokens=96), **SHAPE)
        assert lt.plans_kept() == 2
    finally:
        lt.plans_kept(64)
    assert before >= 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_more_is_saved_than_backward_must_have(dtype):
    """The paper's ratios, v a view of a fused projection: four tensors of S rows, index and lse, once; nothing of N rows."""
    shape, heads, tokens, dim = dict(levels=3, pool=4, topk=32, tile_topk=16), 2, 2048, 16
    rows = tokens // 16 + 2 * 4 * 32
    fused = torch.randn(1, tokens, 3, heads, dim, dtype=dtype).requires_grad_()
    saved = {}

    def pack(x):
        saved[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    lt.release_plans()
    layer = lt.LighthouseAttention(**shape)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = layer(*(x.transpose(1, 2) for x in fused.unbind(2)))
    floor = heads * rows * (4 * dim * dtype.itemsize + 4 + 4)
    assert floor <= sum(saved.values()) < floor + 6 * 256 and floor < fused.nbytes / 2  # six tensors, each aligned
    # Layers of one shape share a plan, and its working memory is given back.
    deep = [layer(*(x.transpose(1, 2) for x in fused.unbind(2))) for _ in range(3)]
    sum(x.sum() for x in (out, *deep)).backward()
    assert lt.plans_kept() == 1


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.attention = torch.nn.Linear(32, 96), lt.LighthouseAttention(**SHAPE)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 16)).permute(2, 0, 3, 1, 4)
        return x + self.attention(q, k, v).transpose(1, 2).flatten(2)


def test_two_stages(tmp_path):
    model = torch.nn.Sequential(*(Block() for _ in range(5)))
    recipe = lt.TwoStage(model, 2, 2, dense_layers=(0, -1), rewarm=1)
    x, seen = torch.randn(1, 96, 32), []
    while recipe.stage != "done":
        seen.append((recipe.stage, recipe.learning_rate_factor, sum(layer.dense for layer in recipe.layers)))
        loss = model(x).square().mean()
        loss.backward()
        if recipe.stage == "lighthouse":
            with pytest.raises(lt.StageError, match=r"eval\(\) in stage lighthouse"):
                model.eval()
        if recipe.steps == 1:
            state = recipe.state_dict()
        recipe.step(loss)
    assert seen == [("lighthouse", 1.0, 2), ("lighthouse", 1.0, 2), ("dense", 0.5, 5), ("dense", 1.0, 5)]
    model.eval()
    recipe.write_report(tmp_path / "report.json")
    again = lt.TwoStage(torch.nn.Sequential(*(Block() for _ in range(5))), 9, 9, dense_layers=(0, 4))
    again.load_state_dict(state)
    assert again.stage == "lighthouse" and again.steps == 1 and again.lighthouse_steps == 2
    with pytest.raises(ValueError, match="stage sideways, wanted one of"):
        again.load_state_dict({**state, "stage": "sideways"})


def test_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from lighthouse.torch.huggingface import LighthouseCallback

    torch.manual_seed(0)
    config = transformers.LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
                                      num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=96)
    data = [{"input_ids": row, "labels": row} for row in torch.randint(0, 64, (16, 96))]
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="lighthouse")
    callback = LighthouseCallback(**SHAPE, lighthouse_steps=3, dense_steps=3, dense_layers=(0,))
    arguments = transformers.TrainingArguments(str(tmp_path), max_steps=6, save_steps=2, per_device_train_batch_size=2,
                                               report_to=[], use_cpu=True, logging_steps=1, disable_tqdm=True)
    transformers.Trainer(model, arguments, train_dataset=data, callbacks=[callback]).train()
    assert callback.two_stage.stage == "done" and model.config.lighthouse["stage"] == "done"

    early = transformers.AutoModelForCausalLM.from_pretrained(str(tmp_path / "checkpoint-2"),
                                                              attn_implementation="lighthouse")
    with pytest.raises(lt.StageError, match="in stage lighthouse, wanted"):
        early(torch.zeros(1, 96, dtype=torch.long))
    late = transformers.AutoModelForCausalLM.from_pretrained(str(tmp_path / "checkpoint-6"),
                                                             attn_implementation="lighthouse")
    assert late(torch.zeros(1, 96, dtype=torch.long)).logits.isfinite().all()

    resumed = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="lighthouse")
    callback = LighthouseCallback(**SHAPE, lighthouse_steps=3, dense_steps=3, dense_layers=(0,))
    transformers.Trainer(resumed, arguments, train_dataset=data, callbacks=[callback]).train(
        resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert callback.two_stage.stage == "done"


# ---- a device: whatever made a tensor is waited for, and nothing else ----

def late(source, cycles=100_000_000):
    """A copy of source that is ready about 50 ms from now in the current stream, garbage until then."""
    target = torch.full_like(source, float("nan"))
    torch.cuda._sleep(cycles)
    target.copy_(source)
    return target.requires_grad_()


@cuda
@pytest.mark.parametrize("where", ["default", "side", "event"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_delayed_producer(where, dtype):
    inputs = [x.detach() for x in draw("cuda", dtype)]
    want, dout = gradients([x.clone().requires_grad_() for x in inputs])
    torch.cuda.synchronize()
    producer = torch.cuda.default_stream() if where == "default" else torch.cuda.Stream()
    consumer = torch.cuda.Stream() if where == "event" else producer
    with torch.cuda.stream(producer):
        made = [late(x) for x in inputs]
    if where == "event":
        consumer.wait_event(producer.record_event())
    with torch.cuda.stream(consumer):
        out = lt.lighthouse_attention(*made, **SHAPE)
        with torch.cuda.stream(producer):
            slow = late(dout)
        if where == "event":
            consumer.wait_event(producer.record_event())
        got = (out, *torch.autograd.grad(out, made, slow.detach()))
    torch.cuda.synchronize()
    for name, g, w in zip(("out", "dq", "dk", "dv"), got, want):
        assert torch.allclose(g, w, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-2), name
        assert g.isfinite().all(), name


@cuda
def test_captured_in_a_graph():
    inputs = [x.detach().clone().requires_grad_() for x in draw("cuda")]
    with torch.cuda.stream(torch.cuda.Stream()):
        gradients(inputs)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got, _ = gradients(inputs)
    fresh = draw("cuda", seed=5)
    with torch.no_grad():
        for x, y in zip(inputs, fresh):
            x.copy_(y)
    graph.replay()
    torch.cuda.synchronize()
    want, _ = gradients(fresh)
    assert all(torch.equal(g, w) for g, w in zip(got, want))
