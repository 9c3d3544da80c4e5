// The pictures: strings of SVG in CSS pixels, as wide as their place; the weights on a canvas.
const $ = (id) => document.getElementById(id);
const svg = (width, height, body) => `<svg width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">${body}</svg>`;
const box = (x, y, w, h, kind, more = "") =>
  `<rect x="${x.toFixed(1)}" y="${y.toFixed(1)}" width="${Math.max(w, 0.5).toFixed(1)}" height="${Math.max(h, 0).toFixed(1)}" class="${kind}"${more}/>`;
const text = (x, y, words, kind = "") => `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" class="${kind}">${words}</text>`;
const number = (x) => (x === 0 ? "0" : Math.abs(x) >= 1000 || Math.abs(x) < 0.001 ? x.toExponential(0) : String(Number(x.toPrecision(3))));

function axis(t, column, y) {
  const step = column >= 22 ? 1 : column >= 11 ? 4 : 16;
  let body = "";
  for (let j = 0; j < t.s.tokens; j += step) body += text((j + .5) * column, y, j, column < 22 ? "small" : "");
  return body;
}

function drawStrip(t, width) {
  const column = width / t.s.tokens, height = 96;
  let body = `<line x1="0" x2="${width}" y1="${height - height / 8}" y2="${height - height / 8}" class="axis"/>`;
  for (let j = 0; j < t.s.tokens; j++) {
    const x = t.s.strength.get(j) ?? 1, bar = height * x / 8;
    body += box(j * column + 1, height - bar, column - 2, bar, "bar");
    if (j === t.s.token) body += box(j * column, 1, column, height - 1, "chosen");
    if (column >= 30) body += text((j + .5) * column, 14, `×${number(x)}`, "small");
  }
  return svg(width, height + 20, body + axis(t, column, height + 15));
}

function drawPyramid(t, width) {
  const column = width / t.s.tokens, height = 44;
  let body = "", y = 2;
  for (let l = t.s.levels - 1; l >= 0; l--, y += height + 6) {
    const w = column * t.window[l];
    for (let i = 0; i < t.s.tokens / t.window[l]; i++) {
      const entry = t.offset[l] + i, kind = t.role[entry], middle = (i + .5) * w;
      body += box(i * w + 1.5, y, w - 3, height, kind, ` data-entry="${entry}"`);
      if (w >= 24) body += text(middle, y + 15, entry, kind === "absent" ? "faint" : "");
      const words = kind === "query" ? (w >= 90 ? `Q, ${number(t.scoreQ[entry])}` : "Q")
        : kind === "key" ? (w >= 90 ? `K, ${number(t.scoreK[entry])}` : "K") : kind === "leaf" && w >= 40 ? "leaf" : "";
      if (words && w >= 9) body += text(middle, y + 33, words, "small");
    }
  }
  return svg(width, y + 18, body + axis(t, column, y + 10));
}

function drawOut(t, width) {
  const column = width / t.s.tokens, height = 90, most = Math.max(...t.out) || 1;
  let body = "";
  for (let j = 0; j < t.s.tokens; j++) {
    const bar = height * t.out[j] / most, early = j < t.s.token, leak = early && t.moved[j];
    body += box(j * column + 1, 22 + height - bar, column - 2, bar, `bar${t.moved[j] ? " moved" : ""}${leak ? " leaking" : ""}`);
    if (t.coverage[j] === 0) body += box(j * column + 2, 24 + height, column - 4, 18, "none");
    if (column >= 9) body += text((j + .5) * column, 38 + height, t.coverage[j], column < 22 ? "small" : "");
    if (leak) body += text((j + .5) * column, 16, "!", "alarm");
    else if (early && t.movedFree[j]) body += text((j + .5) * column, 16, "~");
    if (j === t.s.token) body += box(j * column, 20, column, height + 24, "chosen");
  }
  return svg(width, height + 64, body + axis(t, column, height + 60));
}

function drawBack(t, width) {
  if (t.s.broken) return `<p>Gradients are those of the layer as it is meant: mend it to see them.</p>`;
  const column = width / t.s.tokens, height = 40;
  let body = "", y = 0;
  for (const [name, x] of [["dq", t.dq], ["dk", t.dk], ["dv", t.dv]]) {
    const most = Math.max(...x) || 1;
    body += text(2, y + 12, `|${name}|, at most ${number(most)}`, "start small");
    for (let j = 0; j < t.s.tokens; j++) {
      if (x[j] > 0) body += box(j * column + 1, y + 16 + height - height * x[j] / most, column - 2, height * x[j] / most, "bar");
    }
    body += `<line x1="0" x2="${width}" y1="${y + 16 + height}" y2="${y + 16 + height}" class="axis"/>`;
    y += height + 24;
  }
  return svg(width, y + 16, body + axis(t, column, y + 10));
}

function drawWeights(t, canvas, width) {
  const side = Math.min(width, Math.max(280, t.S * 26), 620), cell = side / t.S, ratio = window.devicePixelRatio || 1;
  const pen = canvas.getContext("2d"), css = getComputedStyle(document.documentElement), colour = (name) => css.getPropertyValue(name);
  canvas.width = canvas.height = Math.round(side * ratio);
  canvas.style.width = canvas.style.height = `${side}px`;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.fillStyle = colour("--paper");
  pen.fillRect(0, 0, side, side);
  pen.strokeStyle = colour("--line");
  pen.beginPath();
  for (let at = -side; at < side && !(t.s.broken & NO_MASK); at += 7) { pen.moveTo(at, side); pen.lineTo(at + side, 0); }
  pen.stroke();
  if (!(t.s.broken & NO_MASK)) {
    pen.fillStyle = colour("--paper");
    for (let s = 0; s < t.S; s++) pen.fillRect(0, s * cell, (s + 1) * cell, cell);
  }
  pen.fillStyle = colour("--write");
  for (let s = 0; s < t.S; s++) {
    for (let u = 0; u < (t.s.broken & NO_MASK ? t.S : s + 1); u++) {
      const a = Math.sqrt(t.weights[s * t.S + u]) * (cell - .5);
      if (a > .3) pen.fillRect((u + .5) * cell - a / 2, (s + .5) * cell - a / 2, a, a);
    }
  }
  pen.strokeStyle = colour("--ink");
  pen.lineWidth = 2;
  for (const s of received(t, t.s.token)) pen.strokeRect(1, s * cell + 1, side - 2, cell - 2);
  if (cell >= 22) {
    pen.font = "10px system-ui, sans-serif";
    pen.fillStyle = colour("--ink");
    pen.textAlign = "center";
    for (let s = 0; s + 1 < t.S; s++) pen.fillText(t.index[s], side - cell / 2, (s + .65) * cell);
  }
  pen.lineWidth = 1;
  pen.strokeRect(.5, .5, side - 1, side - 1);
}
