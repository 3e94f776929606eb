// The adapter and what it can do.

import { facts, say } from "./dom.js";

export async function showAdapter(section, adapter) {
  const { vendor, architecture, offered } = await told();
  const name = adapter.name || [vendor, architecture].filter(Boolean).join(" ") || "an adapter that does not tell its name";
  const known = [
    { name: "vendor", value: vendor },
    { name: "architecture", value: architecture },
  ].filter(({ value }) => value);
  say(section.querySelector(".status"), name);
  facts(section.querySelector(".facts"), [...known, ...adapter.facts]);
  facts(section.querySelector(".capabilities"), adapter.capabilities);
  facts(section.querySelector(".limits"), adapter.limits);
  const list = (names) => names.join(", ") || "none";
  section.querySelector(".features").textContent =
    `The adapter offers ${list(offered)}. The crate asks for and has ${list(adapter.features)}.`;
  section.querySelector(".content").hidden = false;
}

/** What the browser tells of the adapter that it has given, beyond what wgpu hands on. */
async function told() {
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  return { vendor: adapter?.info?.vendor, architecture: adapter?.info?.architecture, offered: [...(adapter?.features ?? [])] };
}
