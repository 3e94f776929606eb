use std::fmt::{self, Write as _};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::tensor::{element_count, product};
use crate::{Error, Tensor};

/// How many times as large as [`normal`] the two replacements are.
const REPLACEMENTS: [f32; 2] = [4.0, -64.0];

/// Which positions of a dimension an operation lets influence which, as measured.
///
/// A model of sequences that is asked for position t may not see position t + 1 where that is what it is to predict. Attention is
/// masked for this, and other operations are taken to be harmless. Layer normalization over the last dimension is harmless: it keeps
/// every position to itself. Over `[length, d_model]` it is not: mean and variance are those of the whole sequence, so every position
/// depends on every other, the later ones too. The shapes of what goes in and comes out are the same, and no error tells the two
/// apart; a measurement does.
///
/// ```
/// use gpu_layer_norm::{Dependence, GpuDevice, GpuLayerNorm, LayerNormConfig};
///
/// let device = GpuDevice::new()?;
/// let shape = [2, 4, 8]; // batch, length, d_model
///
/// let layer_norm = GpuLayerNorm::new(&device, &LayerNormConfig::new(8))?;
/// let dependence = Dependence::measure(&shape, 1, |input| layer_norm.run(&device, input))?;
/// assert!(dependence.is_causal());
/// assert_eq!(dependence.to_string(), "#...\n.#..\n..#.\n...#");
///
/// let layer_norm = GpuLayerNorm::new(&device, &LayerNormConfig::new([4, 8]))?;
/// let dependence = Dependence::measure(&shape, 1, |input| layer_norm.run(&device, input))?;
/// assert!(!dependence.is_causal());
/// assert_eq!(dependence.to_string(), "#!!!\n##!!\n###!\n####");
/// # Ok::<(), gpu_layer_norm::Error>(())
/// ```
///
/// Displayed, it is a matrix with a line for each position of the output and a character for each position of the input: `#` where
/// the output depends on this or an earlier position, `!` where it depends on a later one, `.` where it does not depend on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Dependence {
    length: usize,
    /// The largest change of a position of the output when a position of the input changes, row-major, a row for each position of
    /// the output; `None` if no bit changes.
    changes: Vec<Option<f32>>,
}

impl Dependence {
    /// Runs an operation on f32 tensors of this shape that differ in one position of the dimension `axis`, and compares the results
    /// bit by bit. The result must have as many positions in its dimension `axis` as the input; its other dimensions are free.
    ///
    /// The first input is random, with mean 0 and variance 1. It is the same in every measurement: a SplitMix64 hash of the index is
    /// all that it takes. Then, for one position after another, all elements of the position are replaced twice: by values of four to
    /// eighteen times that size, which are larger than every value of the first input, and by others of 64 to 286 times that size and
    /// of the opposite sign, so that an influence that rounding hides, or one side of a maximum, is seen by the other. The operation is
    /// run 2 · length + 2 times.
    ///
    /// A dependence that is found is there: the inputs differ in nothing else, and an operation that is not deterministic is refused.
    /// One that is not found may still be there for other inputs, where an operation chooses by value what to use, or where an
    /// influence is below the rounding of the result.
    ///
    /// # Errors
    /// [`Error::Axis`] unless the shape has this dimension, [`Error::AxisLength`] unless the result has as many positions,
    /// [`Error::NotDeterministic`] if two runs on the same input differ, [`Error::Shape`] if the shape of the result differs from run
    /// to run, [`Error::Rank`] and [`Error::Size`] for the shape, [`Error::OutOfMemory`]; and what the operation returns.
    pub fn measure(
        shape: &[usize],
        axis: usize,
        mut operation: impl FnMut(&Tensor) -> Result<Tensor, Error>,
    ) -> Result<Self, Error> {
        let measurement = pin!(Self::measure_async(shape, axis, async |input: &Tensor| operation(input)));
        match measurement.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(dependence) => dependence,
            // It awaits nothing but the operation, which awaits nothing.
            Poll::Pending => unreachable!("an operation that returns its result has nothing to wait for"),
        }
    }

    /// As [`measure`](Self::measure), for an operation whose result is awaited; also in a browser. It is run once at a time, in the same
    /// order, on the same inputs.
    ///
    /// ```no_run
    /// # use gpu_layer_norm::{Dependence, Error, GpuDevice, GpuLayerNorm, LayerNormConfig, Tensor};
    /// # async fn causal(device: &GpuDevice) -> Result<(), Error> {
    /// let layer_norm = GpuLayerNorm::new(device, &LayerNormConfig::new(8).causal(true))?;
    /// let run = async |input: &Tensor| layer_norm.run_async(device, input).await;
    /// assert!(Dependence::measure_async(&[2, 4, 8], 1, run).await?.is_causal());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`measure`](Self::measure).
    pub async fn measure_async(
        shape: &[usize],
        axis: usize,
        mut operation: impl AsyncFnMut(&Tensor) -> Result<Tensor, Error>,
    ) -> Result<Self, Error> {
        let count = element_count(shape)?;
        let Some(&length) = shape.get(axis) else {
            return Err(Error::Axis { axis, rank: shape.len() });
        };
        let pairs = length.checked_mul(length).ok_or_else(|| Error::Size { shape: shape.to_vec() })?;
        let mut changes: Vec<Option<f32>> = with_capacity(pairs)?;
        changes.resize(pairs, None);
        let mut values = with_capacity(count)?;
        values.extend((0..count as u64).map(normal));
        let input = Tensor::from_f32(shape, values)?;

        let first = operation(&input).await?;
        if first.shape().get(axis) != Some(&length) {
            return Err(Error::AxisLength { axis, expected: length, shape: first.shape().to_vec() });
        }
        let second = operation(&input).await?;
        check_shape(&first, &second)?;
        let unchanged = first.values();
        for (index, (&first, &second)) in unchanged.iter().zip(second.values().iter()).enumerate() {
            if first.to_bits() != second.to_bits() {
                return Err(Error::NotDeterministic { index, first, second });
            }
        }

        let (stride, output_stride) = (stride(shape, axis), stride(first.shape(), axis));
        for position in 0..length {
            for (which, size) in REPLACEMENTS.into_iter().enumerate() {
                let mut values = with_capacity(count)?;
                values.extend(input.values().iter().enumerate().map(|(index, &value)| {
                    if index / stride % length == position { replacement(index, which, size) } else { value }
                }));
                let output = operation(&Tensor::from_f32(shape, values)?).await?;
                check_shape(&first, &output)?;
                for (index, (&before, &after)) in unchanged.iter().zip(output.values().iter()).enumerate() {
                    if before.to_bits() != after.to_bits() {
                        let change = (after - before).abs();
                        let change = if change.is_nan() { f32::INFINITY } else { change };
                        let known = &mut changes[index / output_stride % length * length + position];
                        *known = Some(known.map_or(change, |known| known.max(change)));
                    }
                }
            }
        }
        Ok(Self { length, changes })
    }

    /// Positions of the dimension.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Whether a position of the output depends on a position of the input. `false` past the last position.
    pub fn depends(&self, output: usize, input: usize) -> bool {
        self.change(output, input).is_some()
    }

    /// The largest |change| of an element of a position of the output when a position of the input changed; infinity if an element
    /// became NaN or infinite, or had been. 0 where the output does not depend on the input, and where nothing but the sign of a
    /// zero depends on it.
    pub fn influence(&self, output: usize, input: usize) -> f32 {
        self.change(output, input).unwrap_or(0.0)
    }

    /// Whether no position of the output depends on a later position of the input.
    pub fn is_causal(&self) -> bool {
        self.leaks().next().is_none()
    }

    /// The pairs (position of the output, position of the input) in which the output depends on a later position of the input.
    pub fn leaks(&self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.length)
            .flat_map(|output| (output + 1..self.length).map(move |input| (output, input)))
            .filter(|&(output, input)| self.depends(output, input))
    }

    fn change(&self, output: usize, input: usize) -> Option<f32> {
        if output < self.length && input < self.length { self.changes[output * self.length + input] } else { None }
    }
}

