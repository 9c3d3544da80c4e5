// Controls, words, keyboard and pointer; redraw() is the only place that changes the page.
let state = readState(location.hash), trace = null, why = -1;

function heardRows(t) {
  const share = new Float64Array(t.S);
  for (const s of received(t, t.s.token)) for (let u = 0; u < t.S; u++) share[u] += t.weights[s * t.S + u];
  const words = {leaf: "a leaf", query: "a parent, by query", key: "a parent, by key"};
  return [...share.keys()].filter((u) => share[u] > 0).sort((a, b) => share[b] - share[a]).slice(0, 12).map((u) => {
    const entry = t.index[u];
    return `<tr><td>${share[u].toFixed(3)}</td><td>${entry}</td><td>${range(tokensOf(t, entry))}</td><td>${words[t.role[entry]]}</td></tr>`;
  }).join("");
}

function leakWords(t) {
  const j = t.s.token, before = (moved) => [...moved.keys()].filter((i) => i < j && moved[i]);
  const leaks = before(t.moved), ahead = before(t.movedFree), after = t.moved.filter((m, i) => m && i >= j).length;
  if (leaks.length)
    return `Leak: token ${j} was changed with the index held, and out moved at ${list(leaks)}, before it.`;
  return `Token ${j} changed with the index held: ${after} outputs move, none before it.` + (ahead.length
    ? ` Chosen anew, the selection carries it back to ${list(ahead)}: look-ahead, a property of the method.` : "");
}
const list = (numbers) => (numbers.length > 12 ? `${numbers.slice(0, 12).join(", ")} and ${numbers.length - 12} more` : numbers.join(", "));

function whyWords(t, entry) {
  if (entry < 0 || entry >= t.P) return "";
  const l = levelOf(t, entry), what = `Entry ${entry}, level ${l}, token${l ? "s" : ""} ${range(tokensOf(t, entry))}: `;
  const scores = `score_q ${number(t.scoreQ[entry])}, score_k ${number(t.scoreK[entry])}.`;
  if (t.role[entry] === "absent") return `${what}never a candidate, for a window above it was not opened; ${scores}`;
  if (l === 0) return `${what}selected, slot ${t.slot[entry]}; a token has nothing to open; ${scores}`;
  const peers = [...t.role.keys()].filter((e) => t.role[e] !== "absent" && levelOf(t, e) === l
    && Math.floor(tokensOf(t, e)[0] * t.tiles / t.s.tokens) === Math.floor(tokensOf(t, entry)[0] * t.tiles / t.s.tokens));
  const place = (score, among) => among.filter((e) => score[e] > score[entry] || (score[e] === score[entry] && e < entry)).length + 1;
  const rest = peers.filter((e) => t.role[e] !== "query");
  const byQuery = `place ${place(t.scoreQ, peers)} of ${peers.length} by query`;
  if (t.role[entry] === "query") return `${what}opened: ${byQuery}, opened up to place ${t.s.tile / 2}; ${scores}`;
  return `${what}${t.role[entry] === "key" ? "opened" : "a leaf"}: ${byQuery}, then ${place(t.scoreK, rest)} of ${rest.length} by key, opened up to place ${t.s.tile / 2}; ${scores}`;
}

function redraw() {
  const s = state;
  s.token = Math.min(s.token, Math.max(s.tokens - 1, 0));
  for (const [id, value] of Object.entries({preset: s.preset, seed: s.seed, tokens: s.tokens, dim: s.dim, levels: s.levels, pool: s.pool, topk: s.topk, tile: s.tile}))
    if ($(id).value !== String(value) && document.activeElement !== $(id)) $(id).value = value;
  $("seed").disabled = s.preset !== "drawn";
  $("shift").checked = (s.broken & NO_SHIFT) !== 0;
  $("mask").checked = (s.broken & NO_MASK) !== 0;
  history.replaceState(null, "", writeState(s));
  const t = compute(s);
  $("refusal").hidden = !t.refusal;
  $("refusal").textContent = t.refusal ?? "";
  if (t.refusal) return; // the last valid layer stays in view
  trace = t;
  const width = $("strip").clientWidth, x = s.strength.get(s.token) ?? 1;
  $("strip").innerHTML = drawStrip(t, width);
  $("strip").setAttribute("aria-valuenow", x);
  $("strip").setAttribute("aria-valuetext", `token ${s.token} of ${s.tokens}, strength ${x}`);
  $("strip").setAttribute("aria-label", `strength of token ${s.token}`);
  $("chosen").textContent = `Chosen: token ${s.token}, strength ${x}.`;
  $("pyramid").innerHTML = drawPyramid(t, width);
  $("pyramid").setAttribute("aria-label", `${t.P} pyramid entries, ${t.S} selected, in order: ${t.index.join(" ")}. ` +
    `Opened by query: ${t.role.flatMap((r, e) => (r === "query" ? [e] : [])).join(" ")}; by key: ${t.role.flatMap((r, e) => (r === "key" ? [e] : [])).join(" ")}.`);
  drawWeights(t, $("weights"), width);
  $("weights").setAttribute("aria-label", `attention weights of ${t.S} slots; the chosen token receives slots ${received(t, s.token).join(", ") || "none"}`);
  $("out").innerHTML = drawOut(t, width);
  $("out").setAttribute("aria-label", `sizes of out: ${t.out.map(number).join(" ")}; coverage: ${t.coverage.join(" ")}`);
  $("back").innerHTML = drawBack(t, width);
  $("back").setAttribute("aria-label", s.broken ? "no gradients of a broken layer"
    : `gradients of out at token ${s.token}: dv ${t.dv.map(number).join(" ")}`);
  $("hint").textContent = PRESETS[s.preset].hint;
  const words = leakWords(t);
  if ($("leak").textContent !== words) $("leak").textContent = words;
  $("leak").classList.toggle("leaking", words.startsWith("Leak"));
  $("why").textContent = whyWords(t, why);
  $("heard").tBodies[0].innerHTML = heardRows(t);
}

