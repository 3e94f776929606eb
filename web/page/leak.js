// Which position sees which: a square for each norm, a row for each position of the output, a column for each of the input.

import { element, number, say, shape } from "./dom.js";
import { onRun } from "./form.js";

const CELL = 10;
const KINDS = { "#": "earlier", "!": "later", ".": "none" };

export function openLeak(section, page) {
  const status = section.querySelector(".status");
  const run = onRun(section.querySelector("form"), {
    async run(data) {
      say(status, "Measuring …");
      const leaks = await page.leak(data);
      section.querySelector(".matrices").replaceChildren(...leaks.map(article));
      section.querySelector(".key").hidden = false;
      const leaking = leaks.filter(({ is_causal: isCausal }) => !isCausal).map(({ title }) => title);
      say(status, leaking.length > 0 ? `Sees later positions: ${leaking.join(", ")}.` : "None sees a later position.");
    },
    fail(message, refused) {
      section.querySelector(".matrices").replaceChildren();
      section.querySelector(".key").hidden = true;
      say(status, message || (refused === 1 ? "One field is to be changed." : `${refused} fields are to be changed.`), "bad");
    },
  });
  return run();
}

function article({ title, config, length, matrix, influence, leaks, is_causal: isCausal }) {
  const verdict = isCausal ? "no position sees a later one" : `${leaks} ${leaks === 1 ? "leak" : "leaks"}: positions see later ones`;
  const rows = matrix.split("\n");
  const cells = rows.flatMap((row, output) =>
    Array.from(row, (kind, input) => {
      const change = number(influence[output * length + input], 2);
      const words = kind === "." ? "does not see" : `changes by up to ${change} with`;
      const title = shape("title", {}, `Output ${output} ${words} input ${input}.`);
      const place = { x: input * CELL + 0.5, y: output * CELL + 0.5, width: CELL - 1, height: CELL - 1 };
      return shape("rect", { class: `cell ${KINDS[kind]}`, rx: 1, ...place }, title);
    }),
  );
  const side = length * CELL;
  const picture = shape("svg", { viewBox: `0 0 ${side} ${side}`, role: "img", "aria-label": `${title}: ${verdict}` }, ...cells);
  return element(
    "article",
    {},
    element("h3", {}, title),
    picture,
    element("p", { class: `verdict ${isCausal ? "good" : "bad"}` }, verdict),
    element("code", {}, config),
    element(
      "details",
      {},
      element("summary", {}, "As text"),
      element("pre", { class: "matrix", tabindex: "0", "aria-label": `${title}, as text` }, matrix),
    ),
  );
}
