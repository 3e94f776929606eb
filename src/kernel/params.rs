/// The uniform block of one dispatch: binding 0 of every kernel, 32 bytes. Its twin is `shaders/params.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Params {
    /// Spans (rows × segments of a row) of this dispatch.
    pub spans: u32,
    /// Workgroups that have work; a 2-D dispatch may start a few more.
    pub workgroups: u32,
    /// Workgroups along x.
    pub workgroups_x: u32,
    /// First row's place in the bound part of the input, in units of access.
    pub input_base: u32,
    /// First row's place in the bound part of the output, in units of access.
    pub output_base: u32,
    /// Added to the variance; ≥ 0.
    pub eps: f32,
    /// 1 for the biased variance, n / (n − 1) for the unbiased one.
    pub variance_factor: f32,
    /// [`Kernel::turns`](super::Kernel::turns), for loops that a driver should not unroll.
    pub turns: u32,
}

const _: () = assert!(size_of::<Params>() == 32);

impl Params {
    /// Size in bytes.
    pub const SIZE: u64 = size_of::<Self>() as u64;
}
