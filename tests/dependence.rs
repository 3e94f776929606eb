//! The measurement of which positions influence which: on operations whose answer is known, and on the norms.

use std::task::Poll;

use gpu_layer_norm::{Dependence, Error, GpuDevice, GpuLayerNorm, LayerNormConfig, StorageType, Tensor};

const LENGTH: usize = 5;

const DIAGONAL: &str = "#....\n.#...\n..#..\n...#.\n....#";
const EARLIER: &str = "#....\n##...\n###..\n####.\n#####";
const EVERYTHING: &str = "#!!!!\n##!!!\n###!!\n####!\n#####";
const NOTHING: &str = ".....\n.....\n.....\n.....\n.....";

fn tensor(shape: impl Into<Vec<usize>>, values: Vec<f32>) -> Tensor {
    Tensor::from_f32(shape, values).expect("a whole tensor")
}

/// An operation on sequences of single values.
fn measure(mut operation: impl FnMut(&[f32]) -> Vec<f32>) -> Dependence {
    let run = |input: &Tensor| Ok(tensor(input.shape(), operation(&input.values())));
    Dependence::measure(&[LENGTH], 0, run).expect("a measurement")
}

fn running<'a>(values: impl Iterator<Item = &'a f32>, mut step: impl FnMut(f32, f32) -> f32) -> Vec<f32> {
    let next = |so_far: &mut Option<f32>, &x: &f32| {
        *so_far = Some(so_far.map_or(x, |so_far| step(so_far, x)));
        *so_far
    };
    values.scan(None, next).collect()
}

#[test]
fn the_identity_depends_on_the_position_itself() {
    let dependence = measure(<[f32]>::to_vec);
    assert_eq!(dependence.to_string(), DIAGONAL);
    assert_eq!(dependence.length(), LENGTH);
    assert!(dependence.is_causal());
    assert_eq!(dependence.leaks().count(), 0);
}

#[test]
fn a_running_sum_and_a_running_extreme_are_causal() {
    assert_eq!(measure(|input| running(input.iter(), |sum, x| sum + x)).to_string(), EARLIER);
    // A replacement of one sign or the other is larger, and one is smaller, than all that there is.
    assert_eq!(measure(|input| running(input.iter(), f32::max)).to_string(), EARLIER);
    assert_eq!(measure(|input| running(input.iter(), f32::min)).to_string(), EARLIER);
}

#[test]
fn a_sum_from_behind_leaks_what_is_later() {
    let dependence = measure(|input| {
        let mut sums = running(input.iter().rev(), |sum, x| sum + x);
        sums.reverse();
        sums
    });
    assert_eq!(dependence.to_string(), "#!!!!\n.#!!!\n..#!!\n...#!\n....#");
    assert!(!dependence.is_causal());
    assert_eq!(dependence.leaks().count(), LENGTH * (LENGTH - 1) / 2);
}

#[test]
fn a_reversal_leaks_in_its_first_half() {
    let dependence = measure(|input| input.iter().rev().copied().collect());
    assert_eq!(dependence.to_string(), "....!\n...!.\n..#..\n.#...\n#....");
    assert_eq!(dependence.leaks().collect::<Vec<_>>(), [(0, 4), (1, 3)]);
    assert!(dependence.depends(0, 4) && !dependence.depends(0, 0));
}

#[test]
fn a_constant_depends_on_nothing_and_neither_does_a_position_that_there_is_not() {
    let dependence = measure(|input| vec![f32::NAN; input.len()]);
    assert_eq!(dependence.to_string(), NOTHING);
    let identity = measure(<[f32]>::to_vec);
    for (output, input) in [(0, LENGTH), (LENGTH, 0), (1, usize::MAX), (usize::MAX, usize::MAX)] {
        assert!(!identity.depends(output, input));
        assert_eq!(identity.influence(output, input), 0.0);
    }
}

#[test]
fn the_influence_is_the_largest_change() {
    // A replacement has from 64 to 64 · 4.47 times the sign and size of 1, and what it replaces at most 3.47.
    let dependence = measure(|input| vec![input[0], 0.25 * input[0], 0.0, f32::MIN_POSITIVE * input[4], -input[4]]);
    let largest = dependence.influence(0, 0);
    assert!((60.0..290.0).contains(&largest), "{largest}");
    assert_eq!(dependence.influence(1, 0), 0.25 * largest);
    assert_eq!(dependence.influence(2, 2), 0.0);
    assert!(dependence.influence(3, 4) > 0.0 && dependence.influence(3, 4) < 1e-35);
    assert_eq!(dependence.to_string(), "#....\n#....\n.....\n....!\n....#");
}

