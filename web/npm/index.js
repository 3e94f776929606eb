// The planner of gpu-layer-norm for JavaScript; index.d.ts says what each function takes and gives.

export { default, initSync, plan } from "./gpu_layer_norm_web.js";

/** What a device can do, for `plan`. */
export function capabilities(device, info = device.adapterInfo) {
  const { limits, features } = device;
  const { subgroupMinSize: min, subgroupMaxSize: max } = info ?? {};
  return {
    // A browser tells no more than this.
    class: info?.isFallbackAdapter ? "cpu" : "other",
    cores: globalThis.navigator?.hardwareConcurrency ?? 1,
    subgroups: features.has("subgroups") && min > 0 ? { min, max } : undefined,
    maxInvocationsPerWorkgroup: Math.min(limits.maxComputeInvocationsPerWorkgroup, limits.maxComputeWorkgroupSizeX),
    maxWorkgroupsPerDimension: limits.maxComputeWorkgroupsPerDimension,
    maxWorkgroupStorage: limits.maxComputeWorkgroupStorageSize,
    maxStorageBuffers: limits.maxStorageBuffersPerShaderStage,
    maxBindingBytes: limits.maxStorageBufferBindingSize,
    maxBufferBytes: limits.maxBufferSize,
    storageOffsetAlignment: limits.minStorageBufferOffsetAlignment,
  };
}

/** A plan on a device, bound to buffers: pipelines, bind groups, parameters and scratch, made once. */
export class PreparedPlan {
  #steps = [];
  #own = [];

  constructor(device, plan, buffers) {
    const { UNIFORM, STORAGE } = GPUBufferUsage;
    const pipelines = plan.kernels.map(({ label, wgsl, entryPoint, bindings }) => {
      const layout = device.createBindGroupLayout({
        label,
        entries: bindings.map(({ binding, type }) => ({ binding, visibility: GPUShaderStage.COMPUTE, buffer: { type } })),
      });
      return device.createComputePipeline({
        label,
        layout: device.createPipelineLayout({ label, bindGroupLayouts: [layout] }),
        compute: { module: device.createShaderModule({ label, code: wgsl }), entryPoint },
      });
    });
    const scratch = new Map(plan.scratch.map(({ role, bytes }) => [role, this.#buffer(device, role, bytes, STORAGE)]));
    for (const { tensors, dispatches } of plan.chunks) {
      for (const { kernel, workgroups, params } of dispatches) {
        const resource = (role) => {
          if (role === "params") return { buffer: this.#buffer(device, role, params.length, UNIFORM, params) };
          if (scratch.has(role)) return { buffer: scratch.get(role) };
          if (!buffers[role]) throw new Error(`the plan binds ${role}, and there is no such buffer`);
          return { buffer: buffers[role], ...tensors[role] };
        };
        const bindGroup = device.createBindGroup({
          layout: pipelines[kernel].getBindGroupLayout(0),
          entries: plan.kernels[kernel].bindings.map(({ binding, role }) => ({ binding, resource: resource(role) })),
        });
        this.#steps.push({ pipeline: pipelines[kernel], bindGroup, workgroups });
      }
    }
  }

  #buffer(device, label, size, usage, contents) {
    const buffer = device.createBuffer({ label, size, usage, mappedAtCreation: contents !== undefined });
    if (contents) {
      new Uint8Array(buffer.getMappedRange()).set(contents);
      buffer.unmap();
    }
    this.#own.push(buffer);
    return buffer;
  }

  /** Records the plan into a compute pass. */
  encode(pass) {
    for (const { pipeline, bindGroup, workgroups } of this.#steps) {
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, bindGroup);
      pass.dispatchWorkgroups(...workgroups);
    }
  }

  /** Frees parameters and scratch. What was recorded and not submitted may not be submitted any more. */
  destroy() {
    this.#own.forEach((buffer) => buffer.destroy());
  }
}
