/// The uniform block of one dispatch: binding 0 of every kernel, 256 bytes. Its twin is `shaders/params.wgsl`.
///
/// A base is where the first row begins in the bound part of a tensor, a stride leads from one row to the next; both count
/// units of access, those of mean and rstd elements. Tensors that the problem does not have leave theirs 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Params {
    /// Spans (rows × segments of a row) of this dispatch.
    pub spans: u32,
    /// Workgroups that have work; a 2-D dispatch may start a few more.
    pub workgroups: u32,
    /// Workgroups along x.
    pub workgroups_x: u32,
    /// Rows of this dispatch.
    pub rows: u32,
    /// The most workgroups along x; what a row count on the device is turned into workgroups with.
    pub max_workgroups_x: u32,
    /// First row of this dispatch within the problem; at most `u32::MAX`, where no row count on the device reaches.
    pub first_row: u32,
    /// Rows of this dispatch at most, whatever a row count on the device is.
    pub most_rows: u32,
    /// Segments of a row.
    pub segments: u32,
    /// Spans of a workgroup.
    pub spans_per_workgroup: u32,
    /// Workgroups that have work however few the rows are.
    pub least_workgroups: u32,
    /// The most workgroups that have work however many the rows are.
    pub most_workgroups: u32,
    /// Walks over the rows, of which each leaves sums for gradients; in a scan over positions the tiles or the sequences; else 0.
    pub groups: u32,
    /// Not 0 where those sums, or the gradients themselves, are added to what lies there. In `shaders/gradient_parameters.wgsl` bits:
    /// 1 for the gradients, 2 where there are sums of dispatches before, 4 where there will be later ones.
    pub accumulate: u32,
    /// Rows that share a condition; `u32::MAX` where rows belong to none.
    pub condition_rows: u32,
    /// Conditions of this dispatch; at least 1.
    pub conditions: u32,
    /// Walks over the rows of each condition; at least 1.
    pub walks: u32,
    /// Rows of a sequence; `u32::MAX` where rows belong to none.
    pub sequence_rows: u32,
    /// Tiles of a sequence; at least 1.
    pub tiles: u32,
    /// 1 for the unbiased variance, 0 for the biased one.
    pub unbiased: f32,
    /// [`Kernel::turns`](super::Kernel::turns), for loops that a driver should not unroll.
    pub turns: u32,
    /// `u32::MAX`; a mask of all bits that a compiler cannot see through.
    pub all_bits: u32,
    /// Added to the variance; ≥ 0.
    pub eps: f32,
    /// 1 / width.
    pub mean_share: f32,
    /// What a sum of squares is multiplied by to become a variance, 1 / n or 1 / (n − 1): its leading digits …
    pub variance_share: f32,
    /// … and the rest of them.
    pub variance_share_rest: f32,
    /// 1 for the biased variance, n / (n − 1) for the unbiased one.
    pub variance_factor: f32,
    /// Base of the input.
    pub input_base: u32,
    /// Stride of the input.
    pub input_stride: u32,
    /// Base of the residual.
    pub residual_base: u32,
    /// Stride of the residual.
    pub residual_stride: u32,
    /// Base of the output.
    pub output_base: u32,
    /// Stride of the output.
    pub output_stride: u32,
    /// Base of the sum.
    pub sum_base: u32,
    /// Stride of the sum.
    pub sum_stride: u32,
    /// Base of the mean.
    pub mean_base: u32,
    /// Stride of the mean.
    pub mean_stride: u32,
    /// Base of the rstd, or of the sums of rows (never in one problem), these in words.
    pub rstd_base: u32,
    /// Stride of the same.
    pub rstd_stride: u32,
    /// Base of the output gradient.
    pub output_gradient_base: u32,
    /// Stride of the output gradient.
    pub output_gradient_stride: u32,
    /// Base of the gradient of the sum.
    pub sum_gradient_base: u32,
    /// Stride of the gradient of the sum.
    pub sum_gradient_stride: u32,
    /// Base of the input gradient.
    pub input_gradient_base: u32,
    /// Stride of the input gradient.
    pub input_gradient_stride: u32,
    /// Base of the gradient by the residual.
    pub residual_gradient_base: u32,
    /// Stride of the gradient by the residual.
    pub residual_gradient_stride: u32,
    /// Base of the scale.
    pub scale_base: u32,
    /// From one condition's scale to the next one's.
    pub scale_stride: u32,
    /// Base of the shift.
    pub shift_base: u32,
    /// From one condition's shift to the next one's.
    pub shift_stride: u32,
    /// Base of the gate.
    pub gate_base: u32,
    /// From one condition's gate to the next one's.
    pub gate_stride: u32,
    /// Base of the gradient of the scale.
    pub scale_gradient_base: u32,
    /// Stride of the gradient of the scale.
    pub scale_gradient_stride: u32,
    /// Base of the gradient of the shift.
    pub shift_gradient_base: u32,
    /// Stride of the gradient of the shift.
    pub shift_gradient_stride: u32,
    /// Base of the gradient of the gate.
    pub gate_gradient_base: u32,
    /// Stride of the gradient of the gate.
    pub gate_gradient_stride: u32,
    /// Base of the weight.
    pub weight_base: u32,
    /// Base of the bias.
    pub bias_base: u32,
    /// Base of the gradient of the weight.
    pub weight_gradient_base: u32,
    /// Base of the gradient of the bias.
    pub bias_gradient_base: u32,
    /// Base of the state of the sequences, or of the moments of rows (never in one problem), in words.
    pub state_base: u32,
    /// Words from one sequence's state, or one row's moments, to the next one's.
    pub state_stride: u32,
}

const _: () = assert!(size_of::<Params>() == 256);

impl Params {
    /// Size in bytes.
    pub const SIZE: u64 = size_of::<Self>() as u64;

    /// The same for fewer rows: spans and workgroups are worked out anew, as `shaders/arguments.wgsl` does on the device, which takes no
    /// more rows than these.
    pub(super) fn with_rows(self, rows: u32) -> Self {
        let spans = rows * self.segments;
        let workgroups = spans.div_ceil(self.spans_per_workgroup).max(self.least_workgroups).min(self.most_workgroups);
        Self { rows, most_rows: rows, spans, workgroups, workgroups_x: workgroups.min(self.max_workgroups_x), ..self }
    }

    /// Workgroups along x, y and z.
    pub(super) fn dispatch(&self) -> [u32; 3] {
        [self.workgroups_x, if self.workgroups_x == 0 { 0 } else { self.workgroups.div_ceil(self.workgroups_x) }, 1]
    }
}
