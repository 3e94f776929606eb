#!/usr/bin/env python3
"""Makes the fixtures in tests/data, which are checked in; run it only to make them again.

    python3 -m venv venv
    venv/bin/pip install onnx==1.22.0 jax==0.10.2 flax==0.12.8 safetensors==0.8.0 torch==2.15.0
    venv/bin/python scripts/fixtures.py

- onnx/layer_normalization.json and onnx/rms_normalization.json: the test_layer_normalization_* and test_rms_normalization_*
  cases of the ONNX backend suite, as the onnx wheel carries them. onnx is under the Apache License 2.0, copied beside it.
- flax_float64.json: inputs, and what flax.linen.LayerNorm gives for them in float64.
- jax_gradients_float64.json: inputs, and the gradients that jax.vjp gives for layer and RMS normalization in float64.
  The script compares them with those of PyTorch and prints the largest difference.
- checkpoint.safetensors: the normalization weights of a PyTorch transformer encoder in F32, F16 and BF16, and one other
  tensor.
"""

import glob
import json
import os
import shutil

os.environ["JAX_ENABLE_X64"] = "1"

import flax
import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import safetensors.torch
import torch
from onnx import numpy_helper

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "data")


def tensor(path):
    with open(path, "rb") as file:
        message = onnx.TensorProto()
        message.ParseFromString(file.read())
    array = numpy_helper.to_array(message)
    assert array.dtype == np.float32, path
    return {"shape": list(array.shape), "values": [float(x) for x in array.ravel()]}


def onnx_cases(prefix, op_type, inputs, outputs):
    root = os.path.join(os.path.dirname(onnx.__file__), "backend", "test", "data", "node")
    cases = []
    for folder in sorted(glob.glob(os.path.join(root, prefix + "*"))):
        # The _expanded cases are the same data for the operator's decomposition.
        if "expanded" in folder:
            continue
        node = onnx.load(os.path.join(folder, "model.onnx")).graph.node[0]
        assert node.op_type == op_type
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        case = {
            "name": os.path.basename(folder),
            "axis": attributes.pop("axis", -1),
            "epsilon": attributes.pop("epsilon", float(np.float32(1e-5))),
        }
        assert not attributes, attributes
        data = os.path.join(folder, "test_data_set_0")
        for kind, names in (("input", inputs), ("output", outputs)):
            for i, name in enumerate(names):
                case[name] = tensor(os.path.join(data, f"{kind}_{i}.pb"))
        cases.append(case)
    assert len(cases) == 19, len(cases)
    return {"source": f"onnx {onnx.__version__}, Apache-2.0", "cases": cases}


def flax_cases():
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
    return {"source": f"jax {jax.__version__}, float64", "cases": cases}


def compare_with_torch(cases):
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
    with open(os.path.join(DATA, name), "w") as file:
        json.dump(value, file, separators=(",", ":"))
        file.write("\n")


layer_norm = onnx_cases(
    "test_layer_normalization_", "LayerNormalization", ["X", "W", "B"], ["Y", "Mean", "InvStdDev"]
)
write(os.path.join("onnx", "layer_normalization.json"), layer_norm)
rms_norm = onnx_cases("test_rms_normalization_", "RMSNormalization", ["X", "W"], ["Y"])
write(os.path.join("onnx", "rms_normalization.json"), rms_norm)
write("flax_float64.json", flax_cases())
gradients = jax_gradients()
compare_with_torch(gradients["cases"])
write("jax_gradients_float64.json", gradients)
safetensors.torch.save_file(checkpoint(), os.path.join(DATA, "checkpoint.safetensors"))
licenses = os.path.join(os.path.dirname(onnx.__file__), "..", f"onnx-{onnx.__version__}.dist-info", "licenses")
for name in ("LICENSE", "NOTICE"):
    shutil.copy(os.path.join(licenses, name), os.path.join(DATA, "onnx", name))
