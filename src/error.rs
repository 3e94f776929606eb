/// What can go wrong. Each variant carries the numbers, and its text says what would have been right.
///
/// After an error the device can be used again, [`Error::DeviceLost`] apart.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No adapter matched what was asked for.
    #[error(
        "no adapter for {requested}; found: {}. A software Vulkan adapter is in Debian's package mesa-vulkan-drivers",
        list(.found)
    )]
    NoAdapter {
        /// What was asked for.
        requested: String,
        /// Names of the adapters there are.
        found: Vec<String>,
    },
    /// The adapter gave no device.
    #[error("adapter {adapter} gave no device: {reason}")]
    RequestDevice {
        /// Name of the adapter.
        adapter: String,
        /// What wgpu said.
        reason: String,
    },
    /// The device allows less than any kernel needs, or than this layer or this operation needs with all tensors that take part.
    #[error("the device allows {actual} {what}, and {needed} are needed")]
    DeviceTooSmall {
        /// Name of the limit.
        what: &'static str,
        /// Needed at least.
        needed: u64,
        /// Allowed by the device.
        actual: u64,
    },
    /// The device was lost: destroyed, removed, or reset by its driver. Make a new one.
    #[error("the device was lost ({message}); make a new GpuDevice")]
    DeviceLost {
        /// What wgpu said.
        message: String,
    },
    /// The device, or the host, has not enough memory.
    #[error("out of memory in {operation}: {bytes} bytes were asked for")]
    OutOfMemory {
        /// What was being done.
        operation: &'static str,
        /// Bytes asked for.
        bytes: u64,
    },
    /// wgpu refused something: a buffer that was destroyed or is another device's, or else a bug here or in wgpu.
    #[error("wgpu refused {operation}: {message}")]
    Wgpu {
        /// What was being done.
        operation: &'static str,
        /// What wgpu said.
        message: String,
    },
    /// A buffer larger than the device allows.
    #[error("a buffer of {bytes} bytes is over the device's limit of {max} bytes; split the tensor over its rows")]
    BufferSize {
        /// Bytes needed.
        bytes: u64,
        /// The device's limit.
        max: u64,
    },
    /// A single row larger than the device can bind.
    #[error("a row of {bytes} bytes does not fit a storage binding of {max} bytes")]
    RowSize {
        /// Bytes needed, with room to align the binding.
        bytes: u64,
        /// The device's limit.
        max: u64,
    },
    /// A tensor of too many dimensions.
    #[error("shape {shape:?} has rank {}, the largest rank is {max}", .shape.len())]
    Rank {
        /// The shape.
        shape: Vec<usize>,
        /// The largest rank.
        max: usize,
    },
    /// A shape whose byte count does not fit 64 bits, 32 in a browser; in group normalization 2^32 samples, or as many elements in one.
    #[error("shape {shape:?} has more elements than can be counted")]
    Size {
        /// The shape.
        shape: Vec<usize>,
    },
    /// An offset from which a tensor goes past what 64 bits can count in bytes.
    #[error("the {what} begins at element {offset} of its buffer, and would end past what 64 bits can count")]
    Offset {
        /// The tensor.
        what: &'static str,
        /// Where it begins, in elements.
        offset: u64,
    },
    /// Values that do not fill the shape.
    #[error("shape {shape:?} holds {expected} values, {actual} were given")]
    ValueCount {
        /// The shape.
        shape: Vec<usize>,
        /// Values the shape holds.
        expected: usize,
        /// Values given.
        actual: usize,
    },
    /// A normalized shape that is empty or has a zero dimension.
    #[error("normalized_shape {normalized_shape:?} must have at least one dimension, and none of them zero")]
    NormalizedShape {
        /// The normalized shape.
        normalized_shape: Vec<usize>,
    },
    /// A normalized shape that does not match the trailing dimensions of the input.
    #[error(
        "normalized_shape {normalized_shape:?} must equal the last {} dimensions of the input, whose shape is {shape:?}",
        .normalized_shape.len()
    )]
    ShapeMismatch {
        /// The normalized shape.
        normalized_shape: Vec<usize>,
        /// The input's shape.
        shape: Vec<usize>,
    },
    /// A row that is empty or too wide.
    #[error("a row of {width} elements; a width must be from 1 to {max}")]
    Width {
        /// Elements of a row.
        width: u64,
        /// The largest width.
        max: u64,
    },
    /// An eps that is no finite number ≥ 0.
    #[error("eps {eps} must be finite and at least 0")]
    Eps {
        /// The eps given.
        eps: f32,
    },
    /// The unbiased variance of a single element, which divides by zero.
    #[error("the unbiased variance divides by width − 1; width is {width} and must be at least 2")]
    UnbiasedWidth {
        /// Elements of a row.
        width: u64,
    },
    /// A parameter that this layer's affine map does not have.
    #[error("this layer has no {name}: its affine map is {affine:?}")]
    NoParameter {
        /// `weight` or `bias`.
        name: &'static str,
        /// The layer's affine map.
        affine: crate::Affine,
    },
    /// A tensor that has no part in a pass, such as the output in the backward pass.
    #[error("the {what} takes no part in the {operation} pass")]
    Role {
        /// The tensor.
        what: &'static str,
        /// The pass.
        operation: crate::kernel::Operation,
    },
    /// Only one of the two statistics that the backward pass reads.
    #[error("the {given} is given and the {missing} is not; give both, or neither, and they are measured")]
    Statistics {
        /// What was given.
        given: &'static str,
        /// What was not.
        missing: &'static str,
    },
    /// A tensor that has no meaning without another one.
    #[error("the {what} is given and the {needs} is not; a {what} needs one")]
    Needs {
        /// What was given.
        what: &'static str,
        /// What it needs.
        needs: &'static str,
    },
    /// Conditions of no rows.
    #[error("{rows_per_condition} rows share a condition; at least 1 must")]
    RowsPerCondition {
        /// Rows that share a condition.
        rows_per_condition: u64,
    },
    /// Sequences of no positions.
    #[error(
        "{rows} rows are no sequences of {length} positions; an input of shape [.., length, normalized shape] has some"
    )]
    SequenceLength {
        /// Rows.
        rows: u64,
        /// Positions of a sequence.
        length: u64,
    },
    /// Something that goes only with rows whose elements lie one after another, in a layer that normalizes other axes than the last ones or
    /// groups of channels; or a grid or tensor that is too large for it, or does not fit the problem.
    #[error("{what} does not go with normalized axes that are not the last ones, or with parameters of channels")]
    Grid {
        /// What was asked for.
        what: &'static str,
    },
    /// An axis that is named twice, or that the input has not, or of another size.
    #[error("axes {axes:?} of sizes {normalized_shape:?} are none of an input of shape {shape:?}")]
    Axes {
        /// The axes, counted from the end where they are negative.
        axes: Vec<isize>,
        /// Their sizes.
        normalized_shape: Vec<usize>,
        /// The shape of the input.
        shape: Vec<usize>,
    },
    /// Groups that do not divide the channels, or a sample without any.
    #[error(
        "{groups} groups of the channels of a sample of shape {sample_shape:?}; a divisor of its first dimension would do"
    )]
    Groups {
        /// Groups.
        groups: usize,
        /// Channels, then positions.
        sample_shape: Vec<usize>,
    },
    /// Something that causal layer normalization does not take.
    #[error("the backward pass of causal layer normalization takes no {what}; it measures the positions itself")]
    Causal {
        /// What was given.
        what: &'static str,
    },
    /// Something that takes rows as a whole, where only parts of them are there.
    #[error("{what} needs whole rows; operations on parts of rows do without it")]
    Parts {
        /// What was asked for.
        what: &'static str,
    },
    /// A dimension that a shape does not have.
    #[error("there is no dimension {axis} in a shape of rank {rank}; dimensions count from 0")]
    Axis {
        /// The dimension asked for.
        axis: usize,
        /// Dimensions of the shape.
        rank: usize,
    },
    /// A result with another number of positions than the input has.
    #[error("the result has shape {shape:?}; its dimension {axis} must be {expected}, as the input's is")]
    AxisLength {
        /// The dimension along which dependence is measured.
        axis: usize,
        /// Positions of the input.
        expected: usize,
        /// The shape of the result.
        shape: Vec<usize>,
    },
    /// An operation that gave two results for the same input.
    #[error(
        "the operation is not deterministic: element {index} is {first} and then {second} for the same input; fix its seeds, and \
         leave dropout out"
    )]
    NotDeterministic {
        /// The element.
        index: usize,
        /// Its value in the first run.
        first: f32,
        /// In the second.
        second: f32,
    },
    /// A size of 0.
    #[error("the {what} is 0, it must be at least 1")]
    Zero {
        /// `condition_size`, or what else was given as 0.
        what: &'static str,
    },
    /// A parameter of the condition's that a conditional layer does not have.
    #[error("this layer has no {name}: its config asks for none")]
    NoConditionParameter {
        /// `hidden projection` or `table`.
        name: &'static str,
    },
    /// Conditions that do not go into the rows.
    #[error("{rows} rows cannot be shared out evenly among {conditions} conditions; there must be one for each sample")]
    ConditionCount {
        /// Rows of the input.
        rows: u64,
        /// Conditions given.
        conditions: u64,
    },
    /// A category that the table has no row for.
    #[error("the category at index {index} is {category}, it must be below the number of categories, {categories}")]
    Category {
        /// Which of the categories given.
        index: usize,
        /// The category.
        category: u32,
        /// Rows of the table.
        categories: usize,
    },
    /// A matrix that a kernel, which takes it whole, cannot bind.
    #[error("the {what} has {bytes} bytes, a storage binding takes at most {max}")]
    BindingSize {
        /// The matrix.
        what: &'static str,
        /// Bytes that it has.
        bytes: u64,
        /// The device's limit.
        max: u64,
    },
    /// A tensor of the wrong shape.
    #[error("the {what} has shape {actual:?}, it must have shape {expected:?}")]
    Shape {
        /// The tensor's part in the operation, or `new value`.
        what: &'static str,
        /// The shape it must have: the normalized shape for a parameter, for mean and rstd the input's dimensions before
        /// those, else the input's.
        expected: Vec<usize>,
        /// The shape it has.
        actual: Vec<usize>,
    },
    /// A tensor of another storage type than it must have.
    #[error("the {what} is {actual}, it must be {expected}")]
    StorageType {
        /// The tensor's part in the operation: `mean`, `rstd`, `moments`, `gradient_sums`, `state` or `condition`.
        what: &'static str,
        /// The storage type it must have.
        expected: crate::StorageType,
        /// The storage type it has.
        actual: crate::StorageType,
    },
    /// What RMS normalization does not have.
    #[error("RMS normalization has not {what}; leave it out, or use Normalization::LayerNorm")]
    RmsNorm {
        /// `a mean` or `an unbiased variance`.
        what: &'static str,
    },
    /// Rows that would overlap.
    #[error("the rows of the {what} are {row_stride} elements apart, they must be at least {width}")]
    RowStride {
        /// The tensor.
        what: &'static str,
        /// Elements from one row to the next.
        row_stride: u64,
        /// Elements of a row.
        width: u64,
    },
    /// A region that does not lie within its buffer.
    #[error("the {what} ends at byte {needed} of its buffer, which has {actual}")]
    Region {
        /// The tensor.
        what: &'static str,
        /// Bytes that the buffer must have.
        needed: u64,
        /// Bytes that it has.
        actual: u64,
    },
    /// A buffer that was made without a usage that it needs.
    #[error("the buffer of the {what} has usage {actual:?}, it must have {needed:?}")]
    BufferUsage {
        /// The tensor.
        what: &'static str,
        /// What it must have.
        needed: wgpu::BufferUsages,
        /// What it has.
        actual: wgpu::BufferUsages,
    },
    /// Something written that overlaps another tensor. An output or a sum may be in the exact place of the input or the residual, and a
    /// gradient by input or residual in that of the input, the residual, the output gradient or the gradient of the sum.
    #[error(
        "the {written} overlaps the {other}; give it elements of its own, or, if it may take the place of another tensor (see \
         `Bindings`), the very region of that: the same storage type, offset and row stride"
    )]
    Overlap {
        /// What is written.
        written: &'static str,
        /// What it overlaps.
        other: &'static str,
    },
    /// A file of tunings that cannot be read or written.
    #[error("the tunings in {path}: {reason}")]
    TuningFile {
        /// The file.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// Tensors of one buffer whose bound parts overlap, in a browser, which refuses that where one of them is written, even
    /// where no element is in both.
    #[error(
        "in a browser the {first} and the {second} of one buffer must not overlap from first row to last, the start taken down \
         to a multiple of {alignment} bytes; move them apart"
    )]
    SharedRange {
        /// A tensor.
        first: &'static str,
        /// Another.
        second: &'static str,
        /// What bindings begin at multiples of.
        alignment: u64,
    },
    /// Another number of rows than there may be: more than an operation was prepared for
    /// ([`PreparedPlan::set_rows`](crate::PreparedPlan::set_rows)), or another than the shape of the input has
    /// ([`Bindings::input_shape`](crate::Bindings::input_shape)).
    #[error("{rows} rows are asked for, there are {max}")]
    RowCount {
        /// Rows asked for.
        rows: u64,
        /// Rows that were prepared for, or that the input has.
        max: u64,
    },
    /// A tensor, layer or operation used with a device that it was not made on.
    #[error("the {what} belongs to another GpuDevice; use it with the device it was made on")]
    ForeignDevice {
        /// What was passed.
        what: &'static str,
    },
    /// A geometry that cannot run this problem on this device.
    #[error("this geometry cannot run: {reason}")]
    Geometry {
        /// What is wrong with it, with the numbers.
        reason: String,
    },
    /// A strategy that cannot run this problem on this device.
    #[error("strategy {strategy} cannot run rows of {width} elements on this device: {reason}")]
    Strategy {
        /// The strategy asked for.
        strategy: crate::kernel::Strategy,
        /// Elements of a row.
        width: u32,
        /// What is in the way, with the numbers.
        reason: String,
    },
    /// A plan made for another problem than the one it is used for.
    #[error("the plan is for {planned}, the operation is {actual}")]
    PlanMismatch {
        /// The plan's problem.
        planned: String,
        /// The operation's problem.
        actual: String,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}
