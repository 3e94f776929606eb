//! Both modules beside Burn's own: outputs and gradients, dtypes, views, records, threads.

mod common;

use burn::module::Module;
use burn::nn;
use burn::tensor::{DType, Device, Tensor};
use common::{assert_close, device, difference, host, tensor, tensor_as};
use gpu_layer_norm::reference;
use gpu_layer_norm_burn::{LayerNorm, LayerNormConfig, RmsNorm, RmsNormConfig};

/// What two computations in f32 may differ by, as a share of the largest value. Each is off by some 1e-7 of |x̂| ≤ 5 and, in sums over up
/// to 130 rows, by as many roundings of 2^-24; ten times that is room enough, and a wrong eps of 1e-3 is already ten times more.
const CLOSE: f32 = 1e-5;

/// A layer of this crate or of Burn, by its name in failures.
type Forward<const D: usize> = Box<dyn Fn(Tensor<D>) -> Tensor<D>>;

/// A layer with what its gradients are of.
struct Twin<const D: usize> {
    forward: Forward<D>,
    parameters: Vec<Tensor<1>>,
}

/// The three kinds of layers, of this crate and of Burn, with the same parameters.
fn twins<const D: usize>(width: usize, device: &Device) -> Vec<(&'static str, [Twin<D>; 2])> {
    let (gamma, beta) = (tensor(101, [width], device), tensor(102, [width], device));
    let mut twins = Vec::new();
    for (name, bias) in [("LayerNorm", true), ("LayerNorm without bias", false)] {
        let mut own = LayerNormConfig::new(width).with_bias(bias).init(device);
        own.gamma = own.gamma.map(|_| gamma.clone().require_grad());
        own.beta = own.beta.map(|it| it.map(|_| beta.clone().require_grad()));
        let burns = nn::LayerNormConfig::new(width).with_bias(bias).init(device).load_record(own.clone().into_record());
        let parameters = |gamma: Tensor<1>, beta: Option<Tensor<1>>| [gamma].into_iter().chain(beta).collect();
        let own_parameters = parameters(own.gamma.val(), own.beta.as_ref().map(|it| it.val()));
        let burns_parameters = parameters(burns.gamma.val(), burns.beta.as_ref().map(|it| it.val()));
        twins.push((
            name,
            [
                Twin { forward: Box::new(move |input| own.forward(input)), parameters: own_parameters },
                Twin { forward: Box::new(move |input| burns.forward(input)), parameters: burns_parameters },
            ],
        ));
    }
    let mut own = RmsNormConfig::new(width).init(device);
    own.gamma = own.gamma.map(|_| gamma.clone().require_grad());
    let burns = nn::RmsNormConfig::new(width).init(device).load_record(own.clone().into_record());
    let parameters = [vec![own.gamma.val()], vec![burns.gamma.val()]];
    let forwards: [Forward<D>; 2] =
        [Box::new(move |input| own.forward(input)), Box::new(move |input| burns.forward(input))];
    let both = forwards.into_iter().zip(parameters).map(|(forward, parameters)| Twin { forward, parameters });
    twins.push(("RmsNorm", both.collect::<Vec<_>>().try_into().unwrap_or_else(|_| unreachable!())));
    twins
}

/// Outputs and gradients of all layers for this input, which `view` makes of a leaf.
fn compare<const L: usize, const D: usize>(leaf: [usize; L], view: impl Fn(Tensor<L>) -> Tensor<D>) {
    let device = device().autodiff();
    let leaf = tensor(1, leaf, &device).require_grad();
    let shape = view(leaf.clone()).dims();
    let output_gradient = tensor(2, shape, &device).sub_scalar(3.0);
    for (name, [own, burns]) in twins(shape[D - 1], &device) {
        let outputs = [&own, &burns].map(|layer| (layer.forward)(view(leaf.clone())));
        let [own_output, burns_output] = outputs.clone().map(host);
        let what = format!("{name} of {shape:?}");
        assert_close(&what, &own_output, &burns_output, CLOSE);
        let gradients = outputs.map(|output| (output * output_gradient.clone()).sum().backward());
        let [own_gradient, burns_gradient] =
            gradients.each_ref().map(|all| host(leaf.grad(all).expect("it is tracked")));
        assert_close(&format!("{what}, gradient by the input"), &own_gradient, &burns_gradient, CLOSE);
        for (i, (own, burns)) in own.parameters.iter().zip(&burns.parameters).enumerate() {
            let [own, burns] = [(own, &gradients[0]), (burns, &gradients[1])]
                .map(|(parameter, all)| host(parameter.grad(all).expect("it is tracked")));
            assert_close(&format!("{what}, gradient by parameter {i}"), &own, &burns, CLOSE);
        }
    }
}

