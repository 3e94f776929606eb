#!/usr/bin/env python3
"""Makes the fixtures in tests/data, which are checked in; run it only to make them again.

    python3 -m venv venv
    venv/bin/pip install onnx==1.22.0 jax==0.10.2 flax==0.12.8 safetensors==0.8.0 torch==2.15.0
    venv/bin/python scripts/fixtures.py

With names of files it makes only these, and needs only the packages that they are made with.

- onnx/layer_normalization.json, onnx/rms_normalization.json, onnx/group_normalization.json and
  onnx/instance_normalization.json: the test_layer_normalization_*, test_rms_normalization_*, test_group_normalization_* and
  test_instancenorm_* cases of the ONNX backend suite, as the onnx wheel carries them. onnx is under the Apache License 2.0,
  copied beside it.
- flax_float64.json: inputs, and what flax.linen.LayerNorm gives for them in float64.
- jax_gradients_float64.json: inputs, and the gradients that jax.vjp gives for layer and RMS normalization in float64.
  The script compares them with those of PyTorch and prints the largest difference.
- modulation_float64.json: for adaptive and conditional layer and RMS normalization, with and without a gated residual sum
  before it, inputs, the outputs in float64 and the gradients that jax.vjp gives.
- causal_float64.json: the same for causal layer and RMS normalization, written as the mean and variance of all positions
  up to each.
- checkpoint.safetensors: the normalization weights of a PyTorch transformer encoder in F32, F16 and BF16, and one other
  tensor.
"""

import glob
import json
import os
import shutil
import sys

os.environ["JAX_ENABLE_X64"] = "1"

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from onnx import numpy_helper

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "data")


def tensor(path):
    with open(path, "rb") as file:
        message = onnx.TensorProto()
        message.ParseFromString(file.read())
    array = numpy_helper.to_array(message)
    assert array.dtype == np.float32, path
    return {"shape": list(array.shape), "values": [float(x) for x in array.ravel()]}


def onnx_cases(prefix, op_type, defaults, inputs, outputs, count):
    root = os.path.join(os.path.dirname(onnx.__file__), "backend", "test", "data", "node")
    cases = []
    for folder in sorted(glob.glob(os.path.join(root, prefix + "*"))):
        # The _expanded cases are the same data for the operator's decomposition.
        if "expanded" in folder:
            continue
        node = onnx.load(os.path.join(folder, "model.onnx")).graph.node[0]
        assert node.op_type == op_type
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        case = {"name": os.path.basename(folder)}
        for name, default in (defaults | {"epsilon": float(np.float32(1e-5))}).items():
            case[name] = attributes.pop(name, default)
            assert case[name] is not None, name
        assert not attributes, attributes
        data = os.path.join(folder, "test_data_set_0")
        for kind, names in (("input", inputs), ("output", outputs)):
            for i, name in enumerate(names):
                case[name] = tensor(os.path.join(data, f"{kind}_{i}.pb"))
        cases.append(case)
    assert len(cases) == count, len(cases)
    return {"source": f"onnx {onnx.__version__}, Apache-2.0", "cases": cases}


def flax_cases():
    import flax
    import flax.linen

    rng = np.random.default_rng(1607)
    cases = []
    for rows, width, mean, std, eps in [
        (3, 5, 0.0, 1.0, 1e-5),
        (4, 64, 3.0, 2.0, 1e-5),
        (2, 768, 1e6, 1.0, 1e-12),
        (2, 1000, -100.0, 0.01, 1e-5),
        (5, 33, 1e-8, 1e-10, 1e-12),
    ]:
        x = (mean + std * rng.standard_normal((rows, width))).astype(np.float32)
        weight = rng.uniform(0.5, 1.5, width).astype(np.float32)
        bias = rng.uniform(-1.0, 1.0, width).astype(np.float32)
        layer = flax.linen.LayerNorm(
            epsilon=eps, dtype=jnp.float64, param_dtype=jnp.float64, use_fast_variance=False
        )
        parameters = {"scale": jnp.asarray(weight, jnp.float64), "bias": jnp.asarray(bias, jnp.float64)}
        y = layer.apply({"params": parameters}, jnp.asarray(x, jnp.float64))
        assert y.dtype == jnp.float64
        cases.append(
            {
                "rows": rows,
                "width": width,
                "eps": eps,
                "input": [float(v) for v in x.ravel()],
                "weight": [float(v) for v in weight],
                "bias": [float(v) for v in bias],
                "output": [float(v) for v in np.asarray(y).ravel()],
            }
        )
    return {"source": f"flax {flax.__version__}, jax {jax.__version__}, float64", "cases": cases}


