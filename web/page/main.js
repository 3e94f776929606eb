// Opens the GPU, and then one section after another.

import init, { Page } from "./pkg/gpu_layer_norm_web.js";
import { showAdapter } from "./adapter.js";
import { openBenchmark } from "./benchmark.js";
import { showExamples } from "./examples.js";
import { openLeak } from "./leak.js";
import { openPlayground } from "./playground.js";

const section = (id) => document.getElementById(id);

/** Says what to do where there is no WebGPU, and leaves out what needs it. */
function help(reason) {
  document.body.classList.add("no-webgpu");
  section("help").hidden = false;
  section("help-reason").textContent = reason;
}

async function open() {
  if (!navigator.gpu) {
    const reason = isSecureContext
      ? "This browser does not offer WebGPU (navigator.gpu is missing)."
      : `This browser does not offer WebGPU to ${location.origin}, which is no secure address.`;
    help(reason);
    return;
  }
  let page;
  try {
    await init();
    page = await Page.open();
  } catch (error) {
    help(error.message);
    return;
  }
  await showAdapter(section("adapter"), page.adapter());
  openBenchmark(section("benchmark"), page);
  await showExamples(section("examples"), page);
  await openPlayground(section("playground"), page);
  await openLeak(section("leak"), page);
}

await open();
document.documentElement.dataset.state = "open";