#[test]
fn outputs_and_gradients_are_those_of_burn() {
    for (rows, width) in [(1, 1), (3, 2), (5, 3), (2, 64), (7, 100), (130, 33), (64, 768), (9, 1001), (1, 50_257)] {
        compare([rows, width], |input| input);
    }
    compare([17], |input| input);
    compare([2, 3, 4, 40], |input| input);
}

#[test]
fn views_are_as_good_as_their_copies() {
    // Burn makes views of slices that begin and end at multiples of what the device aligns memory to, 256 bytes at most, and copies others.
    // Rows that begin anywhere in a buffer.
    compare([11, 64], |leaf| leaf.narrow(0, 1, 9));
    compare([192, 31], |leaf| leaf.narrow(0, 64, 64));
    compare([11, 31], |leaf| leaf.narrow(0, 3, 8));
    // Columns of a matrix, so that there are gaps between the rows.
    compare([7, 192], |leaf| leaf.slice([0..7, 64..128]));
    compare([9, 129], |leaf| leaf.slice([0..9, 64..129]));
    compare([4, 5, 128], |leaf| leaf.slice([1..3, 0..5, 0..64]));
    // Gaps that are not even.
    compare([4, 8, 192], |leaf| leaf.slice([0..4, 2..6, 64..128]));
    // Elements of a row apart, rows side by side.
    compare([33, 12], |leaf| leaf.transpose());
    compare([2, 24, 20], |leaf| leaf.swap_dims(1, 2));
    compare([2, 3, 4, 10], |leaf| leaf.permute([0, 2, 3, 1]));
    compare([5, 4, 6], |leaf| leaf.permute([2, 0, 1]));
    // Rows in another order.
    compare([5, 4, 16], |leaf| leaf.swap_dims(0, 1));
    // Apart, and with gaps.
    compare([2, 24, 192], |leaf| leaf.swap_dims(1, 2).slice([0..2, 64..128]));
    // One row for all.
    compare([1, 1, 18], |leaf| leaf.expand([3, 4, 18]));
    compare([6, 10], |leaf| leaf.mean_dim(0).expand([6, 10]));
    // Single places, whose strides mean nothing.
    compare([1, 24, 1], |leaf| leaf.swap_dims(1, 2));
    compare([9, 1, 8], |leaf| leaf.permute([1, 2, 0]));
    // What comes of a kernel of Burn's, and what goes into one.
    compare([6, 12], |leaf| leaf.clone().transpose().matmul(leaf) * 0.1);
}

#[test]
fn a_gradient_that_lies_otherwise_is_taken_for_what_it_is() {
    let device = device().autodiff();
    let input = tensor(1, [4, 6, 10], &device).require_grad();
    let factor = tensor::<3>(2, [6, 4, 10], &device);
    for (name, layers) in twins::<3>(10, &device) {
        let [own, burns] = layers.map(|layer| {
            let output = (layer.forward)(input.clone()).swap_dims(0, 1) * factor.clone();
            host(input.grad(&output.sum().backward()).expect("it is tracked"))
        });
        assert_close(name, &own, &burns, CLOSE);
    }
}

#[test]
fn a_comparison_tells_a_wrong_epsilon() {
    let device = device();
    let input = tensor(1, [20, 64], &device);
    let of = |epsilon| host(LayerNormConfig::new(64).with_epsilon(epsilon).init(&device).forward(input.clone()));
    assert!(difference(&of(1e-3), &of(1e-5), 1.0) > 5.0 * CLOSE);
    let burns = nn::LayerNormConfig::new(64).with_epsilon(1e-3).init(&device).forward(input.clone());
    assert_close("epsilon 1e-3", &of(1e-3), &host(burns), CLOSE);
}

