#!/usr/bin/env python3
"""PyTorch eager, torch.compile and a Triton kernel on the shapes of the layer_norm benchmark, each beside a copy of the same
bytes in the same run, timed with CUDA events. Results are compared with float64 before they are timed.

    python3 benches/torch_layer_norm.py --json FILE [--log2-elements 28] [--samples 15]
    python3 benches/torch_layer_norm.py --json FILE --operations modulated,causal --widths 768,4096

The second is adaptive layer normalization, scale and shift for each sample of 128 rows, and causal (cumulative) layer normalization of
sequences of 1024 positions, by cumulative sums in float32. Their tensors have whole samples and sequences, which are a few rows less
where these do not divide the number of rows. The Triton kernel has none of them.

Needs a machine with CUDA, and torch; Triton comes with it. Writes the JSON that `cargo bench --bench report` reads.
"""

import argparse
import datetime
import json
import statistics

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

WIDTHS = [32, 64, 128, 256, 512, 768, 1000, 1001, 1024, 2048, 3072, 4096, 5120, 8192, 16384, 32768, 50257, 65536, 131072,
          262144, 1048576]
FEW_ROWS = [(rows, width) for width in (768, 3072, 65536) for rows in (1, 4, 16)]
STORAGE = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
# backward is that of layer_norm alone: the gradients of input, weight and bias from that of the output.
OPERATIONS = ("layer_norm", "residual", "rms_norm", "backward")
# Rows of a sample, and of a sequence.
SAMPLE_ROWS = {"modulated": 128, "causal": 1024}
EPS = 1e-5
# Elements that one Triton program holds; longer rows are read again.
MOST_HELD = 32768


@triton.jit
def kernel(
    x_ptr, residual_ptr, weight_ptr, bias_ptr, y_ptr, sum_ptr, width, eps,
    RESIDUAL: tl.constexpr, RMS: tl.constexpr, BLOCK: tl.constexpr, ONE: tl.constexpr,
):
    start = tl.program_id(0).to(tl.int64) * width
    columns = tl.arange(0, BLOCK)
    if ONE:
        mask = columns < width
        x = tl.load(x_ptr + start + columns, mask=mask, other=0.0).to(tl.float32)
        if RESIDUAL:
            x += tl.load(residual_ptr + start + columns, mask=mask, other=0.0).to(tl.float32)
            tl.store(sum_ptr + start + columns, x, mask=mask)
        if RMS:
            mean = 0.0
        else:
            mean = tl.sum(x, axis=0) / width
        d = tl.where(mask, x - mean, 0.0)
        rstd = 1.0 / tl.sqrt(tl.sum(d * d, axis=0) / width + eps)
        y = d * rstd * tl.load(weight_ptr + columns, mask=mask, other=0.0).to(tl.float32)
        if not RMS:
            y += tl.load(bias_ptr + columns, mask=mask, other=0.0).to(tl.float32)
        tl.store(y_ptr + start + columns, y, mask=mask)
    else:
        total = tl.zeros([BLOCK], dtype=tl.float32)
        for first in range(0, width, BLOCK):
            at = first + columns
            x = tl.load(x_ptr + start + at, mask=at < width, other=0.0).to(tl.float32)
            if RESIDUAL:
                x += tl.load(residual_ptr + start + at, mask=at < width, other=0.0).to(tl.float32)
                tl.store(sum_ptr + start + at, x, mask=at < width)
            total += x
        if RMS:
            mean = 0.0
        else:
            mean = tl.sum(total, axis=0) / width
        squares = tl.zeros([BLOCK], dtype=tl.float32)
        for first in range(0, width, BLOCK):
            at = first + columns
            x = tl.load(x_ptr + start + at, mask=at < width, other=0.0).to(tl.float32)
            if RESIDUAL:
                x += tl.load(residual_ptr + start + at, mask=at < width, other=0.0).to(tl.float32)
            d = tl.where(at < width, x - mean, 0.0)
            squares += d * d
        rstd = 1.0 / tl.sqrt(tl.sum(squares, axis=0) / width + eps)
        for first in range(0, width, BLOCK):
            at = first + columns
            x = tl.load(x_ptr + start + at, mask=at < width, other=0.0).to(tl.float32)
            if RESIDUAL:
                x += tl.load(residual_ptr + start + at, mask=at < width, other=0.0).to(tl.float32)
            y = (x - mean) * rstd * tl.load(weight_ptr + at, mask=at < width, other=0.0).to(tl.float32)
            if not RMS:
                y += tl.load(bias_ptr + at, mask=at < width, other=0.0).to(tl.float32)
            tl.store(y_ptr + start + at, y, mask=at < width)


