// Times as multiples of a copy's, by width.

import { element, number, shape } from "./dom.js";

const HEIGHT = 300;
const [LEFT, RIGHT, TOP, BOTTOM] = [44, 60, 16, 44];

/** A chart of measurements, in ascending order of their row widths, for a place of so many pixels. */
export function chart(measurements, pixels) {
  const sorted = [...measurements].sort((a, b) => a.width - b.width);
  const logs = sorted.map(({ width }) => Math.log2(width));
  const [low, high] = [Math.min(...logs) - 0.5, Math.max(...logs) + 0.5];
  const top = Math.max(1.5, ...sorted.map(({ multiple }) => multiple)) * 1.1;
  const step = [0.25, 0.5, 1, 2, 5, 10, 20, 50].find((size) => top / size <= 6) ?? 100;
  const x = (log) => LEFT + ((log - low) / (high - low)) * (pixels - LEFT - RIGHT);
  const y = (multiple) => HEIGHT - BOTTOM - (multiple / top) * (HEIGHT - TOP - BOTTOM);
  const parts = [];
  for (let multiple = 0; multiple <= top; multiple += step) {
    parts.push(shape("line", { class: "grid", x1: LEFT, x2: pixels - RIGHT, y1: y(multiple), y2: y(multiple) }));
    parts.push(shape("text", { x: LEFT - 8, y: y(multiple) + 4, "text-anchor": "end" }, number(multiple, step < 1 ? 2 : 0)));
  }
  // Names of widths that would touch are left out.
  let free = -Infinity;
  sorted.forEach(({ width }, i) => {
    if (x(logs[i]) < free) return;
    parts.push(shape("text", { x: x(logs[i]), y: HEIGHT - BOTTOM + 20, "text-anchor": "middle" }, width.toLocaleString("en")));
    free = x(logs[i]) + 46;
  });
  parts.push(shape("text", { x: (LEFT + pixels - RIGHT) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, "elements of a row"));
  parts.push(shape("line", { class: "copy", x1: LEFT, x2: pixels - RIGHT, y1: y(1), y2: y(1) }));
  parts.push(shape("text", { class: "copy-name", x: pixels - RIGHT + 8, y: y(1) + 4 }, "the copy"));
  const points = sorted.map(({ multiple }, i) => [x(logs[i]), y(multiple)]);
  parts.push(shape("polyline", { class: "norm", points: points.join(" ") }));
  for (const [i, [cx, cy]] of points.entries()) {
    const { width, multiple } = sorted[i];
    const title = shape("title", {}, `width ${width}: ${number(multiple, 2)} times the copy`);
    parts.push(shape("circle", { class: "point", cx, cy, r: 4 }, title));
  }
  const label = `Time as a multiple of a copy's: ${sorted.map(({ width, multiple }) => `width ${width} ${number(multiple, 2)}`).join(", ")}`;
  return [
    element("figcaption", {}, "Time as a multiple of the copy’s"),
    shape("svg", { viewBox: `0 0 ${pixels} ${HEIGHT}`, role: "img", "aria-label": label }, ...parts),
  ];
}