#[test]
fn a_change_to_nan_or_of_the_sign_of_a_zero_is_a_change() {
    let nan = |x: f32| if x.abs() > 3.5 { f32::NAN } else { 1.0 };
    let dependence = measure(|input| vec![nan(input[1]), input[2] / 0.0, 0.0_f32.copysign(input[0]), 0.0, 0.0]);
    assert_eq!(dependence.to_string(), ".!...\n..!..\n#....\n.....\n.....");
    assert_eq!(dependence.influence(0, 1), f32::INFINITY);
    assert_eq!(dependence.influence(1, 2), f32::INFINITY);
    assert_eq!(dependence.influence(2, 0), 0.0);
}

#[test]
fn other_dimensions_are_taken_together_and_may_differ_in_the_output() {
    // [batch, length, model] to [batch, length]: the sum of the position's elements, and the other sequence's last element.
    let operation = |input: &Tensor| {
        assert_eq!(input.shape(), [2, LENGTH, 3]);
        let values = input.values();
        let row = |row: usize| values[row * 3..][..3].iter().sum::<f32>();
        let last = |row: usize| values[(1 - row / LENGTH) * LENGTH * 3 + LENGTH * 3 - 1];
        let output = (0..2 * LENGTH).map(|i| row(i) + if i == 2 { last(i) } else { 0.0 });
        Ok(tensor([2, LENGTH], output.collect()))
    };
    let dependence = Dependence::measure(&[2, LENGTH, 3], 1, operation).expect("a measurement");
    assert_eq!(dependence.to_string(), "#....\n.#...\n..#.!\n...#.\n....#");
    let dependence = Dependence::measure(&[2, LENGTH, 3], 0, operation).expect("a measurement");
    assert_eq!(dependence.to_string(), "#!\n.#");
}

#[test]
fn there_may_be_no_positions_or_no_elements() {
    let identity = |input: &Tensor| Ok(input.clone());
    let empty = Dependence::measure(&[2, 0, 3], 1, identity).expect("a measurement");
    assert_eq!((empty.length(), empty.to_string()), (0, String::new()));
    assert!(empty.is_causal());
    let hollow = Dependence::measure(&[LENGTH, 1 << 40, 1 << 40, 0], 0, identity).expect("a measurement");
    assert_eq!(hollow.to_string(), NOTHING);
}

#[test]
fn an_operation_that_is_not_deterministic_is_refused() {
    let mut calls = 0;
    let operation = |input: &Tensor| {
        let mut values = input.values().into_owned();
        calls += 1;
        values[3] = calls as f32;
        Ok(tensor(input.shape(), values))
    };
    let result = Dependence::measure(&[LENGTH], 0, operation);
    assert_eq!(result, Err(Error::NotDeterministic { index: 3, first: 1.0, second: 2.0 }));
}

#[test]
fn what_the_operation_returns_is_checked_and_its_error_handed_on() {
    let identity = |input: &Tensor| Ok(input.clone());
    assert_eq!(Dependence::measure(&[2, 3], 2, identity), Err(Error::Axis { axis: 2, rank: 2 }));
    assert_eq!(Dependence::measure(&[], 0, identity), Err(Error::Axis { axis: 0, rank: 0 }));
    let shape = vec![1 << 40, 1 << 40];
    assert_eq!(Dependence::measure(&shape, 0, identity), Err(Error::Size { shape: shape.clone() }));
    assert!(matches!(Dependence::measure(&[1; 9], 0, identity), Err(Error::Rank { .. })));
    assert!(matches!(
        Dependence::measure(&[1 << 61], 0, identity),
        Err(Error::OutOfMemory { .. } | Error::Size { .. })
    ));

    for shape in [vec![3, LENGTH], vec![], vec![LENGTH - 1, 2]] {
        let values = vec![1.0; shape.iter().product()];
        let result = Dependence::measure(&[LENGTH, 2], 0, |_| Tensor::from_f32(shape.clone(), values.clone()));
        assert_eq!(result, Err(Error::AxisLength { axis: 0, expected: LENGTH, shape }));
    }
    let mut calls = 0;
    let growing = |_: &Tensor| {
        calls += 1;
        Tensor::from_f32([LENGTH, calls / 3], vec![0.0; LENGTH * (calls / 3)])
    };
    let result = Dependence::measure(&[LENGTH], 0, growing);
    let what = "result of the operation";
    assert_eq!(result, Err(Error::Shape { what, expected: vec![LENGTH, 0], actual: vec![LENGTH, 1] }));

    let lost = Error::DeviceLost { message: "a test".into() };
    assert_eq!(Dependence::measure(&[LENGTH], 0, |_| Err(lost.clone())), Err(lost.clone()));
}

