"""bench/torch_pretrain.py at toy size: its text, what it leaves and goes on from, what it refuses. Skipped without PyTorch."""
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

torch = pytest.importorskip("torch")

BENCH = Path(__file__).parents[2] / "bench"
sys.path.insert(0, str(BENCH))
import pretrain_model
import torch_pretrain
from pretrain_model import Run, Training

TOY = "tokens=128 batch=2 topk=8 tile=8 steps=10 every=5 width=16 depth=3 heads=1 hidden=24 warmup=2 measured=512"
TEXT = torch.randint(97, 123, (6000,), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def points(words):
    log = io.StringIO()
    attention, _, rest = words.partition(" ")
    found = Training(Run.parse(f"{attention} {TOY} {rest}"), TEXT, 5000, False, log=log)()
    first, *lines = map(json.loads, log.getvalue().splitlines())
    assert lines == found and first["seed"] == 1
    return [{name: value for name, value in point.items() if name != "seconds"} for point in found]


def test_a_shorter_run_that_leaves_a_longer_one_is_that_run():
    whole, alone = points("dense also=5"), Training(Run.parse(f"dense {TOY} steps=5"), TEXT, 5000, False)()
    assert whole[-1]["of"] == 5 and whole[-1]["held_out"] == alone[-1]["held_out"] != whole[0]["held_out"]


def test_stages_and_roll_back():
    found = points("two-stage share=0.3 every=1 layers=0 back=2:0.4")
    assert [p["dense_layers"] for p in found] == [1] * 4 + [2] * 2 + [3] * 4  # for the step that follows
    assert found[-1]["last"] and found[-1]["tokens"] == 2560
    assert found[0]["training"] == pytest.approx(points("dense every=1")[0]["training"], abs=0.02)


@pytest.mark.skipif(not shutil.which("gnuplot"), reason="no gnuplot")
def test_picture(tmp_path):
    for words in ("two-stage share=0.5 every=1", "dense every=1 also=5"):
        attention, _, rest = words.partition(" ")
        with open(tmp_path / f"{attention}.jsonl", "w") as log:
            Training(Run.parse(f"{attention} {TOY} {rest}"), TEXT, 5000, False, log=log)()
    done = subprocess.run([sys.executable, BENCH / "pretrain_picture.py", tmp_path / "picture.svg",
                           tmp_path / "two-stage.jsonl", tmp_path / "dense.jsonl"])
    drawn = ElementTree.parse(tmp_path / "picture.svg")
    words = [text.strip() for text in drawn.getroot().itertext() if text.strip()]
    assert done.returncode == 0 and {"50 % dense", "dense", "MB of text", "seconds of steps"} <= set(words)
    done = subprocess.run([sys.executable, BENCH / "pretrain_picture.py", tmp_path / "no.svg", tmp_path / "no.jsonl"],
                          capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and not (tmp_path / "no.svg").exists()


def test_spread(tmp_path, capsys):
    for layer, seed, loss in (("original", 1, 2.0), ("original", 2, 2.3), ("two-stage", 1, 2.1), ("two-stage", 2, 2.3)):
        lines = [{"attention": layer, "seed": seed, "steps": 100}] + [{"losses": [loss] * 50}] * 2
        (tmp_path / f"{layer}{seed}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    torch_pretrain.spread(tmp_path)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "| 100 | 2.0000 | 2.3000 | 2.1000 | 2.3000 | 0.0707 | 0.2550 |"
    (tmp_path / "two-stage2.jsonl").unlink()  # a pair that is not whole is no pair
    torch_pretrain.spread(tmp_path)
    assert not capsys.readouterr().out


def test_time_that_runs_out_is_said():
    found = Training(Run.parse(f"dense {TOY}"), TEXT, 5000, False, until=0.0)()
    assert len(found) == 1 and found[0]["stopped"] and found[0]["steps"] == 1


def test_text(tmp_path):
    for i in range(200):
        (tmp_path / f"{i % 7}").mkdir(exist_ok=True)
        (tmp_path / f"{i % 7}" / f"{i}.py").write_text(f"x = {i // 2}\n" * 9)
    (tmp_path / "binary.py").write_bytes(b"\0")
    learnt, size, _, files = pretrain_model.corpus([str(tmp_path)], 0.1, tmp_path / "text")
    text = (tmp_path / "text").read_bytes()
    assert files == 100 and len(text) == size
    parts = [set(part.split(b"\n")) - {b""} for part in (text[:learnt], text[learnt:])]
    assert len(parts[0]) + len(parts[1]) == 100 and not parts[0] & parts[1] and 2 < len(parts[1]) < 25


@pytest.mark.parametrize("arguments, text", [
    (["--out", "x", "sparse"], "begins with sparse"), (["--out", "x", "dense colour=1"], "has colour=1"),
    (["--out", "x", "original"], "wanted a checkout"), (["dense"], "wanted both"), (["--out", "x", "dense seed=one"], "one"),
    (["--out", "x", "--text", ".", "dense"], "held out, wanted 98305"),
])
def test_what_is_refused(tmp_path, monkeypatch, capsys, arguments, text):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["torch_pretrain.py", *arguments])
    with pytest.raises(SystemExit) as caught:
        torch_pretrain.main()
    assert caught.value.code == 2 and text in capsys.readouterr().err.splitlines()[-1]