#[test]
fn a_large_mean_costs_nothing() {
    let device = device();
    let input = tensor::<2>(1, [8, 300], &device) + 1e5;
    let output = host(LayerNormConfig::new(300).init(&device).forward(input.clone()));
    let exact = reference::layer_norm(&host(input), 300, None, None, f64::from(1e-5_f32), false);
    let exact: Vec<f32> = exact.into_iter().map(|value| value as f32).collect();
    assert_close("mean 1e5", &output, &exact, 1e-6);
}

/// In 16 bits Burn's own layers round on the way, or the device cannot run them: what is compared with is this crate's layer in f32 on
/// the rounded values, which another test compares with Burn's.
#[test]
fn sixteen_bits_are_those_of_f32_rounded() {
    let device = device();
    for (dtype, half_a_unit) in [(DType::F16, 2.0_f32.powi(-11)), (DType::BF16, 2.0_f32.powi(-8))] {
        for (rows, width) in [(4, 15), (7, 64), (3, 1001), (50, 768)] {
            let input = tensor_as::<2>(1, [rows, width], dtype, &device);
            let same = Tensor::<2>::from_data(input.to_data().convert_dtype(DType::F32), &device);
            for parameters in [DType::F32, dtype] {
                let gamma = tensor_as::<1>(5, [width], parameters, &device);
                let mut layer = RmsNormConfig::new(width).init(&device);
                layer.gamma = layer.gamma.map(|_| gamma.clone());
                let output = layer.forward(input.clone());
                assert_eq!(output.dtype(), dtype);
                layer.gamma =
                    layer.gamma.map(|_| Tensor::from_data(gamma.to_data().convert_dtype(DType::F32), &device));
                let expected = host(layer.forward(same.clone()));
                for (y, expected) in host(output).into_iter().zip(expected) {
                    // Half a unit in the last place, and what f32 is off by.
                    let allowed = half_a_unit * expected.abs() + 1e-5;
                    assert!((y - expected).abs() <= allowed, "{dtype:?} {rows} × {width}: {y} for {expected}");
                }
            }
        }
    }
}

#[test]
fn gradients_of_f16_are_those_of_f32_rounded() {
    let device = device().autodiff();
    // The gradient by the output comes from Burn's own kernels, which need native f16.
    if !device.supports_dtype(DType::F16) {
        eprintln!("left out: Burn has no f16 on this device");
        return;
    }
    for (rows, width) in [(4, 15), (50, 96)] {
        let inputs = [DType::F16, DType::F32].map(|dtype| {
            let rounded = tensor_as::<2>(1, [rows, width], DType::F16, &device).into_data().convert_dtype(dtype);
            Tensor::<2>::from_data(rounded, (&device, dtype)).require_grad()
        });
        let layer = LayerNormConfig::new(width).init(&device);
        let factor = tensor::<2>(2, [rows, width], &device) - 3.0;
        let [[input, gamma], [exact_input, exact_gamma]] = inputs.map(|input| {
            let output = layer.forward(input.clone()).cast(DType::F32);
            let gradients = (output * factor.clone()).sum().backward();
            [host(input.grad(&gradients).expect("tracked")), host(layer.gamma.grad(&gradients).expect("tracked"))]
        });
        // The gradient by the output is rounded to 16 bits too, by as much as 2^-11 of each.
        assert_close("dx", &input, &exact_input, 1e-3);
        assert_close("dweight", &gamma, &exact_gamma, 1e-3);
    }
}

#[test]
fn records_go_from_one_to_the_other() {
    let device = device();
    let input = tensor::<2>(1, [3, 20], &device);
    let mut own = LayerNormConfig::new(20).init(&device);
    own.gamma = own.gamma.map(|_| tensor(2, [20], &device));
    own.beta = own.beta.map(|beta| beta.map(|_| tensor(3, [20], &device)));
    let bytes = own.clone().into_record().into_bytes().expect("a record is bytes");
    let record = || burn::store::ModuleRecord::from_bytes(bytes.clone()).expect("bytes are a record");
    let burns = nn::LayerNormConfig::new(20).init(&device).load_record(record());
    let expected = host(own.forward(input.clone()));
    assert_close("Burn's layer of our record", &host(burns.forward(input.clone())), &expected, CLOSE);
    let again = LayerNormConfig::new(20).init(&device).load_record(burns.into_record());
    assert_eq!(host(again.forward(input.clone())), expected);

    let mut own = RmsNormConfig::new(20).init(&device);
    own.gamma = own.gamma.map(|_| tensor(2, [20], &device));
    let burns = nn::RmsNormConfig::new(20).init(&device).load_record(own.clone().into_record());
    let expected = host(own.forward(input.clone()));
    assert_close("Burn's layer of our record", &host(burns.forward(input.clone())), &expected, CLOSE);
    let again = RmsNormConfig::new(20).init(&device).load_record(burns.into_record());
    assert_eq!(host(again.forward(input)), expected);
}

