#!/usr/bin/env python3
"""Makes the fixtures in tests/data, which are checked in; run it only to make them again.

    python3 -m venv venv && venv/bin/pip install onnx==1.22.0 jax==0.10.2 flax==0.12.8
    venv/bin/python scripts/fixtures.py

- onnx/layer_normalization.json and onnx/rms_normalization.json: the test_layer_normalization_* and test_rms_normalization_*
  cases of the ONNX backend suite, as the onnx wheel carries them. onnx is under the Apache License 2.0, copied beside it.
- flax_float64.json: inputs, and what flax.linen.LayerNorm gives for them in float64.
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
licenses = os.path.join(os.path.dirname(onnx.__file__), "..", f"onnx-{onnx.__version__}.dist-info", "licenses")
for name in ("LICENSE", "NOTICE"):
    shutil.copy(os.path.join(licenses, name), os.path.join(DATA, "onnx", name))
