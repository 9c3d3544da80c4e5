// "#selftest=1000": the hashes of that many cases, and what a redraw costs, as text in the page for the test to read.
const selftest = new URLSearchParams(location.hash.slice(1)).get("selftest");
redraw();
const first = performance.now();
if (selftest) {
  const lines = [];
  for (let seed = 1; seed <= Number(selftest); seed++) lines.push(engine.hash(seed));
  state = readState("#preset=drawn&tokens=64&topk=8&tile=4");
  const times = [];
  for (let i = 0; i < 60 || (Math.min(...times) >= 16 && i < 400); i++) { // a machine busy with others gets longer
    setStrength(i % 64, 1 + i % 60 / 10);
    const start = performance.now();
    redraw();
    document.body.getBoundingClientRect(); // layout is part of it
    times.push(performance.now() - start);
  }
  times.sort((a, b) => a - b);
  lines.push(`first picture after ${Math.round(first)} ms`);
  lines.push(`redraw at N = 64: least ${times[0].toFixed(1)} ms, median ${times[times.length >> 1].toFixed(1)} ms`);
  // What the page says of the two switches and of look-ahead.
  const says = (hash) => { state = readState(hash); redraw(); return $("leak").textContent; };
  lines.push(says("#preset=twelve&token=7"), says("#preset=twelve&token=7&broken=shift"), says("#preset=twelve&token=10&broken=mask"),
    says("#preset=six&token=5&strength=5:5"), `out[0] ${trace.out[0]}`,
    says("#preset=six&token=5&strength=5:8"), `out[0] ${trace.out[0]}`);
  state = readState("#preset=twelve");
  for (const entry of [14, 17, 0, 7]) {
    why = entry;
    redraw();
    lines.push($("why").textContent);
  }
  state = readState("#preset=twelve&topk=3");
  redraw();
  lines.push($("refusal").textContent);
  // By keyboard and by pointer.
  state = readState("#preset=twelve");
  redraw();
  const spoken = () => lines.push($("strip").getAttribute("aria-valuetext"));
  for (const key of ["ArrowRight", "ArrowUp", "PageUp", "Home", "ArrowDown", "End"]) {
    strip.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
    spoken();
  }
  const place = strip.getBoundingClientRect(), touch = (x, y) => new PointerEvent("pointerdown",
    {clientX: place.left + place.width * x, clientY: place.top + y, pointerId: 1});
  strip.setPointerCapture = () => {}; // no pointer is down in truth
  strip.dispatchEvent(touch(2.5 / 12, 110)); // on the numbers: chosen, and no stronger
  spoken();
  strip.dispatchEvent(touch(3.5 / 12, 48));
  redraw();
  spoken();
  state = readState("#preset=drawn&tokens=32&token=9&seed=7&broken=mask,shift&strength=3:2.5,4:0");
  redraw();
  lines.push(location.hash);
  $("selftest").textContent = lines.join("\n");
}
