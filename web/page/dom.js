// Making elements, and writing numbers.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; text is never read as HTML. */
export function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** The same of SVG. */
export function shape(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** A number with so many digits after the point, or by its magnitude. */
export function number(value, digits) {
  let text;
  if (!Number.isFinite(value)) text = Number.isNaN(value) ? "NaN" : value > 0 ? "∞" : "-∞";
  else if (digits !== undefined) text = value.toFixed(digits);
  else if (value === 0) text = "0";
  else text = value.toExponential(1);
  return text.replaceAll("-", "−");
}

/** A number of any magnitude in about seven digits. */
export function precise(value) {
  if (!Number.isFinite(value)) return number(value);
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e7 || size < 1e-4)) return value.toExponential(5).replaceAll("-", "−");
  return String(Number(value.toPrecision(7))).replaceAll("-", "−");
}

/** Lines of numbers as a table that scrolls by itself. Each has a name and values that are texts already. */
export function numbers(caption, lines) {
  const row = ({ name, texts }) =>
    element("tr", { class: name }, element("th", { scope: "row" }, name), ...texts.map((text) => element("td", {}, text)));
  const table = element("table", {}, element("caption", {}, caption), element("tbody", {}, ...lines.map(row)));
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, table);
}

/** Names and values into a list of definitions. */
export function facts(list, of) {
  list.replaceChildren(...of.flatMap(({ name, value }) => [element("dt", {}, name), element("dd", {}, value)]));
}

/** Says something in a line of status: what goes on, or how it has come out (`good` or `bad`). */
export function say(status, text, how = "") {
  status.textContent = text;
  status.className = `status ${how}`;
}