#[test]
fn they_show_themselves_as_burns_do() {
    let device = device();
    let (own, burns) = (LayerNormConfig::new(6).init(&device), nn::LayerNormConfig::new(6).init(&device));
    assert_eq!(own.to_string(), burns.to_string());
    let (own, burns) = (RmsNormConfig::new(6).init(&device), nn::RmsNormConfig::new(6).init(&device));
    assert_eq!(own.to_string(), burns.to_string());
    let json = |text: String| text.replace(char::is_whitespace, "");
    let (own, burns) = (LayerNormConfig::new(6).with_bias(false), nn::LayerNormConfig::new(6).with_bias(false));
    assert_eq!(json(own.to_string()), json(burns.to_string()));
}

#[test]
#[should_panic(expected = "expected 10, got 3")]
fn another_width_is_refused_as_burn_refuses_it() {
    let device = device();
    LayerNormConfig::new(10).init(&device).forward(Tensor::<2>::zeros([1, 3], &device));
}

#[test]
fn what_the_kernels_do_not_run_is_run_by_burn() {
    // A processor without wgpu, with gradients.
    let device = Device::flex().autodiff();
    let input = tensor::<2>(1, [5, 12], &device).require_grad();
    for (name, layers) in twins::<2>(12, &device) {
        let [own, burns] = layers.map(|layer| {
            let output = (layer.forward)(input.clone());
            let gradients = output.clone().powf_scalar(2.0).sum().backward();
            let parameters = layer.parameters.iter().flat_map(|it| host(it.grad(&gradients).expect("tracked")));
            [host(output), host(input.grad(&gradients).expect("tracked")), parameters.collect()].concat()
        });
        assert_eq!(own, burns, "{name}");
    }
    // An epsilon that the kernels refuse.
    let device = common::device();
    let input = tensor::<2>(1, [5, 12], &device);
    let own = LayerNormConfig::new(12).with_epsilon(-1.0).init(&device).forward(input.clone());
    let burns = nn::LayerNormConfig::new(12).with_epsilon(-1.0).init(&device).forward(input);
    assert_eq!(host(own), host(burns));
}

#[test]
fn only_what_is_tracked_gets_a_gradient() {
    let device = device().autodiff();
    let factor = tensor::<2>(3, [5, 12], &device);
    let gradients =
        |input: &Tensor<2>, layer: &LayerNorm| (layer.forward(input.clone()) * factor.clone()).sum().backward();
    let (input, tracked) = (tensor::<2>(1, [5, 12], &device), tensor::<2>(1, [5, 12], &device).require_grad());
    let layer = LayerNormConfig::new(12).init(&device);
    let all = gradients(&tracked, &layer);
    let expected = host(tracked.grad(&all).expect("tracked"));
    let expected_gamma = host(layer.gamma.grad(&all).expect("tracked"));

    let of_parameters = gradients(&input, &layer);
    assert!(input.grad(&of_parameters).is_none());
    assert_eq!(host(layer.gamma.grad(&of_parameters).expect("tracked")), expected_gamma);

    let frozen = layer.clone().no_grad();
    let of_input = gradients(&tracked, &frozen);
    assert!(frozen.gamma.grad(&of_input).is_none());
    assert_eq!(host(tracked.grad(&of_input).expect("tracked")), expected);

    let mut part = layer;
    part.gamma = part.gamma.set_require_grad(false);
    let of_bias = gradients(&tracked, &part);
    assert!(part.gamma.grad(&of_bias).is_none());
    let expected_beta = host(factor.clone().sum_dim(0));
    let beta = part.beta.as_ref().expect("there is one").grad(&of_bias).expect("tracked");
    assert_close("the bias alone", &host(beta), &expected_beta, CLOSE);
}

