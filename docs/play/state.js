// What is shown, where it comes from, and its form in the address: everything else follows from this.
const LN2 = 0.69314718055994530942;
const PRESETS = {
  twelve: {tokens: 12, dim: 1, levels: 3, pool: 2, topk: 2, tile: 2, token: 7,
    hint: "Every number of it can be worked with a pencil: docs/algorithm.md does.",
    q: [1, 1, -1, -1, 2, 0, 1, 1, 1, -1, 3, 1].map((x) => x * LN2),
    k: [1, -1, 1, -1, 0, -2, 3, -1, 1, 1, 2, 0],
    v: [4, 0, 0, 4, 8, 0, 2, 6, 4, 4, 1, 3]},
  six: {tokens: 6, dim: 1, levels: 2, pool: 2, topk: 2, tile: 2, token: 5,
    hint: "Make token 5 six times as strong and beyond: its pair takes the place of tokens 0 and 1, and out at 0 is gone, " +
      "five tokens before. Causality holds with the index held; the choice itself looks ahead.",
    q: [3, .5, 2, .5, 1, .5], k: [1, .5, 2, .5, 1.5, .5], v: [1, 2, 3, 4, 5, 6]},
  drawn: {tokens: 64, dim: 4, levels: 3, pool: 2, topk: 8, tile: 4, token: 20,
    hint: "Gaussian q, k, v. Make one token strong and see windows close elsewhere in its tile."},
};
const NUMBERS = ["tokens", "dim", "levels", "pool", "topk", "tile", "seed", "token"];

function preset(name) {
  const {tokens, dim, levels, pool, topk, tile, token} = PRESETS[name];
  return {preset: name, tokens, dim, levels, pool, topk, tile, token, seed: 1, broken: 0, strength: new Map()};
}

// "#preset=drawn&tokens=64&...&strength=5:2.5,9:0"; what is missing or cannot be read keeps its default.
function readState(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const s = preset(given.get("preset") in PRESETS ? given.get("preset") : "twelve");
  for (const name of NUMBERS)
    if (/^\d{1,10}$/.test(given.get(name) ?? "")) s[name] = Number(given.get(name));
  s.broken = (given.get("broken") ?? "").split(",").reduce(
    (bits, word) => bits | (word === "shift" ? NO_SHIFT : word === "mask" ? NO_MASK : 0), 0);
  for (const pair of (given.get("strength") ?? "").split(",")) {
    const [token, value] = pair.split(":").map(Number);
    if (pair.includes(":") && token >= 0 && value >= 0 && value <= 8) s.strength.set(token, value);
  }
  return s;
}

function writeState(s) {
  const parts = [`preset=${s.preset}`, ...NUMBERS.map((name) => `${name}=${s[name]}`)];
  const broken = [s.broken & NO_SHIFT ? "shift" : "", s.broken & NO_MASK ? "mask" : ""].filter(Boolean);
  if (broken.length) parts.push(`broken=${broken}`);
  if (s.strength.size) parts.push(`strength=${[...s.strength].map(([t, x]) => `${t}:${x}`)}`);
  return "#" + parts.join("&");
}

// Runs the layer of a state; returns everything that the pictures read, or {refusal}.
function compute(s) {
  const refusal = engine.configure(s);
  if (refusal) return {refusal};
  const nd = s.tokens * s.dim, given = PRESETS[s.preset];
  engine.draw(s.seed);
  for (const name of ["q", "k", "v"]) {
    const x = engine.tensor(ID[name], nd);
    if (given[name]) x.set(given[name]);
    if (name !== "v")
      for (const [token, factor] of s.strength)
        for (let c = 0; c < s.dim && token < s.tokens; c++) x[token * s.dim + c] *= factor;
  }
  engine.tensor(ID.dout, nd).fill(0).fill(1, s.token * s.dim, (s.token + 1) * s.dim);
  engine.run(s.broken, false);
  const P = engine.entries(), norms = (id) => {
    const x = engine.tensor(id, nd);
    return Array.from({length: s.tokens}, (_, j) => Math.hypot(...x.subarray(j * s.dim, (j + 1) * s.dim)));
  };
  const t = {
    s, P, S: engine.selected(), index: engine.index().slice(), coverage: engine.coverage(s.tokens).slice(),
    weights: engine.weights().slice(), scoreQ: engine.tensor(ID.scoreQ, P).slice(), scoreK: engine.tensor(ID.scoreK, P).slice(),
    out: norms(ID.out), dq: norms(ID.dq), dk: norms(ID.dk), dv: norms(ID.dv),
  };
  t.moved = engine.probe(s.token, s.broken, true, s.tokens);
  t.movedFree = engine.probe(s.token, s.broken, false, s.tokens);
  return roles(t);
}

// Windows, slots, and how each entry was chosen (SPEC 3.3), read off index and scores.
function roles(t) {
  const {tokens, levels, pool, tile, topk} = t.s, window = [1], offset = [0];
  for (let l = 0; l < levels; l++) {
    window[l + 1] = window[l] * pool;
    offset[l + 1] = offset[l] + tokens / window[l];
  }
  const slot = new Int32Array(t.P).fill(-1), role = new Array(t.P).fill("absent");
  t.index.forEach((entry, s) => { slot[entry] = s; role[entry] = "leaf"; });
  const tiles = levels > 1 ? topk / tile : 1;
  for (let l = levels - 1; l > 0; l--) {
    const perTile = tokens / window[l] / tiles;
    for (let n = 0; n < tiles; n++) {
      const candidates = [];
      for (let i = n * perTile; i < (n + 1) * perTile; i++) if (slot[offset[l] + i] >= 0) candidates.push(offset[l] + i);
      candidates.sort((a, b) => t.scoreQ[b] - t.scoreQ[a] || a - b);
      for (const entry of candidates.slice(0, tile / 2)) role[entry] = "query";
      const rest = candidates.slice(tile / 2).sort((a, b) => t.scoreK[b] - t.scoreK[a] || a - b);
      for (const entry of rest.slice(0, tile / 2)) role[entry] = "key";
    }
  }
  return Object.assign(t, {window, offset, slot, role, tiles});
}

const levelOf = (t, entry) => t.offset.findLastIndex((first) => first <= entry);
function tokensOf(t, entry) {
  const l = levelOf(t, entry), first = (entry - t.offset[l]) * t.window[l];
  return [first, first + t.window[l] - 1];
}
const range = ([a, b]) => (a === b ? `${a}` : `${a}–${b}`);
// Slots whose output position j receives (SPEC 3.7; without the shift, the windows it lies in).
function received(t, j) {
  const slots = [];
  for (let l = 0; l < t.s.levels; l++) {
    const i = t.s.broken & NO_SHIFT ? Math.floor(j / t.window[l]) : Math.floor((j + 1) / t.window[l]) - 1;
    if (i >= 0 && t.slot[t.offset[l] + i] >= 0) slots.push(t.slot[t.offset[l] + i]);
  }
  return slots;
}