def jax_gradients():
    rng = np.random.default_rng(2016)
    layer, rms = "layer_norm", "rms_norm"
    cases = []
    for normalization, rows, width, mean, std, eps, unbiased, affine, zero_centred in [
        (layer, 4, 64, 3.0, 2.0, 1e-5, False, "none", False),
        (layer, 3, 5, 0.0, 1.0, 1e-5, True, "none", False),
        (layer, 5, 33, 0.5, 1.0, 0.0, False, "weight", False),
        (layer, 4, 64, -2.0, 3.0, 1e-12, True, "weight", False),
        # Two elements have an input gradient only where eps counts beside the variance.
        (layer, 4, 2, 0.0, 0.01, 1e-5, False, "weight", False),
        (layer, 3, 5, 0.0, 1.0, 1e-5, False, "weight and bias", False),
        (layer, 2, 768, 1e6, 1.0, 1e-12, False, "weight and bias", False),
        (layer, 3, 100, -100.0, 0.01, 1e-5, False, "weight and bias", False),
        (layer, 5, 33, 1.0, 0.5, 1e-5, True, "weight and bias", True),
        (rms, 5, 33, 0.0, 1.0, 1e-5, False, "none", False),
        (rms, 4, 64, 1.0, 2.0, 1e-6, False, "weight", False),
        (rms, 3, 64, 0.0, 0.01, 1e-6, False, "weight", True),
    ]:
        x = (mean + std * rng.standard_normal((rows, width))).astype(np.float32)
        dy = rng.standard_normal((rows, width)).astype(np.float32)
        low = -0.5 if zero_centred else 0.5
        weight = None if affine == "none" else rng.uniform(low, low + 1.0, width).astype(np.float32)
        bias = affine == "weight and bias"

        def forward(parameters):
            x = parameters["input"]
            if normalization == rms:
                y = x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + eps)
            else:
                centred = x - jnp.mean(x, axis=-1, keepdims=True)
                variance = jnp.sum(centred**2, axis=-1, keepdims=True) / (width - 1 if unbiased else width)
                y = centred * jax.lax.rsqrt(variance + eps)
            if "weight" in parameters:
                y = y * (1.0 + parameters["weight"] if zero_centred else parameters["weight"])
            if "bias" in parameters:
                y = y + parameters["bias"]
            return y

        parameters = {"input": jnp.asarray(x, jnp.float64)}
        if weight is not None:
            parameters["weight"] = jnp.asarray(weight, jnp.float64)
        if bias:
            # No gradient depends on its values.
            parameters["bias"] = jnp.zeros(width, jnp.float64)
        (gradients,) = jax.vjp(forward, parameters)[1](jnp.asarray(dy, jnp.float64))
        assert all(g.dtype == jnp.float64 for g in gradients.values())
        case = {
            "normalization": normalization,
            "rows": rows,
            "width": width,
            "eps": eps,
            "unbiased": unbiased,
            "zero_centred_weight": zero_centred,
            "input": [float(v) for v in x.ravel()],
            "output_gradient": [float(v) for v in dy.ravel()],
            "weight": None if weight is None else [float(v) for v in weight],
            "bias": bias,
        }
        for name in ("input", "weight", "bias"):
            gradient = gradients.get(name)
            values = None if gradient is None else [float(v) for v in np.asarray(gradient).ravel()]
            case[f"{name}_gradient"] = values
        cases.append(case)
    compare_with_torch(cases)
    return {"source": f"jax {jax.__version__}, float64", "cases": cases}


def values(array):
    return None if array is None else [float(v) for v in np.asarray(array).ravel()]


def centred(x, axes):
    # A second time, because a mean of 1e6 is rounded to 1e-10.
    x = x - jnp.mean(x, axis=axes, keepdims=True)
    return x - jnp.mean(x, axis=axes, keepdims=True)


def normalized(x, axes, rms, eps, unbiased):
    """x̂ over these axes; statistics of the whole array that is given."""
    x = x if rms else centred(x, axes)
    count = np.prod([x.shape[axis] for axis in axes]) - (1 if unbiased else 0)
    return x * jax.lax.rsqrt(jnp.sum(x**2, axis=axes, keepdims=True) / count + eps)


