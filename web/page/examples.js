// The worked examples, each beside the reference.

import { element, number, numbers, say } from "./dom.js";

export async function showExamples(section, page) {
  const status = section.querySelector(".status");
  say(status, "Running …");
  try {
    const examples = await page.examples();
    section.querySelector(".list").replaceChildren(...examples.map(article));
    const agreeing = examples.filter(({ agrees }) => agrees).length;
    const how = agreeing === examples.length ? "good" : "bad";
    say(status, `${agreeing} of ${examples.length} examples agree with the reference.`, how);
  } catch (error) {
    say(status, error.message, "bad");
  }
}

function article({ title, text, tables, agrees, largest_error: error }) {
  const verdict = agrees ? "agrees with the reference" : "does not agree with the reference";
  return element(
    "article",
    { class: "example" },
    element("h3", {}, title),
    element("p", {}, text),
    element("div", { class: "tables" }, ...tables.map(table)),
    element("p", { class: `verdict ${agrees ? "good" : "bad"}` }, `${verdict}; largest difference ${number(error)}`),
  );
}

function table({ caption, lines }) {
  const texts = ({ name, values, digits }) => ({ name, texts: Array.from(values, (value) => number(value, digits)) });
  return numbers(caption, lines.map(texts));
}