def by_triton(operation, x, residual, weight, bias):
    rows, width = x.shape
    y, total = torch.empty_like(x), torch.empty_like(x) if operation == "residual" else x
    block = min(triton.next_power_of_2(width), MOST_HELD)
    warps = min(max(block // 512, 1), 32)
    one = block >= width
    kernel[(rows,)](
        x, residual, weight, bias, y, total, width, EPS,
        RESIDUAL=operation == "residual", RMS=operation == "rms_norm",
        BLOCK=block if one else 8192, ONE=one, num_warps=warps if one else 16,
    )
    return (y, total) if operation == "residual" else y


def adaptive(x, weight, bias, scale, shift):
    """Layer normalization, then x · (1 + scale) + shift, of as many samples as scale and shift have rows."""
    rows, width = x.shape
    y = F.layer_norm(x.view(scale.shape[0], -1, width), (width,), weight, bias, EPS)
    return (y * (1 + scale[:, None]) + shift[:, None]).view(rows, width)


def cumulative(x, weight, bias):
    """Layer normalization of each position by mean and variance of all up to it in its sequence."""
    rows, width = x.shape
    length = min(rows, SAMPLE_ROWS["causal"])
    sequences = x.view(-1, length, width).float()
    count = width * torch.arange(1, length + 1, device=x.device, dtype=torch.float32)
    mean = sequences.sum(-1).cumsum(-1) / count
    variance = (sequences * sequences).sum(-1).cumsum(-1) / count - mean * mean
    y = (sequences - mean[..., None]) * torch.rsqrt(variance + EPS)[..., None] * weight.float() + bias.float()
    return y.to(x.dtype).view(rows, width)


def eager(operation, x, residual, weight, bias, scale=None, shift=None):
    width = x.shape[-1]
    if operation == "residual":
        total = x + residual
        return F.layer_norm(total, (width,), weight, bias, EPS), total
    if operation == "rms_norm":
        return F.rms_norm(x, (width,), weight, EPS)
    if operation == "modulated":
        return adaptive(x, weight, bias, scale, shift)
    if operation == "causal":
        return cumulative(x, weight, bias)
    return F.layer_norm(x, (width,), weight, bias, EPS)


def check(name, result, operation, x, residual, weight, bias, scale, shift):
    """Compares some rows with float64. Returns the largest error, the rounding to storage taken off; None if it is too large."""
    y = result[0] if isinstance(result, tuple) else result
    some = max(1, min(x.shape[0], (1 << 20) // x.shape[1]))
    if operation == "causal":
        # The beginning of the first sequence.
        some = min(some, SAMPLE_ROWS["causal"])
    source = x[:some].float()
    if operation == "residual":
        source = source + residual[:some].float()
    source = source.double()
    if operation == "rms_norm":
        exact = source * torch.rsqrt((source * source).mean(-1, keepdim=True) + EPS) * weight.double()
    else:
        variance, mean = torch.var_mean(source, -1, correction=0, keepdim=True)
        if operation == "causal":
            # The mean of the means up to each position, and of the squares about one of them, of which no digits are lost.
            about = mean[0]
            count = torch.arange(1, some + 1, device=x.device, dtype=torch.float64)[:, None]
            squares = variance + (mean - about).square()
            mean = mean.cumsum(0) / count
            variance = squares.cumsum(0) / count - (mean - about).square()
        exact = (source - mean) * torch.rsqrt(variance + EPS) * weight.double() + bias.double()
        if operation == "modulated":
            sample = torch.arange(some, device=x.device) // SAMPLE_ROWS["modulated"]
            exact = exact * (1 + scale[sample].double()) + shift[sample].double()
    rounding = {torch.float32: 0.0, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}[x.dtype]
    # A residual sum, an RMS-normalized value before its weight, or what is modulated may be rounded to storage in between.
    slack = 0.0 if operation == "layer_norm" else 32 * rounding
    error = ((y[:some].double() - exact).abs() - exact.abs() * rounding).max().item()
    if not error <= 1e-4 + slack:
        print(f"{name}, {operation} {tuple(x.shape)} {x.dtype}: {error} off, not timed", flush=True)
        return None
    if operation == "residual" and not torch.equal(result[1][:some], (x[:some] + residual[:some])):
        print(f"{name}, {operation} {tuple(x.shape)} {x.dtype}: the sum is wrong, not timed", flush=True)
        return None
    return max(error, 0.0)


def gradients(forward, x, weight, bias, gradient):
    """What runs the backward pass of a forward one again and again, and leaves the gradients of input, weight and bias."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (x, weight, bias)]
    y = forward("layer_norm", leaves[0], None, leaves[1], leaves[2])

    def work():
        return torch.autograd.grad(y, leaves, gradient, retain_graph=True)

    return work


def check_gradients(name, found, x, weight, gradient):
    """Compares with float64, as `check` does; dx by the largest of its row, the others by the largest of all."""
    x64, g64 = x.double(), gradient.double()
    variance, mean = torch.var_mean(x64, -1, correction=0, keepdim=True)
    rstd = torch.rsqrt(variance + EPS)
    normalized = (x64 - mean) * rstd
    g = g64 * weight.double()
    dx = rstd * (g - g.mean(-1, keepdim=True) - normalized * (g * normalized).mean(-1, keepdim=True))
    rounding = {torch.float32: 2.0**-20, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}[x.dtype]
    worst = 0.0
    for exact, result in zip((dx, (g64 * normalized).sum(0), g64.sum(0)), found):
        error = ((result.double() - exact).abs().max() / exact.abs().max()).item()
        if not error <= 1e-4 + rounding:
            print(f"{name}, backward {tuple(x.shape)} {x.dtype}: {error} off, not timed", flush=True)
            return None
        worst = max(worst, error)
    return worst


def time(work):
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    # Keeps the GPU busy while the work is launched: what counts is its time on the GPU.
    torch.cuda._sleep(1_000_000)
    begin.record()
    work()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", required=True)
    parser.add_argument("--log2-elements", type=int, default=28)
    parser.add_argument("--samples", type=int, default=15)
    parser.add_argument("--storage", default="f32,f16,bf16")
    parser.add_argument("--operations", default=",".join(OPERATIONS))
    parser.add_argument("--widths", help="only these, and no few-row shapes")
    options = parser.parse_args()

    torch.manual_seed(0)
    elements = 1 << options.log2_elements
    compiled = torch.compile(eager, dynamic=False)
    torch._dynamo.config.cache_size_limit = 1000
    # A backward pass that runs again may not write over what it reads.
    torch._functorch.config.donated_buffer = False
    implementations = {"PyTorch eager": eager, "torch.compile": compiled, "Triton": by_triton}
    results = {name: [] for name in implementations}
    for storage in options.storage.split(","):
        dtype = STORAGE[storage]
        for operation in options.operations.split(","):
            widths = [int(width) for width in options.widths.split(",")] if options.widths else WIDTHS
            shapes = [(elements // width, width) for width in widths if width <= elements]
            shapes += [] if options.widths else FEW_ROWS
            for rows, width in shapes:
                # Those of a sample or a sequence; whole ones, where there is one.
                together = min(rows, SAMPLE_ROWS.get(operation, 1))
                rows -= rows % together
                x = torch.rand(rows, width, device="cuda").to(dtype)
                residual = torch.rand(rows, width, device="cuda").to(dtype)
                weight = (1 + torch.arange(width, device="cuda") % 5 / 8).to(dtype)
                bias = (torch.arange(width, device="cuda") % 3 / 4 - 0.25).to(dtype)
                scale = shift = None
                if operation == "modulated":
                    scale = (torch.rand(rows // together, width, device="cuda") - 0.5).to(dtype)
                    shift = (torch.rand(rows // together, width, device="cuda") * 2 - 1).to(dtype)
                tensors = {"residual": 4, "backward": 3}.get(operation, 2)
                targets = [torch.empty_like(x) for _ in range(tensors // 2)]
                sources = [x, residual][: tensors // 2]

                def copy():
                    # Two tensors read and one written, or as many written as read.
                    if operation == "backward":
                        torch.add(x, residual, out=targets[0])
                        return
                    for target, source in zip(targets, sources):
                        target.copy_(source)

                works, errors = {"copy": copy}, {}
                for name, implementation in implementations.items():
                    # The kernel here has no gradients, no conditions and no sequences.
                    if implementation is by_triton and operation in ("backward", *SAMPLE_ROWS):
                        continue
                    if operation == "backward":
                        # The float64 of the comparison takes some twenty times the bytes of an f32 tensor.
                        few = max(1, min(rows, (1 << 24) // width))
                        some = gradients(implementation, x[:few], weight, bias, residual[:few])
                        error = check_gradients(name, some(), x[:few], weight, residual[:few])
                        work = gradients(implementation, x, weight, bias, residual)
                    else:
                        # The kernel takes no scale and no shift.
                        condition = () if implementation is by_triton else (scale, shift)

                        def work(implementation=implementation, condition=condition):
                            return implementation(operation, x, residual, weight, bias, *condition)

                        error = check(name, work(), operation, x, residual, weight, bias, scale, shift)
                    if error is not None:
                        errors[name] = error
                        works[name] = work
                times = {name: [] for name in works}
                for name, work in works.items():
                    for _ in range(3):
                        time(work)
                for _ in range(options.samples):
                    for name, work in works.items():
                        times[name].append(time(work))
                median = {name: statistics.median(values) for name, values in times.items()}
                size = tensors * rows * width * x.element_size()
                line = f"{operation:<10} {storage:>4} {rows:>9} × {width:<8}"
                for name in errors:
                    line += f"  {name} {median[name]:.4f} ms ({median[name] / median['copy']:.2f})"
                    results[name].append({
                        "operation": operation,
                        "storage": storage,
                        "rows": rows,
                        "width": width,
                        "bytes": size,
                        "milliseconds": median[name],
                        "gigabytes_per_second": size / median[name] / 1e6,
                        "copy_milliseconds": median["copy"],
                        "copy_gigabytes_per_second": size / median["copy"] / 1e6,
                        "ratio_to_copy": median[name] / median["copy"],
                        "largest_error": errors[name],
                    })
                print(line, flush=True)

    reports = [
        {
            "implementation": name,
            "version": f"torch {torch.__version__}, triton {triton.__version__}",
            "adapter": torch.cuda.get_device_name(),
            "backend": "CUDA",
            "driver": f"CUDA {torch.version.cuda}",
            "date": datetime.date.today().isoformat(),
            "method": "CUDA events",
            "samples": options.samples,
            "results": results[name],
        }
        for name in implementations
    ]
    with open(options.json, "w", encoding="utf-8") as file:
        json.dump(reports, file, indent=2)
        file.write("\n")


if __name__ == "__main__":
    main()
