// The playground: a form, and what comes of it.

import { element, number, numbers, precise, say } from "./dom.js";
import { fill, onRun } from "./form.js";

const ROWS_SHOWN = 3;
const ELEMENTS_SHOWN = 64;
/** Longer addresses are not written: they would hold typed values by the thousand. */
const LONGEST_ADDRESS = 2000;

export function openPlayground(section, page) {
  const form = section.querySelector("form");
  const status = section.querySelector(".status");
  const result = section.querySelector(".outcome");
  const firstRow = section.querySelector("#first-row");
  let outcome;

  for (const place of section.querySelectorAll(".max-elements")) place.textContent = page.max_elements.toLocaleString("en");

  const showRows = () => outcome && showValues(section.querySelector(".values"), outcome, firstRow);
  firstRow.addEventListener("input", showRows);

  const run = onRun(form, {
    async run(data) {
      say(status, "Running …");
      outcome = plain(await page.play(data));
      const how = outcome.agrees ? "good" : outcome.hasSubnormal ? "" : "bad";
      say(status, verdict(outcome), how);
      drawMap(section.querySelector(".input-map"), outcome.inputMap, "input");
      drawMap(section.querySelector(".output-map"), outcome.outputMap, "output");
      showRows();
      showPlan(section, outcome);
      result.hidden = false;
      remember(form, data);
    },
    fail(message, refused) {
      outcome = undefined;
      result.hidden = true;
      say(status, message || (refused === 1 ? "One field is to be changed." : `${refused} fields are to be changed.`), "bad");
    },
  });

  section.querySelector(".presets").addEventListener("click", ({ target }) => {
    if (target.dataset.preset === undefined) return;
    fill(form, new URLSearchParams(target.dataset.preset));
    run();
  });
  if (location.search) fill(form, new URLSearchParams(location.search));
  return run();
}

/** What is read from WebAssembly is copied each time, so it is read once. */
function plain(outcome) {
  return {
    width: outcome.width,
    input: outcome.input,
    output: outcome.output,
    exact: outcome.exact,
    error: outcome.largest_error,
    share: outcome.share_of_bound,
    agrees: outcome.agrees,
    hasSubnormal: outcome.has_subnormal,
    inputMap: outcome.input_map,
    outputMap: outcome.output_map,
    words: outcome.words,
    plan: outcome.plan,
    kernels: outcome.kernels,
  };
}

function verdict({ output, error, share, agrees, hasSubnormal }) {
  if (output.length === 0) return "There are no rows, and nothing to compare.";
  const found = `largest error ${number(error)}`;
  if (agrees) return `Agrees with the f64 reference: ${found}, ${number(100 * share, 0)} % of what the documentation allows.`;
  if (hasSubnormal) return `Numbers below 1.2e−38 may count as zero on a GPU, and here they do: ${found}.`;
  return `Does not agree with the f64 reference: ${found}, ${number(share, 1)} times what the documentation allows.`;
}

function drawMap(canvas, map, what) {
  const { width, height, pixels, middle, reach } = map;
  const legend = canvas.parentElement.querySelector(".legend");
  canvas.width = Math.max(width, 1);
  canvas.height = Math.max(height, 1);
  if (pixels.length > 0) canvas.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
  const [low, high] = [middle - reach, middle + reach].map(precise);
  legend.replaceChildren(element("span", {}, low), element("i", { class: "ramp" }), element("span", {}, high));
  canvas.setAttribute("aria-label", `Heat map of the ${what}, a line for each row; colours go from ${low} to ${high}`);
}

function showValues(place, { width, input, output, exact }, firstRow) {
  const rows = output.length / width;
  firstRow.max = Math.max(rows - ROWS_SHOWN, 0);
  const first = Math.min(Math.max(Math.trunc(firstRow.valueAsNumber) || 0, 0), Math.max(rows - 1, 0));
  const tables = [];
  for (let row = first; row < Math.min(first + ROWS_SHOWN, rows); row++) {
    const start = row * width;
    const end = start + Math.min(width, ELEMENTS_SHOWN);
    const texts = (values) => Array.from(values.subarray(start, end), precise);
    const differences = Array.from(output.subarray(start, end), (value, i) => number(Math.abs(value - exact[start + i])));
    const part = width > ELEMENTS_SHOWN ? `, the first ${ELEMENTS_SHOWN} of ${width} elements` : "";
    tables.push(
      numbers(`row ${row} of ${rows}${part}`, [
        { name: "input", texts: texts(input) },
        { name: "GPU", texts: texts(output) },
        { name: "reference", texts: texts(exact) },
        { name: "difference", texts: differences },
      ]),
    );
  }
  place.replaceChildren(...tables);
}

function showPlan(section, { words, plan, kernels }) {
  section.querySelector(".words").replaceChildren(...words.map((sentence) => element("li", {}, sentence)));
  section.querySelector(".plan").textContent = plan;
  section.querySelector(".kernels").replaceChildren(...kernels.map(kernel));
}

function kernel({ label, wgsl }, i) {
  const copied = element("span", { class: "status", role: "status" });
  const button = element("button", { type: "button" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(wgsl);
      say(copied, "copied");
    } catch {
      say(copied, "The browser does not allow it; select the text instead.", "bad");
    }
  });
  const lines = wgsl.split("\n").length;
  return element(
    "details",
    {},
    element("summary", {}, `WGSL of kernel ${i + 1}, ${lines} lines`),
    element("div", { class: "bar" }, element("p", {}, label), element("span", {}, copied, " ", button)),
    element("pre", { class: "wgsl", tabindex: "0", "aria-label": `WGSL of kernel ${i + 1}` }, wgsl),
  );
}

/** What differs from the form as it was at first goes into the address, so that a link leads back to it. */
function remember(form, data) {
  const set = [...data].filter(([name, value]) => !isAsAtFirst(form.querySelector(`[name="${name}"]`), value));
  const search = new URLSearchParams(set).toString();
  const address = location.pathname + (search && `?${search}`) + location.hash;
  if (address.length <= LONGEST_ADDRESS) history.replaceState(null, "", address);
}

function isAsAtFirst(field, value) {
  if (field.type === "checkbox") return field.checked === field.defaultChecked;
  if (field.options) return value === field.options[0].value;
  return value === field.defaultValue;
}
