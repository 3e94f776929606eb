// Runs plans of the npm package by the browser's own calls, and compares with f64. Leaves in `window.results` a name and, where it
// failed, an error for each; the body's `data-state` becomes `done`.

import init, { PreparedPlan, capabilities, plan } from "./npm/index.js";

/** Numbers from −2 to 4 that repeat after a while, about a mean; sixteenths, so that every storage type has them. */
const numbers = (count, mean = 0) => Array.from({ length: count }, (_, i) => mean + ((i * 37 + Math.floor(i / 7)) % 97) / 16 - 2);

const storages = {
  f32: { array: Float32Array, read: (x) => x, write: (x) => x, step: 2 ** -24 },
  f16: { array: Float16Array, read: (x) => x, write: (x) => x, step: 2 ** -11 },
  bf16: {
    array: Uint16Array,
    read: (bits) => new Float32Array(new Uint32Array([bits << 16]).buffer)[0],
    // What is cut off is 0 in the numbers of these trials.
    write: (x) => new Uint32Array(new Float32Array([x]).buffer)[0] >>> 16,
    step: 2 ** -8,
  },
};

const sum = (values) => values.reduce((total, x) => total + x, 0);

/** Mean and 1 / sqrt(variance + eps) of some numbers. */
function statistics(values, { eps = 1e-5, normalization } = {}) {
  const mean = normalization === "rmsNorm" ? 0 : sum(values) / values.length;
  const variance = sum(values.map((x) => (x - mean) ** 2)) / values.length;
  return { mean, rstd: 1 / Math.sqrt(variance + eps) };
}

const rowsOf = (values, width) => Array.from({ length: values.length / width }, (_, i) => values.slice(i * width, (i + 1) * width));

/** The forward pass in f64. */
function forward(problem, { input, residual, weight, bias }) {
  const { width, sequenceRows } = problem;
  const source = residual ? input.map((x, i) => Math.fround(x + residual[i])) : input;
  const rows = rowsOf(source, width);
  const all = rows.map((row, i) => {
    // In causal normalization all positions of the sequence up to this one.
    const first = sequenceRows ? i - (i % sequenceRows) : i;
    return statistics(rows.slice(first, i + 1).flat(), problem);
  });
  const output = rows.flatMap((row, i) =>
    row.map((x, j) => (x - all[i].mean) * all[i].rstd * (weight?.[j] ?? 1) + (bias?.[j] ?? 0)));
  return { output, sum: source, mean: all.map(({ mean }) => mean), rstd: all.map(({ rstd }) => rstd) };
}

/** The backward pass in f64. */
function backward(problem, { input, weight, outputGradient }) {
  const { width } = problem;
  const result = { inputGradient: [], weightGradient: Array(width).fill(0), biasGradient: Array(width).fill(0) };
  const gradients = rowsOf(outputGradient, width);
  for (const [i, row] of rowsOf(input, width).entries()) {
    const { mean, rstd } = statistics(row, problem);
    const normalized = row.map((x) => (x - mean) * rstd);
    const g = gradients[i].map((dy, j) => dy * (weight?.[j] ?? 1));
    const [first, second] = [sum(g) / width, sum(g.map((g, j) => g * normalized[j])) / width];
    result.inputGradient.push(...g.map((g, j) => rstd * (g - first - normalized[j] * second)));
    gradients[i].forEach((dy, j) => {
      result.weightGradient[j] += dy * normalized[j];
      result.biasGradient[j] += dy;
    });
  }
  return result;
}

/** Where an element of a tensor lies, counted in elements. */
function place(problem, role, i) {
  const { offset = 0, rowStride = problem.width } = problem.tensors?.[role] ?? {};
  const isOfRows = !["weight", "bias", "weightGradient", "biasGradient", "mean", "rstd"].includes(role);
  return isOfRows ? offset + Math.floor(i / problem.width) * rowStride + (i % problem.width) : offset + i;
}