impl fmt::Display for Dependence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for output in 0..self.length {
            if output > 0 {
                f.write_char('\n')?;
            }
            for input in 0..self.length {
                f.write_char(match self.depends(output, input) {
                    false => '.',
                    true if input > output => '!',
                    true => '#',
                })?;
            }
        }
        Ok(())
    }
}

/// Elements from one position of a dimension to the next; 1 where there are none.
fn stride(shape: &[usize], axis: usize) -> usize {
    product(&shape[axis + 1..]).map_or(1, |count| count.max(1) as usize)
}

fn check_shape(first: &Tensor, output: &Tensor) -> Result<(), Error> {
    if output.shape() == first.shape() {
        return Ok(());
    }
    Err(Error::Shape {
        what: "result of the operation",
        expected: first.shape().to_vec(),
        actual: output.shape().to_vec(),
    })
}

/// An empty vector with room for so many elements.
fn with_capacity<T>(count: usize) -> Result<Vec<T>, Error> {
    let mut values = Vec::new();
    values.try_reserve_exact(count).map_err(|_| Error::OutOfMemory {
        operation: "the measurement of a dependence",
        bytes: count.saturating_mul(size_of::<T>()) as u64,
    })?;
    Ok(values)
}

/// The value of an element when its position is replaced. Its sign is random in the first replacement, and the opposite one in the
/// second; its size is at least |`size`|, and that is larger than every value of [`normal`].
fn replacement(index: usize, which: usize, size: f32) -> f32 {
    let random = normal(index as u64 + ((which as u64 + 1) << 48));
    let sign = if hash(index as u64) & 1 == 0 { 1.0 } else { -1.0 };
    sign * size * (1.0 + random.abs())
}

/// A random value, always the same for the same index: √3 times the sum of four uniform ones from −1/2 to 1/2. Mean 0, variance 1, at
/// most 2 · √3 = 3.46 in size.
fn normal(index: u64) -> f32 {
    let bits = hash(index);
    let uniform = |which: u32| ((bits >> (16 * which)) & 0xffff) as f32 / 65_536.0 - 0.5;
    3.0_f32.sqrt() * (uniform(0) + uniform(1) + uniform(2) + uniform(3))
}

/// SplitMix64 (Steele, Lea and Flood, 2014): the output of the generator whose state is this multiple of its step.
fn hash(index: u64) -> u64 {
    let mut z = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
