/**
 * The planner of gpu-layer-norm: from a problem and the capabilities of a device to kernels in WGSL, workgroup counts, parameter blocks
 * and bindings, all of it plain data.
 *
 * ```js
 * import init, { plan, capabilities, PreparedPlan } from "gpu-layer-norm";
 *
 * await init();
 * const problem = { rows: 4096, width: 768, affine: "weightAndBias" };
 * const prepared = new PreparedPlan(device, plan(problem, capabilities(device)), { input, weight, bias, output });
 * const pass = encoder.beginComputePass();
 * prepared.encode(pass); // as often as you like
 * pass.end();
 * ```
 */

/** Loads the wasm; to be awaited before `plan` is called. Without an argument it is fetched from beside the module. */
export default function init(wasm?: { module_or_path: RequestInfo | URL | Response | BufferSource | WebAssembly.Module }): Promise<unknown>;

/** As `init`, from bytes or a module that are there already. */
export function initSync(wasm: { module: BufferSource | WebAssembly.Module }): unknown;

/** What an element is in memory. f16 and bf16 lie two to a 32-bit word; no device needs `shader-f16` for them. */
export type Storage = "f32" | "f16" | "bf16";

/** A tensor, by what it is for. `n` is the width; a condition is a row of scale, shift and gate that some rows share. */
export type Role =
  /** Rows × n. */
  | "input" | "residual" | "output" | "sum"
  /** n elements. */
  | "weight" | "bias"
  /** One element a row, f32. */
  | "mean" | "rstd"
  /** Conditions × n. */
  | "scale" | "shift" | "gate"
  /** Gradients of a loss, each of the shape of what it is the gradient of. */
  | "outputGradient" | "sumGradient" | "inputGradient" | "residualGradient" | "weightGradient" | "biasGradient"
  | "scaleGradient" | "shiftGradient" | "gateGradient"
  /** Four words a row, and two f32 a row, where rows are parts of others: see `operation`. */
  | "moments" | "gradientSums"
  /** Eight words a sequence: what causal normalization knows of the positions before. */
  | "state";

/** Memory that a plan needs besides the tensors. */
export type ScratchRole =
  | "partials" | "segmentSums" | "coefficients" | "columnSums" | "prefixes" | "scalings" | "carry" | "channelSums";

/** Where a tensor lies. Offsets and strides count elements. */
export interface Layout {
  /** Default: f32. */
  storage?: Storage;
  /** Elements before the first one. Default: 0. */
  offset?: number;
  /** From the beginning of one row to that of the next. Default: rows follow one another. */
  rowStride?: number;
  /** Tensors with the same number here lie in one buffer. Default: in a buffer with no other. */
  buffer?: number;
}

/** One dimension along which rows, or the elements of a row, are counted. */
export interface Dimension {
  size: number;
  /** Elements from one place to the next. */
  stride: number;
  /** The same in weight and bias; 0, the default, where places share a parameter. */
  parameterStride?: number;
}

