"use strict";
// The reference: one module, its tensors as views of its memory. Ids are those of lh_tensor_id.
const ID = {q: 0, k: 1, v: 2, qPyr: 3, kPyr: 4, vPyr: 5, scoreQ: 6, scoreK: 7, out: 14, dout: 16, dq: 21, dk: 22, dv: 23};
const NO_SHIFT = 1, NO_MASK = 2;

const engine = (() => {
  const bytes = Uint8Array.from(atob(WASM), (c) => c.charCodeAt(0));
  // snprintf's file functions are linked and never called.
  const never = () => { throw new Error("the reference tried to use a file"); };
  const wasi = {fd_close: never, fd_seek: never, fd_write: never};
  const {exports: e} = new WebAssembly.Instance(new WebAssembly.Module(bytes), {wasi_snapshot_preview1: wasi});
  const doubles = (at, n) => new Float64Array(e.memory.buffer, at, n);
  const integers = (at, n) => new Int32Array(e.memory.buffer, at, n);
  return {
    // null, or the line that says what was refused.
    configure(s) {
      if (e.play_configure(s.tokens, s.dim, s.levels, s.pool, s.topk, s.tile) === 0) return null;
      const text = new Uint8Array(e.memory.buffer, e.play_error(), 512);
      return new TextDecoder().decode(text.slice(0, text.indexOf(0)));
    },
    draw: (seed) => e.play_draw(seed),
    run: (broken, keep) => e.play_run(broken, keep ? 1 : 0),
    probe(token, broken, keep, n) {
      e.play_probe(token, broken, keep ? 1 : 0);
      return Array.from(integers(e.play_moved(), n));
    },
    tensor: (id, n) => doubles(e.play_tensor(id), n),
    entries: () => e.play_entries(),
    selected: () => e.play_selected(),
    index: () => integers(e.play_index(), e.play_selected()),
    coverage: (n) => integers(e.play_coverage(), n),
    weights: () => doubles(e.play_weights(), e.play_selected() ** 2),
    hash: (seed) => BigInt.asUintN(64, e.play_case(seed)).toString(16).padStart(16, "0"),
  };
})();