/// Pending once, so that whoever awaits it has to come back.
async fn pause() {
    let mut has_paused = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut has_paused, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[test]
fn an_operation_that_is_awaited_is_measured_on_the_same_inputs() {
    type Operation = fn(&[f32]) -> Vec<f32>;
    let operations: [Operation; 3] = [
        <[f32]>::to_vec,
        |input| running(input.iter(), |sum, x| sum + x),
        |input| input.iter().rev().copied().collect(),
    ];
    for operation in operations {
        let (mut inputs, mut awaited) = (Vec::new(), Vec::new());
        let at_once = measure(|input| {
            inputs.push(input.to_vec());
            operation(input)
        });
        let later = async |input: &Tensor| {
            awaited.push(input.values().to_vec());
            pause().await;
            Ok(tensor(input.shape(), operation(&input.values())))
        };
        assert_eq!(pollster::block_on(Dependence::measure_async(&[LENGTH], 0, later)), Ok(at_once));
        assert_eq!(awaited, inputs);
    }
}

#[test]
fn an_operation_that_is_awaited_is_refused_for_the_same_reasons() {
    let measure = |result: &dyn Fn(usize) -> Result<Tensor, Error>| {
        let mut calls = 0;
        let operation = async |_: &Tensor| {
            calls += 1;
            pause().await;
            result(calls)
        };
        pollster::block_on(Dependence::measure_async(&[LENGTH], 0, operation))
    };
    let counted = |calls: usize| Ok(tensor([LENGTH], vec![calls as f32; LENGTH]));
    assert_eq!(measure(&counted), Err(Error::NotDeterministic { index: 0, first: 1.0, second: 2.0 }));
    let lost = Error::DeviceLost { message: "a test".into() };
    for of in 1..=2 * LENGTH + 2 {
        let fails = |calls| if calls == of { Err(lost.clone()) } else { counted(0) };
        assert_eq!(measure(&fails), Err(lost.clone()), "run {of}");
    }
    let never = async |_: &Tensor| -> Result<Tensor, Error> { panic!("the shape is refused first") };
    let result = pollster::block_on(Dependence::measure_async(&[2, 3], 2, never));
    assert_eq!(result, Err(Error::Axis { axis: 2, rank: 2 }));
}

/// A norm of sequences of rows of several widths, in every storage type.
fn assert_norm(config: impl Fn(usize) -> LayerNormConfig, expected: &str) {
    let device = GpuDevice::new().expect("an adapter; scripts/test installs one");
    for model in [6, 64, 333] {
        let layer = GpuLayerNorm::new(&device, &config(model)).expect("a layer");
        for storage in StorageType::ALL {
            let run = |input: &Tensor| layer.run(&device, &input.to_storage(storage));
            let dependence = Dependence::measure(&[2, LENGTH, model], 1, run).expect("a measurement");
            assert_eq!(dependence.to_string(), expected, "{model} elements of {storage}");
            let run = async |input: &Tensor| layer.run_async(&device, &input.to_storage(storage)).await;
            let awaited = pollster::block_on(Dependence::measure_async(&[2, LENGTH, model], 1, run));
            assert_eq!(awaited, Ok(dependence), "{model} elements of {storage}");
        }
    }
}

#[test]
fn layer_norm_over_the_last_dimension_keeps_positions_apart() {
    assert_norm(LayerNormConfig::new, DIAGONAL);
    assert_norm(LayerNormConfig::rms, DIAGONAL);
}

#[test]
fn layer_norm_over_length_and_last_dimension_lets_every_position_see_every_other() {
    assert_norm(|model| LayerNormConfig::new([LENGTH, model]), EVERYTHING);
    assert_norm(|model| LayerNormConfig::rms([LENGTH, model]), EVERYTHING);
}

#[test]
fn causal_layer_norm_depends_on_earlier_positions_only() {
    assert_norm(|model| LayerNormConfig::new(model).causal(true), EARLIER);
}

#[test]
fn sequences_of_a_batch_do_not_see_each_other() {
    let device = GpuDevice::new().expect("an adapter; scripts/test installs one");
    let configs = [LayerNormConfig::new(6), LayerNormConfig::new([LENGTH, 6]), LayerNormConfig::new(6).causal(true)];
    for config in configs {
        let layer = GpuLayerNorm::new(&device, &config).expect("a layer");
        let dependence = Dependence::measure(&[3, LENGTH, 6], 0, |input| layer.run(&device, input));
        assert_eq!(dependence.expect("a measurement").to_string(), "#..\n.#.\n..#");
    }
}