/** What is to be computed: the mean and variance of each row, and from them y = (x − mean) / sqrt(variance + eps) · weight + bias. */
export interface Problem {
  /** Rows. */
  rows: number;
  /** Elements of a row, at most 2^24. */
  width: number;
  /**
   * Default: forward. The last four are for rows of which each device has a part: moments measures the parts, normalize and the others take
   * the moments of whole rows (four words a row: mean and what is to be added to it, standard deviation, all f32, and the count, u32),
   * gradientSums leaves two f32 a row, and gradients takes those of all parts added up.
   */
  operation?: "forward" | "backward" | "moments" | "normalize" | "gradientSums" | "gradients";
  /** Default: layerNorm. */
  normalization?: "layerNorm" | "rmsNorm";
  /** Default: none. */
  affine?: "none" | "weight" | "weightAndBias";
  /** Whether the weight is stored as its difference from 1. */
  zeroCentredWeight?: boolean;
  /** Default: biased. */
  variance?: "biased" | "unbiased";
  /** Default: 1e-5. */
  eps?: number;
  /** How scale and shift go together with weight and bias. Default: adaptive. */
  modulation?: "adaptive" | "conditional";
  /** Rows one after another that share a condition. Default: 1. */
  rowsPerCondition?: number;
  /** Makes the normalization causal, in sequences of so many rows. */
  sequenceRows?: number;
  /** How rows and elements lie where they do not one after another; the last dimension counts fastest. */
  grid?: { rows: Dimension[]; elements: Dimension[] };
  /** Whether the gradients of weight, bias, scale, shift and gate are added to what their tensors hold. */
  accumulate?: boolean;
  /** Those that are not f32 from the beginning of a buffer of their own, or that take part only where they are named here. */
  tensors?: Partial<Record<Role, Layout>>;
  /** Default: the one that ranks first. */
  strategy?: Strategy;
}

/** How rows are worked on. */
export type Strategy = "resident" | "partlyResident" | "streaming" | "split";

/** What a plan needs to know of a device. What is absent is as every implementation of WebGPU has it. */
export interface Capabilities {
  class?: "discrete" | "integrated" | "cpu" | "other";
  /** Processor cores, where the adapter is a processor. */
  cores?: number;
  subgroups?: { min: number; max: number };
  maxInvocationsPerWorkgroup?: number;
  maxWorkgroupsPerDimension?: number;
  maxWorkgroupStorage?: number;
  maxStorageBuffers?: number;
  maxBindingBytes?: number;
  maxBufferBytes?: number;
  storageOffsetAlignment?: number;
}

/** A kernel. */
export interface Kernel {
  label: string;
  wgsl: string;
  entryPoint: string;
  /** Those of group 0, in ascending order. */
  bindings: { binding: number; role: Role | ScratchRole | "params"; type: GPUBufferBindingType }[];
}

/** A dispatch. */
export interface Dispatch {
  /** Index into the plan's kernels. */
  kernel: number;
  workgroups: [number, number, number];
  /** The content of the uniform buffer with the role `params`. */
  params: Uint8Array;
}

/** Rows that one set of bindings covers. */
export interface Chunk {
  /** The first row, and the one after the last. */
  rows: [number, number];
  /** The part of each tensor's buffer to bind, in bytes. */
  tensors: Partial<Record<Role, { offset: number; size: number }>>;
  /** To be run in this order. */
  dispatches: Dispatch[];
}

/** What runs a problem on a device. */
export interface Plan {
  /** In words. */
  description: string;
  strategy: Strategy;
  kernels: Kernel[];
  /** Storage buffers that one dispatch leaves something in for the next. */
  scratch: { role: ScratchRole; bytes: number }[];
  /** To be run one after another. */
  chunks: Chunk[];
}

/**
 * The plan for a problem on such a device. Without capabilities it is one that runs everywhere.
 *
 * @throws {Error} which says what is wrong with the problem, or what the device lacks.
 */
export function plan(problem: Problem, capabilities?: Capabilities): Plan;

/** What a device can do. `info` is for devices that do not tell of their adapter. */
export function capabilities(device: GPUDevice, info?: GPUAdapterInfo): Capabilities;

/** A plan on a device, bound to buffers: pipelines, bind groups, parameters and scratch, made once. */
export class PreparedPlan {
  /**
   * `buffers` has one with the usage STORAGE for each tensor of the problem.
   *
   * @throws {Error} for a tensor without a buffer. What WebGPU itself refuses, it tells as it tells all errors: in error scopes.
   */
  constructor(device: GPUDevice, plan: Plan, buffers: Partial<Record<Role, GPUBuffer>>);
  /** Records the plan into a compute pass. */
  encode(pass: GPUComputePassEncoder): void;
  /** Frees parameters and scratch. */
  destroy(): void;
}
