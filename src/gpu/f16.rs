#[cfg(not(target_arch = "wasm32"))]
use std::borrow::Cow;

use super::GpuDevice;
#[cfg(not(target_arch = "wasm32"))]
use crate::Error;

/// Which of the language's conversions of f16 are exact on a device.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct F16Conversions {
    pub(crate) unpack: bool,
    pub(crate) pack: bool,
}

impl GpuDevice {
    /// Tries the conversions of f16 with every number and every tie, once for a device. Where that cannot be done, and in a
    /// browser, which cannot wait, they count as inexact.
    pub(crate) fn f16_conversions(&self) -> F16Conversions {
        #[cfg(not(target_arch = "wasm32"))]
        return *self.f16_once().get_or_init(|| {
            self.probe_f16().unwrap_or_else(|error| {
                log::warn!("the conversions of f16 could not be tried: {error}");
                F16Conversions::default()
            })
        });
        #[cfg(target_arch = "wasm32")]
        F16Conversions::default()
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn probe_f16(&self) -> Result<F16Conversions, Error> {
        const WGSL: &str = concat!(
            include_str!("../../shaders/unit/scalar.wgsl"),
            include_str!("../../shaders/storage/f16.wgsl"),
            include_str!("../../shaders/f16_probe.wgsl")
        );
        const SIZE: u64 = 8;

        let label = Some("f16 probe");
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
        let counts = self.create_buffer("f16 probe", SIZE, usage)?;
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let staging = self.create_buffer("f16 probe download", SIZE, usage)?;
        self.scoped("the probing of f16", SIZE, |device| {
            let source = wgpu::ShaderSource::Wgsl(Cow::Borrowed(WGSL));
            let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label, source });
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label,
                layout: None,
                module: &module,
                entry_point: None,
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                cache: self.pipeline_cache(),
            });
            let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
                label,
                layout: &pipeline.get_bind_group_layout(0),
                entries: &[wgpu::BindGroupEntry { binding: 0, resource: counts.as_entire_binding() }],
            });
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label });
            {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                pass.set_pipeline(&pipeline);
                pass.set_bind_group(0, &bind_group, &[]);
                pass.dispatch_workgroups(0x1_0000 / 64, 1, 1);
            }
            encoder.copy_buffer_to_buffer(&counts, 0, &staging, 0, SIZE);
            self.queue().submit([encoder.finish()]);
            staging.map_async(wgpu::MapMode::Read, .., |_| {});
        })?;
        self.wait()?;
        let [unpack, pack]: [u32; 2] = match staging.get_mapped_range(..) {
            Ok(view) => bytemuck::pod_read_unaligned(&view),
            Err(error) => return Err(Error::Wgpu { operation: "the probing of f16", message: error.to_string() }),
        };
        log::debug!("{unpack} numbers are unpacked wrongly, {pack} packed");
        Ok(F16Conversions { unpack: unpack == 0, pack: pack == 0 })
    }
}
