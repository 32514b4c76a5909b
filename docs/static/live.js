// Dropout to play with: a rate, a key, masks, and their mean. See extensions/pictures.py.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const place = document.getElementById("live");
  if (!place) return;
  const labels = JSON.parse(place.dataset.labels);
  const pixels = JSON.parse(place.dataset.pixels).map((value) => value / 255);
  const numbers = Array.from({ length: 16 }, (_, i) => i);
  const side = Math.sqrt(pixels.length);

  function add(parent, tag, attributes = {}, text = "") {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.textContent = text;
    parent.append(element);
    return element;
  }

  // What one sees.
  const form = add(place, "form", { class: "controls" });
  const rateLabel = add(form, "label", {}, labels.p);
  const rate = add(rateLabel, "input", { type: "range", min: 0, max: 1, step: 0.05, value: 0.5 });
  const rateShown = add(rateLabel, "output");
  const seedLabel = add(form, "label", {}, labels.seed);
  const seed = add(seedLabel, "input", { type: "number", min: 0, max: 4294967295, value: 0 });
  const buttons = add(form, "div", { class: "buttons" });
  const button = (name) => add(buttons, "button", { type: "button", name }, labels[name]);
  const again = button("again");
  const split = button("split");
  const foldIn = button("fold_in");
  const reset = button("reset");
  const derived = add(place, "p", { class: "key", "aria-live": "polite" });
  add(place, "p", { class: "caption" }, labels.numbers);
  const row = add(place, "div", { class: "numbers", role: "list" });
  const maps = add(place, "div", { class: "maps" });

  function map(name) {
    const figure = add(maps, "figure");
    const canvas = add(figure, "canvas", {
      width: side, height: side, role: "img", "aria-label": labels[name],
    });
    add(figure, "figcaption", {}, labels[name]);
    return canvas;
  }
  const original = map("image");
  const masked = map("mask");
  const averaged = map("mean");
  const plotFigure = add(maps, "figure", { class: "plot" });
  const plot = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  plotFigure.append(plot);
  add(plotFigure, "figcaption", {}, labels.plot);

  // What is known: the key to start from, the key of this mask, and all masks so far.
  let start, key, count, sum, distances, story;

  const show = (key) => `[${key[0]}, ${key[1]}]`;

  function paint(canvas, values, keep) {
    const context = canvas.getContext("2d");
    const image = context.createImageData(side, side);
    values.forEach((value, i) => {
      const gray = Math.round(255 * Math.min(1, value));
      const colour = keep && !keep[i] ? [140, 40, 60] : [gray, gray, gray];
      image.data.set([...colour, 255], 4 * i);
    });
    context.putImageData(image, 0, 0);
  }

  function drawPlot() {
    const [width, height, edge] = [260, 170, 28];
    const most = Math.max(10, distances.length);
    const top = Math.max(...distances, 1e-9);
    const x = (n) => edge + ((width - edge - 8) * Math.log(n)) / Math.log(most);
    const decades = Math.log(most) / 2 + 1;
    const y = (d) => 8 + ((height - edge - 8) * Math.min(decades, Math.log(top / d))) / decades;
    const points = distances.map((d, i) => `${x(i + 1)},${y(Math.max(d, 1e-9))}`);
    const theory = [1, most].map((n) => `${x(n)},${y(distances[0] / Math.sqrt(n) || 1e-9)}`);
    plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
    plot.setAttribute("role", "img");
    plot.setAttribute("aria-label", labels.plot);
    plot.innerHTML = `
      <path class="axis" d="M${edge},4 V${height - edge} H${width - 4}"/>
      <text x="${width - 4}" y="${height - 6}" text-anchor="end">${labels.masks} ${distances.length}</text>
      <text x="${width - 4}" y="16" text-anchor="end" class="theory-text">${labels.theory}</text>
      <text x="4" y="${height / 2}" transform="rotate(-90 14 ${height / 2})" text-anchor="middle">${labels.distance}</text>
      <polyline class="theory" points="${theory.join(" ")}"/>
      <polyline class="measured" points="${points.join(" ")}"/>
      ${points.map((point) => `<circle cx="${point.split(",")[0]}" cy="${point.split(",")[1]}" r="2"/>`).join("")}`;
  }

  function draw() {
    const p = Number(rate.value);
    rateShown.textContent = p.toFixed(2);
    const keep = Threefry.sampleKeep(key, numbers.length, p);
    const result = Threefry.applyKeep(numbers, keep, p);
    row.replaceChildren();
    result.forEach((value, i) => {
      const text = Number.isInteger(value) ? String(value) : value.toFixed(2);
      const cell = add(row, "span", { role: "listitem", class: keep[i] ? "kept" : "gone" }, text);
      if (!keep[i]) cell.setAttribute("aria-label", `0 (${labels.dropped})`);
      cell.dataset.value = value;
    });
    const keepPixels = Threefry.sampleKeep(key, pixels.length, p);
    const dropped = Threefry.applyKeep(pixels, keepPixels, p);
    count += 1;
    dropped.forEach((value, i) => (sum[i] += value));
    const mean = sum.map((value) => value / count);
    const squares = mean.reduce((total, value, i) => total + (value - pixels[i]) ** 2, 0);
    distances.push(Math.sqrt(squares / mean.length));
    paint(original, pixels);
    paint(masked, dropped, keepPixels);
    paint(averaged, mean);
    drawPlot();
    derived.textContent = story;
    place.dataset.key = JSON.stringify(key);
    place.dataset.mask = keepPixels.map(Number).join("");
  }

  function begin(newKey, text) {
    start = key = newKey;
    count = 0;
    sum = pixels.map(() => 0);
    distances = [];
    story = text;
    draw();
  }

  const fromSeed = () => {
    const number = Math.min(4294967295, Math.max(0, Math.trunc(Number(seed.value) || 0)));
    const first = Threefry.key(number);
    begin(first, `key(${number}) = ${show(first)}`);
  };
  const step = (n) => {
    for (let i = 0; i < n; i++) {
      key = Threefry.foldIn(start, count);
      story = `fold_in(${show(start)}, ${count}) = ${show(key)}`;
      draw();
    }
  };

  again.addEventListener("click", () => step(1));
  again.addEventListener("dblclick", () => step(20)); // a quick way to many masks
  split.addEventListener("click", () => {
    const [first, second] = Threefry.split(key);
    begin(first, `split(${show(key)}) = ${show(first)}, ${show(second)}`);
  });
  foldIn.addEventListener("click", () => {
    const next = Threefry.foldIn(key, 1);
    begin(next, `fold_in(${show(key)}, 1) = ${show(next)}`);
  });
  reset.addEventListener("click", fromSeed);
  seed.addEventListener("input", fromSeed);
  rate.addEventListener("input", () => begin(start, story));
  form.addEventListener("submit", (event) => event.preventDefault());
  fromSeed();
});