for (const id of ["seed", "tokens", "dim", "levels", "pool", "topk", "tile"]) {
  $(id).addEventListener("input", () => {
    const value = Number($(id).value);
    if (!Number.isInteger(value) || $(id).value === "") return;
    state[id] = value;
    if (id === "tokens" || id === "dim") state.preset = "drawn"; // a worked example has its own tokens
    redraw();
  });
}
$("preset").addEventListener("input", () => { state = preset($("preset").value); why = -1; redraw(); });
$("reset").addEventListener("click", () => { state = preset(state.preset); why = -1; redraw(); });
for (const [id, bit] of [["shift", NO_SHIFT], ["mask", NO_MASK]])
  $(id).addEventListener("input", () => { state.broken = $(id).checked ? state.broken | bit : state.broken & ~bit; redraw(); });
$("share").addEventListener("click", async () => {
  try { await navigator.clipboard.writeText(location.href); $("share").textContent = "Copied"; }
  catch { $("share").textContent = "The address bar has it"; }
});
$("pyramid").addEventListener("click", (event) => {
  why = Number(event.target.dataset?.entry ?? -1);
  $("entry").value = why < 0 ? "" : why;
  redraw();
});
$("entry").addEventListener("input", () => { why = $("entry").value === "" ? -1 : Number($("entry").value); redraw(); });

function setStrength(token, value) {
  const x = Math.round(Math.min(8, Math.max(0, value)) * 4) / 4;
  if (x === 1) state.strength.delete(token); else state.strength.set(token, x);
}
const strip = $("strip");
strip.addEventListener("keydown", (event) => {
  const x = state.strength.get(state.token) ?? 1;
  const act = {
    ArrowLeft: () => { state.token = Math.max(0, state.token - 1); },
    ArrowRight: () => { state.token = Math.min(state.tokens - 1, state.token + 1); },
    ArrowUp: () => setStrength(state.token, x + .25), ArrowDown: () => setStrength(state.token, x - .25),
    PageUp: () => setStrength(state.token, x + 1), PageDown: () => setStrength(state.token, x - 1),
    Home: () => { state.token = 0; }, End: () => { state.token = state.tokens - 1; },
  }[event.key];
  if (!act) return;
  event.preventDefault();
  act();
  redraw();
});
let dragging = false, waiting = false;
function drag(event) {
  const at = strip.getBoundingClientRect();
  setStrength(state.token, (96 - (event.clientY - at.top)) / 12);
  if (waiting) return; // one redraw a frame
  waiting = true;
  requestAnimationFrame(() => { waiting = false; redraw(); });
}
strip.addEventListener("pointerdown", (event) => {
  const at = strip.getBoundingClientRect();
  state.token = Math.max(0, Math.min(state.tokens - 1, Math.floor((event.clientX - at.left) / at.width * state.tokens)));
  dragging = event.clientY - at.top < 96; // below are the numbers: choose only
  strip.setPointerCapture(event.pointerId);
  if (dragging) drag(event); else redraw();
});
strip.addEventListener("pointermove", (event) => { if (dragging) drag(event); });
for (const end of ["pointerup", "pointercancel"]) strip.addEventListener(end, () => { dragging = false; });
window.addEventListener("resize", redraw);
window.addEventListener("hashchange", () => { state = readState(location.hash); redraw(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