def with_gradients(case, forward, leaves, cotangents):
    """The case with the leaves, what forward makes of them, and the gradients of each leaf: null for what is not there."""
    exact = {name: jnp.asarray(leaf, jnp.float64) for name, leaf in leaves.items() if leaf is not None}
    outputs, vjp = jax.vjp(forward, exact)
    seeds = {name: jnp.zeros_like(y) for name, y in outputs.items()}
    seeds |= {name: jnp.asarray(dy, jnp.float64) for name, dy in cotangents.items() if dy is not None}
    (gradients,) = vjp(seeds)
    assert all(a.dtype == jnp.float64 for a in [*outputs.values(), *gradients.values()])
    case |= {name: values(leaf) for name, leaf in leaves.items()}
    case |= {f"{name}_gradient": values(dy) for name, dy in cotangents.items()}
    case |= {name: values(y) for name, y in outputs.items()}
    case |= {f"{name}_gradient": values(gradients.get(name)) for name in leaves}
    return case


def modulation():
    rng = np.random.default_rng(2022)
    layer, rms = "layer_norm", "rms_norm"
    affine, both = ("weight", "bias"), ("scale", "shift")
    cases = []
    for normalization, form, rows, rows_per_condition, width, mean, eps, unbiased, zero_centred, present in [
        # One condition for each sample, the last of which is shorter, and one for each row.
        (layer, "adaptive", 7, 3, 8, 0.5, 1e-6, False, False, both),
        (layer, "adaptive", 7, 3, 8, 0.5, 1e-5, False, False, (*affine, *both)),
        (layer, "conditional", 7, 3, 8, 0.5, 1e-5, False, False, (*affine, *both)),
        (layer, "adaptive", 4, 1, 9, -2.0, 1e-5, True, False, (*affine, *both)),
        (layer, "conditional", 4, 1, 9, -2.0, 1e-5, True, False, (*affine, *both)),
        # All rows under one condition.
        (layer, "adaptive", 3, 3, 8, 0.0, 1e-5, False, True, (*affine, *both)),
        (layer, "conditional", 3, 3, 8, 0.0, 1e-5, False, True, (*affine, *both)),
        # Scale or shift alone, weight alone.
        (layer, "adaptive", 5, 2, 6, 0.0, 1e-5, False, False, ("weight", "scale")),
        (layer, "conditional", 5, 2, 6, 0.0, 1e-5, False, False, (*affine, "shift")),
        # A gated sum; it goes on to what comes next, and has a gradient from there.
        (layer, "adaptive", 5, 2, 8, 0.5, 1e-5, False, False, (*both, "residual", "gate", "sum_gradient")),
        (layer, "conditional", 5, 2, 8, 0.5, 1e-5, False, False, (*affine, *both, "residual", "gate")),
        (layer, "adaptive", 4, 1, 9, 0.5, 1e-5, False, False, (*affine, "residual", "gate", "sum_gradient")),
        (layer, "adaptive", 4, 2, 8, 0.5, 1e-5, False, False, (*both, "residual")),
        (layer, "adaptive", 3, 2, 40, 1e6, 1e-12, False, False, (*affine, *both)),
        (rms, "adaptive", 6, 3, 8, 0.5, 1e-6, False, False, both),
        (rms, "adaptive", 5, 2, 9, 1.0, 1e-6, False, False, ("weight", *both)),
        (rms, "conditional", 5, 2, 9, 1.0, 1e-6, False, False, (*affine, *both)),
        (rms, "conditional", 5, 3, 8, 0.0, 1e-6, False, True, ("weight", "scale", "residual", "gate", "sum_gradient")),
    ]:
        conditions = -(-rows // rows_per_condition)
        low = -0.5 if zero_centred else 0.5

        def drawn(name):
            if name in ("weight", "bias"):
                a = rng.uniform(low, low + 1.0, width) if name == "weight" else rng.uniform(-1.0, 1.0, width)
            elif name in ("scale", "shift", "gate"):
                a = rng.uniform(-1.0, 1.0, (conditions, width))
            else:
                a = (mean if name == "input" else 0.0) + rng.standard_normal((rows, width))
            return a.astype(np.float32)

        names = ("input", "residual", "gate", "weight", "bias", "scale", "shift")
        leaves = {name: drawn(name) if name == "input" or name in present else None for name in names}
        cotangents = {
            "output": drawn("output"),
            "sum": drawn("sum") if "sum_gradient" in present else None,
        }

        def forward(p):
            def of_rows(a):
                return jnp.repeat(a, rows_per_condition, axis=0)[:rows]

            s = p["input"]
            if "gate" in p:
                s = of_rows(p["gate"]) * s
            if "residual" in p:
                s = p["residual"] + s
            weight = p.get("weight", 0.0 if zero_centred else 1.0) + (1.0 if zero_centred else 0.0)
            bias = p.get("bias", 0.0)
            scale = of_rows(p["scale"]) if "scale" in p else 0.0
            shift = of_rows(p["shift"]) if "shift" in p else 0.0
            x = normalized(s, (1,), normalization == rms, eps, unbiased)
            if form == "adaptive":
                y = (x * weight + bias) * (1.0 + scale) + shift
            else:
                y = x * (weight + scale) + (bias + shift)
            return {"output": y} | ({"sum": s} if "residual" in p else {})

        case = {
            "normalization": normalization,
            "modulation": form,
            "rows": rows,
            "rows_per_condition": rows_per_condition,
            "width": width,
            "eps": eps,
            "unbiased": unbiased,
            "zero_centred_weight": zero_centred,
        }
        cases.append(with_gradients(case, forward, leaves, cotangents))
    return {"source": f"jax {jax.__version__}, float64", "cases": cases}


def causal():
    rng = np.random.default_rng(2019)
    layer, rms = "layer_norm", "rms_norm"
    cases = []
    # `drift` is what the mean grows by from a position to the next.
    for normalization, sequences, length, width, mean, drift, eps, unbiased, affine in [
        (layer, 1, 6, 4, 0.0, 0.0, 1e-5, False, ()),
        (layer, 3, 5, 8, 0.5, 0.0, 1e-5, False, ("weight",)),
        (layer, 2, 9, 7, -1.0, 0.0, 1e-5, True, ("weight", "bias")),
        (layer, 4, 1, 16, 2.0, 0.0, 1e-5, False, ("weight", "bias")),
        # One element at a position: the first has no variance but eps.
        (layer, 2, 12, 1, 0.0, 0.0, 0.1, False, ("weight", "bias")),
        (layer, 2, 10, 6, 1e6, 0.0, 1e-5, False, ("weight", "bias")),
        (layer, 1, 10, 6, 1e6, -3e4, 1e-5, False, ("weight", "bias")),
        (layer, 1, 40, 3, -100.0, 0.01, 1e-12, False, ("weight", "bias")),
        (rms, 2, 6, 5, 0.0, 0.0, 1e-6, False, ()),
        (rms, 2, 8, 6, 1.0, 0.5, 1e-6, False, ("weight",)),
        (rms, 3, 1, 8, 0.0, 0.0, 1e-6, False, ("weight", "bias")),
    ]:
        shape = (sequences, length, width)
        x = mean + drift * np.arange(length)[None, :, None] + rng.standard_normal(shape)
        leaves = {
            "input": x.astype(np.float32),
            "weight": rng.uniform(0.5, 1.5, width).astype(np.float32) if "weight" in affine else None,
            "bias": rng.uniform(-1.0, 1.0, width).astype(np.float32) if "bias" in affine else None,
        }
        cotangents = {"output": rng.standard_normal(shape).astype(np.float32)}

        def forward(p):
            prefixes = [p["input"][:, : t + 1] for t in range(length)]
            x = [normalized(prefix, (1, 2), normalization == rms, eps, unbiased)[:, -1] for prefix in prefixes]
            return {"output": jnp.stack(x, axis=1) * p.get("weight", 1.0) + p.get("bias", 0.0)}

        case = {
            "normalization": normalization,
            "sequences": sequences,
            "length": length,
            "width": width,
            "eps": eps,
            "unbiased": unbiased,
        }
        cases.append(with_gradients(case, forward, leaves, cotangents))
    return {"source": f"jax {jax.__version__}, float64", "cases": cases}


def compare_with_torch(cases):
    import torch

    largest = 0.0
    for case in cases:
        rows, width, eps = case["rows"], case["width"], case["eps"]
        leaves = {"input": torch.tensor(case["input"], dtype=torch.float64).reshape(rows, width)}
        if case["weight"] is not None:
            leaves["weight"] = torch.tensor(case["weight"], dtype=torch.float64)
        if case["bias"]:
            leaves["bias"] = torch.zeros(width, dtype=torch.float64)
        for leaf in leaves.values():
            leaf.requires_grad_()
        if case["normalization"] == "rms_norm":
            y = torch.nn.functional.rms_norm(leaves["input"], [width], eps=eps)
        else:
            # PyTorch has only the biased variance; with c = (n - 1) / n, rsqrt(v / c + eps) = c**0.5 rsqrt(v + c eps).
            c = (width - 1) / width if case["unbiased"] else 1.0
            y = c**0.5 * torch.nn.functional.layer_norm(leaves["input"], [width], eps=c * eps)
        if "weight" in leaves:
            y = y * (1.0 + leaves["weight"] if case["zero_centred_weight"] else leaves["weight"])
        if "bias" in leaves:
            y = y + leaves["bias"]
        y.backward(torch.tensor(case["output_gradient"], dtype=torch.float64).reshape(rows, width))
        for name, leaf in leaves.items():
            ours = torch.tensor(case[f"{name}_gradient"], dtype=torch.float64).reshape(leaf.shape)
            difference = (ours - leaf.grad).abs().max() / leaf.grad.abs().max()
            largest = max(largest, difference.item())
    print(f"gradients of jax and torch {torch.__version__}: largest difference {largest:.1e} of the largest element")
    assert largest < 1e-8


def checkpoint():
    import torch

    layer = torch.nn.TransformerEncoderLayer(d_model=6, nhead=1, dim_feedforward=4)
    encoder = torch.nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
    model = torch.nn.ModuleDict({"encoder": encoder})
    first, second = encoder.layers
    i = torch.arange(6)
    with torch.no_grad():
        # All these values are exact in bf16.
        for norm in (first.norm1, first.norm2, second.norm1):
            norm.weight.copy_(1 + (i - 2) / 8)
            norm.bias.copy_((i - 3) / 4)
        first.linear1.weight.copy_(torch.arange(24).reshape(4, 6) / 8)
    first.norm2.half()
    second.norm1.bfloat16()
    modules = ("layers.0.norm1.", "layers.0.norm2.", "layers.1.norm1.", "layers.0.linear1.weight")
    prefixes = tuple("encoder." + module for module in modules)
    return {name: value for name, value in model.state_dict().items() if name.startswith(prefixes)}


def write(name, value):
    if name.endswith(".safetensors"):
        import safetensors.torch

        safetensors.torch.save_file(value, os.path.join(DATA, name))
        return
    with open(os.path.join(DATA, name), "w") as file:
        json.dump(value, file, separators=(",", ":"))
        file.write("\n")


def copy_licenses():
    licenses = os.path.join(os.path.dirname(onnx.__file__), "..", f"onnx-{onnx.__version__}.dist-info", "licenses")
    for name in ("LICENSE", "NOTICE"):
        shutil.copy(os.path.join(licenses, name), os.path.join(DATA, "onnx", name))


def onnx_maker(*arguments):
    def make():
        copy_licenses()
        return onnx_cases(*arguments)

    return make


MAKERS = {
    "onnx/layer_normalization.json": onnx_maker(
        "test_layer_normalization_", "LayerNormalization", {"axis": -1}, ["X", "W", "B"], ["Y", "Mean", "InvStdDev"], 19
    ),
    "onnx/rms_normalization.json": onnx_maker(
        "test_rms_normalization_", "RMSNormalization", {"axis": -1}, ["X", "W"], ["Y"], 19
    ),
    "onnx/group_normalization.json": onnx_maker(
        "test_group_normalization_", "GroupNormalization", {"num_groups": None}, ["X", "scale", "bias"], ["Y"], 2
    ),
    "onnx/instance_normalization.json": onnx_maker(
        "test_instancenorm_", "InstanceNormalization", {}, ["X", "scale", "bias"], ["Y"], 2
    ),
    "flax_float64.json": flax_cases,
    "jax_gradients_float64.json": jax_gradients,
    "modulation_float64.json": modulation,
    "causal_float64.json": causal,
    "checkpoint.safetensors": checkpoint,
}
for name in sys.argv[1:] or MAKERS:
    write(name, MAKERS[name]())