/** Runs a problem; gives the roles that are written with what they hold. */
async function run(device, problem, thePlan, inputs, outputs) {
  const buffers = {};
  const storageOf = (role) => storages[problem.tensors?.[role]?.storage ?? "f32"];
  for (const [role, values] of Object.entries({ ...inputs, ...outputs })) {
    const { array, write } = storageOf(role);
    const elements = new array((place(problem, role, values.length - 1) + 2) & ~1);
    if (role in inputs) values.forEach((x, i) => (elements[place(problem, role, i)] = write(x)));
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    buffers[role] = device.createBuffer({ label: role, size: elements.byteLength, usage });
    device.queue.writeBuffer(buffers[role], 0, elements);
  }
  const prepared = new PreparedPlan(device, thePlan, buffers);
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  prepared.encode(pass);
  pass.end();
  const staging = {};
  for (const role of Object.keys(outputs)) {
    const { size } = buffers[role];
    staging[role] = device.createBuffer({ size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
    encoder.copyBufferToBuffer(buffers[role], 0, staging[role], 0, size);
  }
  device.queue.submit([encoder.finish()]);
  const found = {};
  for (const [role, values] of Object.entries(outputs)) {
    await staging[role].mapAsync(GPUMapMode.READ);
    const { array, read } = storageOf(role);
    const elements = new array(staging[role].getMappedRange());
    found[role] = Array.from(values, (_, i) => read(elements[place(problem, role, i)]));
    staging[role].unmap();
  }
  prepared.destroy();
  return found;
}

/** Throws unless everything is as near as 1e-6 of the largest, and what the storage type rounds, allow; ten times that for sums over rows. */
function compare(problem, found, exact) {
  for (const [role, values] of Object.entries(found)) {
    const largest = Math.max(1, ...exact[role].map(Math.abs));
    const { step } = storages[problem.tensors?.[role]?.storage ?? "f32"];
    values.forEach((y, i) => {
      const allowed = largest * (role.endsWith("Gradient") ? 1e-5 : 1e-6) + step * Math.abs(exact[role][i]);
      if (!(Math.abs(y - exact[role][i]) <= allowed)) {
        throw new Error(`${role} ${i}: ${y} in place of ${exact[role][i]}, ${allowed} off is allowed`);
      }
    });
  }
}

/** A trial of the forward pass; `other` are capabilities in place of the device's own. */
const forwards = (problem, roles, other = {}) => async (device) => {
  const { rows, width } = problem;
  const all = {
    input: numbers(rows * width, 0.5),
    residual: problem.tensors?.residual && numbers(rows * width).reverse(),
    weight: problem.affine && numbers(width, 1),
    bias: problem.affine === "weightAndBias" ? numbers(width).reverse() : undefined,
  };
  const inputs = Object.fromEntries(Object.entries(all).filter(([, values]) => values));
  const exact = forward(problem, inputs);
  const outputs = Object.fromEntries(roles.map((role) => [role, exact[role]]));
  const thePlan = plan(problem, { ...capabilities(device), ...other });
  compare(problem, await run(device, problem, thePlan, inputs, outputs), exact);
  return thePlan;
};

/** A trial of the backward pass. */
const backwards = (problem, roles) => async (device) => {
  const { rows, width } = problem;
  const inputs = { input: numbers(rows * width, 0.5), weight: numbers(width, 1), outputGradient: numbers(rows * width).reverse() };
  const exact = backward(problem, inputs);
  const outputs = Object.fromEntries(roles.map((role) => [role, exact[role]]));
  const thePlan = plan(problem, capabilities(device));
  compare(problem, await run(device, problem, thePlan, inputs, outputs), exact);
  return thePlan;
};

/** A trial of what cannot be planned: the error must say this. */
const refused = (words, ...wrong) => () => {
  try {
    plan(...wrong);
  } catch (error) {
    if (error instanceof Error && error.message.includes(words)) return;
    throw new Error(`"${error}" in place of an Error with "${words}"`);
  }
  throw new Error("it was accepted");
};

function must(condition, what) {
  if (!condition) throw new Error(what);
}

const layer = { rows: 100, width: 768, affine: "weightAndBias" };
const trials = {
  "layer normalization": forwards(layer, ["output"]),
  "without parameters, of an odd width": forwards({ rows: 9, width: 33, eps: 0.5 }, ["output"]),
  "RMS normalization": forwards({ ...layer, affine: "weight", normalization: "rmsNorm" }, ["output"]),
  "bf16 in, f16 out, strides, a residual and what is saved": forwards({
    rows: 20,
    width: 64,
    affine: "weightAndBias",
    tensors: {
      input: { storage: "bf16", offset: 8, rowStride: 72 },
      residual: { storage: "f16" },
      output: { storage: "f16", rowStride: 66 },
      sum: {},
      mean: {},
      rstd: {},
    },
  }, ["output", "sum", "mean", "rstd"]),
  "split rows, with scratch": async (device) => {
    const made = await forwards({ rows: 2, width: 8192, strategy: "split" }, ["output"])(device);
    must(made.strategy === "split" && made.scratch.length > 0 && made.chunks[0].dispatches.length > 1, "no split plan");
  },
  "chunks of rows": async (device) => {
    const made = await forwards(layer, ["output"], { maxBindingBytes: 32768 })(device);
    must(made.chunks.length > 5, `${made.chunks.length} chunks`);
  },
  "subgroups, as a GPU has them": async (device) => {
    if (!device.features.has("subgroups")) return;
    const made = await forwards(layer, ["output"], { class: "discrete" })(device);
    must(made.kernels[0].wgsl.startsWith("enable subgroups;"), "no kernel with subgroups");
  },
  "causal": forwards({ rows: 30, width: 33, sequenceRows: 15 }, ["output"]),
  "gradients": backwards({
    ...layer,
    operation: "backward",
    tensors: { weightGradient: {}, biasGradient: {} },
  }, ["inputGradient", "weightGradient", "biasGradient"]),
  "without capabilities": async (device) => {
    const inputs = { input: numbers(70, 0.5) };
    const problem = { rows: 10, width: 7 };
    const exact = forward(problem, inputs);
    compare(problem, await run(device, problem, plan(problem), inputs, { output: exact.output }), exact);
  },
  "another eps is seen": async (device) => {
    const problem = { rows: 10, width: 7, eps: 1e-3 };
    const inputs = { input: numbers(70, 0.5) };
    const exact = forward(problem, inputs);
    const found = await run(device, problem, plan({ ...problem, eps: 1e-5 }), inputs, { output: exact.output });
    try {
      compare(problem, found, exact);
    } catch {
      return;
    }
    throw new Error("the comparison accepts it");
  },
  "a width of 0 is refused": refused("width", { rows: 1, width: 0 }),
  "a word that is none is refused": refused("`epsilon`", { rows: 1, width: 2, epsilon: 1 }),
  "a word that is none is refused in a tensor too": refused("`stride`", { rows: 1, width: 2, tensors: { input: { stride: 4 } } }),
  "an eps that is none is refused": refused("eps", { rows: 1, width: 2, eps: NaN }),
  "a tensor that is none is refused": refused("weightGradient", { rows: 1, width: 2, tensors: { scales: {} } }),
  "a number with a fraction is refused": refused("1.5", { rows: 1.5, width: 2 }),
  "capabilities that are none are refused": refused("capabilities", { rows: 1, width: 2 }, { cores: "two" }),
  "what is undefined is as if it were absent": () =>
    must(plan({ rows: 1, width: 2, eps: undefined, tensors: undefined }, { subgroups: undefined }).chunks.length === 1, "it is not"),
  "a device that is too small is refused": refused("storage buffers", layer, { maxStorageBuffers: 2 }),
};

window.results = [];
const say = (line) => document.querySelector("#results").append(`${line}\n`);
try {
  const adapter = await navigator.gpu?.requestAdapter();
  if (!adapter) throw new Error("This browser has no WebGPU adapter, or this page is not from https or localhost.");
  const device = await adapter.requestDevice({ requiredFeatures: adapter.features.has("subgroups") ? ["subgroups"] : [] });
  let uncaptured = null;
  device.addEventListener("uncapturederror", ({ error }) => (uncaptured ??= error.message));
  await init();
  for (const [name, trial] of Object.entries(trials)) {
    const error = await Promise.resolve().then(() => trial(device)).then(() => uncaptured, (error) => error.message);
    window.results.push({ name, error });
    say(`${name}: ${error ?? "ok"}`);
  }
} catch (error) {
  window.results.push({ name: "start", error: error.message });
  say(error.message);
}
document.body.dataset.state = "done";