#[test]
fn a_layer_used_twice_adds_its_gradients_up() {
    let device = device().autodiff();
    let input = tensor::<2>(1, [6, 40], &device).require_grad();
    for (name, layers) in twins::<2>(40, &device) {
        let [own, burns] = layers.map(|layer| {
            let output = (layer.forward)((layer.forward)(input.clone()) * 0.5 + input.clone());
            let gradients = output.powf_scalar(2.0).sum().backward();
            let parameters = layer.parameters.iter().flat_map(|it| host(it.grad(&gradients).expect("tracked")));
            [host(input.grad(&gradients).expect("tracked")), parameters.collect()].concat()
        });
        assert_close(name, &own, &burns, CLOSE);
    }
}

#[test]
fn checkpointing_that_computes_the_input_again_changes_nothing() {
    use burn::backend::GradientCheckpointingStrategy::{Balanced, Disabled};
    let [plain, balanced] = [Disabled, Balanced].map(|strategy| {
        let device = device().autodiff();
        let leaf = tensor::<3>(1, [3, 8, 16], &device).with_gradient_checkpointing_strategy(strategy).require_grad();
        let layer = LayerNormConfig::new(8).init(&device);
        let gamma = layer.gamma.val().with_gradient_checkpointing_strategy(strategy).require_grad();
        let beta = layer.beta.as_ref().expect("there is one").val().with_gradient_checkpointing_strategy(strategy);
        let mut layer = layer;
        layer.gamma = layer.gamma.map(|_| gamma.clone());
        layer.beta = layer.beta.map(|it| it.map(|_| beta.clone().require_grad()));
        let output = layer.forward((leaf.clone().swap_dims(1, 2) * 2.0).exp().log());
        let gradients = output.powf_scalar(3.0).sum().backward();
        [host(leaf.grad(&gradients).expect("tracked")), host(layer.gamma.grad(&gradients).expect("tracked"))].concat()
    });
    assert_close("balanced", &balanced, &plain, CLOSE);
}

#[test]
fn no_rows_are_no_rows() {
    let device = device();
    let layer = LayerNormConfig::new(12).init(&device);
    assert_eq!(layer.forward(Tensor::<3>::zeros([4, 0, 12], &device)).dims(), [4, 0, 12]);
}

/// What is freed is used again, by what is queued next.
#[test]
fn tensors_dropped_early_stay_what_they_were() {
    let device = device();
    let layer = LayerNormConfig::new(100).init(&device);
    let burns = nn::LayerNormConfig::new(100).init(&device);
    let outputs: Vec<_> = (0..40)
        .map(|i| {
            let input = tensor::<2>(i, [30, 100], &device);
            let output = layer.forward(input * 2.0);
            // In the memory that the input had.
            let other = tensor::<2>(1000 + i, [30, 100], &device);
            (layer.forward(output), other)
        })
        .collect();
    for (i, (output, other)) in outputs.into_iter().enumerate() {
        let expected = burns.forward(burns.forward(tensor::<2>(i as u64, [30, 100], &device) * 2.0));
        assert_close("dropped early", &host(output), &host(expected), CLOSE);
        assert_eq!(host(other), common::values(1000 + i as u64, 3000));
    }
}

/// Each thread has a stream of its own.
#[test]
fn threads_do_not_disturb_each_other() {
    let device = device().autodiff();
    let shared = tensor::<2>(7, [64, 80], &device);
    let layer: RmsNorm = RmsNormConfig::new(80).init(&device);
    let train = |seed: u64, shared: Tensor<2>, layer: RmsNorm| {
        let device = shared.device();
        let mut results = Vec::new();
        for i in 0..10 {
            let input = tensor::<2>(100 * seed + i, [64, 80], &device).require_grad();
            let output = layer.forward(input.clone() + shared.clone());
            let gradients = (output * shared.clone()).sum().backward();
            results.extend(host(input.grad(&gradients).expect("tracked")));
            results.extend(host(layer.gamma.grad(&gradients).expect("tracked")));
        }
        results
    };
    let threads: Vec<_> = (0..4)
        .map(|seed| {
            let (shared, layer) = (shared.clone(), layer.clone());
            std::thread::spawn(move || train(seed, shared, layer))
        })
        .collect();
    for (seed, thread) in threads.into_iter().enumerate() {
        let concurrent = thread.join().expect("the thread does not panic");
        assert_eq!(concurrent, train(seed as u64, shared.clone(), layer.clone()));
    }
}
