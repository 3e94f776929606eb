// Activations and their derivatives. Nothing overflows, and nothing cancels but where the derivative of silu is near its zero.

const IDENTITY: u32 = 0u;
const RELU: u32 = 1u;
const SILU: u32 = 2u;
const TANH: u32 = 3u;

// 1 / (1 + exp(−x)).
fn sigmoid(x: f32) -> f32 {
    let small = exp(-abs(x));
    return select(1.0, small, x < 0.0) / (1.0 + small);
}

// The series where (1 − small) / (1 + small) would lose digits; what it leaves out is below 1e-8 of it.
fn hyperbolic_tangent(x: f32) -> f32 {
    let square = min(x * x, 1.0);
    let series = 1.0 + square * (-1.0 / 3.0 + square * (2.0 / 15.0 + square * (-17.0 / 315.0 + square * (62.0 / 2835.0))));
    let small = exp(-2.0 * abs(x));
    let magnitude = (1.0 - small) / (1.0 + small);
    return select(select(magnitude, -magnitude, x < 0.0), x * series, abs(x) < 0.25);
}

fn activation(x: f32) -> f32 {
    switch ACTIVATION {
        case RELU: {
            return select(x, 0.0, x < 0.0);
        }
        case SILU: {
            return x * sigmoid(x);
        }
        case TANH: {
            return hyperbolic_tangent(x);
        }
        default: {
            return x;
        }
    }
}

// The derivative; of relu at 0 it is 0.
fn activation_slope(x: f32) -> f32 {
    switch ACTIVATION {
        case RELU: {
            return select(1.0, 0.0, x <= 0.0);
        }
        case SILU: {
            let share = sigmoid(x);
            return share * (1.0 + x * sigmoid(-x));
        }
        case TANH: {
            let small = exp(-2.0 * abs(x));
            return 4.0 * small / ((1.0 + small) * (1.0 + small));
        }
        default: {
            return 1.0;
        }
    }
}
