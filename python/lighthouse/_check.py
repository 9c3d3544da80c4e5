"""check(): another implementation's tensors against the reference, stage by stage."""
import json
from difflib import get_close_matches
from ctypes import byref, c_void_p, cast, c_char_p
from dataclasses import dataclass, field

from ._arrays import tensor, to_numpy
from ._library import MISMATCH, OK, LighthouseError, Tensor, call, library
from ._trace import TENSORS, configuration, names


@dataclass(frozen=True)
class Verdict:
    """One tensor, judged on the dump's own upstream tensors (part "stage") or from q, k, v alone ("layer")."""

    tensor: str
    part: str
    verdict: str  # "exact", "within", "excused", or what is wrong
    passed: bool
    worst: tuple  # position of the element that decides, () when none does
    got: float
    wanted: float
    share: float  # of the allowance
    note: str


@dataclass(frozen=True)
class Fault:
    """A known bug that reproduces the tensors of a wrong stage."""

    name: str
    stage: str
    breaks: str
    fix: str


@dataclass(frozen=True)
class Report:
    ok: bool
    verdicts: tuple
    first_wrong: str  # stage, "" when all is right
    faults: tuple
    text: str = field(repr=False)  # as `lighthouse check` prints it

    def __str__(self):
        return self.text

    def __bool__(self):
        return self.ok


def check(tensors, *, levels, pool, topk=0, tile_topk=None, require=()):
    """Judges a dict of arrays by tensor name: q, k, v, and any of the other names of the trace.

    Without v what hangs on it is not judged. Names that are none of the trace's are passed over, with a line in the text.
    A tensor that could not be judged makes the report not ok; with `require`, one of those names.
    Returns a Report; raises LighthouseError when nothing can be judged (no q, shapes that fit no configuration).
    """
    tensors = {name: array for name, array in tensors.items() if array is not None}
    unknown = sorted(set(tensors) - set(names()))
    strange = sorted(set(require) - set(names()))
    if strange:
        raise LighthouseError(f"require has {strange[0]}, wanted names of {' '.join(names())}")
    missing = [name for name in ("q", "k") if name not in tensors]
    if missing:
        raise LighthouseError(f"tensor {missing[0]} is missing, wanted q and k")
    arrays = {name: to_numpy(array, name) for name, array in tensors.items() if name not in unknown}
    config = configuration(arrays["q"][0], arrays["k"][0], levels, pool, topk, tile_topk)
    present = (Tensor * TENSORS)()
    for name, (array, dtype) in arrays.items():
        present[names().index(name)] = tensor(array, dtype)
    report = c_void_p()
    status = call("lh_check", byref(config), present, byref(report), allowed=(OK, MISMATCH))
    try:
        found = json.loads(cast(report, c_char_p).value.decode())
    finally:
        library.lh_text_free(report)
    for name in unknown:
        near = [{"o": "out", "do": "dout"}.get(name)] if name in ("o", "do") else get_close_matches(name, names(), 1)
        found["text"] = (f"tensor '{name}' is none of the trace's names: not judged"
                         + (f"; is it {near[0]}?" if near else "") + "\n" + found["text"])
    unjudged = [name for name in require if name not in found["judged"]]
    if unjudged:
        found["text"] += f"required and not judged: {' '.join(unjudged)}\n"
    enough = not unjudged and found["verdict"] != "wrong" if require else status == OK
    if require and enough and status != OK:
        found["text"] += f"required, judged and right: {' '.join(require)}\n"
    return Report(
        ok=enough,
        verdicts=tuple(Verdict(**{**row, "worst": tuple(row["worst"])}) for row in found["verdicts"]),
        first_wrong=found["first_wrong"],
        faults=tuple(Fault(**fault) for fault in found["faults"]),
        text=found["text"],
    )


def assert_right(tensors, **configuration):
    """For pytest: raises AssertionError with the whole report unless every tensor is right (and `require` judged)."""
    report = check(tensors, **configuration)
    assert report.ok, "\n" + report.text
