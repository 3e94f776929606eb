use std::sync::Arc;

use futures_intrusive::channel::shared::{OneshotReceiver, OneshotSender, oneshot_channel};

use super::GpuDevice;
use crate::tensor::element_count;
use crate::{Error, Tensor};

/// A tensor of f32 in the memory of a device.
#[derive(Clone, Debug)]
pub struct GpuTensor {
    device: GpuDevice,
    buffer: wgpu::Buffer,
    shape: Vec<usize>,
}

impl GpuTensor {
    /// A tensor on the device with the values of a host tensor.
    ///
    /// # Errors
    /// [`Error::BufferSize`], [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub fn upload(device: &GpuDevice, tensor: &Tensor) -> Result<Self, Error> {
        let contents = bytemuck::cast_slice(tensor.values());
        let buffer = device.create_buffer_with("tensor", USAGE, contents)?;
        Ok(Self { device: device.clone(), buffer, shape: tensor.shape().to_vec() })
    }

    /// A tensor of zeros.
    ///
    /// # Errors
    /// [`Error::Rank`], [`Error::Size`], and as [`upload`](Self::upload).
    pub fn zeros(device: &GpuDevice, shape: impl Into<Vec<usize>>) -> Result<Self, Error> {
        let shape = shape.into();
        let bytes = element_count(&shape)? as u64 * 4;
        let buffer = device.create_buffer("tensor", bytes, USAGE)?;
        Ok(Self { device: device.clone(), buffer, shape })
    }

    /// Overwrites the values, in every operation that reads this tensor and is submitted after.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes differ, [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub fn write(&self, tensor: &Tensor) -> Result<(), Error> {
        if tensor.shape() != self.shape {
            return Err(Error::Shape {
                what: "new value",
                expected: self.shape.clone(),
                actual: tensor.shape().to_vec(),
            });
        }
        let contents: &[u8] = bytemuck::cast_slice(tensor.values());
        if contents.is_empty() {
            return Ok(());
        }
        self.device.scoped("the writing of a tensor", contents.len() as u64, |_| {
            self.device.queue().write_buffer(&self.buffer, 0, contents);
        })
    }

    /// The dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The buffer: f32 values in row-major order, usable as storage and for copies.
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// The device that the tensor lives on.
    pub fn device(&self) -> &GpuDevice {
        &self.device
    }

    /// Copies the values back, waiting for everything submitted before.
    ///
    /// # Errors
    /// [`Error::BufferSize`], [`Error::OutOfMemory`], [`Error::DeviceLost`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn download(&self) -> Result<Tensor, Error> {
        let (pending, _) = self.start_download()?;
        self.device.wait()?;
        pollster::block_on(pending.finish())
    }

    /// Copies the values back without blocking the caller's thread: natively another thread waits for the device.
    ///
    /// # Errors
    /// [`Error::BufferSize`], [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub async fn download_async(&self) -> Result<Tensor, Error> {
        let (pending, sender) = self.start_download()?;
        #[cfg(target_arch = "wasm32")]
        drop(sender);
        #[cfg(not(target_arch = "wasm32"))]
        {
            let device = self.device.clone();
            let wait = move || {
                // Where the device is lost while it is waited for, wgpu forgets the callback: nobody else would tell.
                if let Err(error) = device.wait() {
                    let _ = sender.send(Err(error));
                }
            };
            if std::thread::Builder::new().name("gpu-layer-norm wait".into()).spawn(wait).is_err() {
                self.device.wait()?;
            }
        }
        pending.finish().await
    }

    /// The download, and what else may tell it that it will never be done. The first to tell is heard.
    fn start_download(&self) -> Result<(Download, Arc<Sender>), Error> {
        let count = element_count(&self.shape)?;
        let bytes = count as u64 * 4;
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let staging = self.device.create_buffer("tensor download", bytes, usage)?;
        let (sender, mapped) = oneshot_channel();
        let sender = Arc::new(sender);
        let told = Arc::clone(&sender);
        self.device.scoped("the download of a tensor", bytes, |device| {
            let descriptor = wgpu::CommandEncoderDescriptor { label: Some("tensor download") };
            let mut encoder = device.create_command_encoder(&descriptor);
            encoder.copy_buffer_to_buffer(&self.buffer, 0, &staging, 0, bytes);
            self.device.queue().submit([encoder.finish()]);
            staging.map_async(wgpu::MapMode::Read, .., move |result| {
                let result = result.map_err(|error| Error::DeviceLost { message: error.to_string() });
                // Nobody listens any more if the download was dropped.
                let _ = told.send(result);
            });
        })?;
        Ok((Download { device: self.device.clone(), staging, mapped, shape: self.shape.clone(), count }, sender))
    }
}

const USAGE: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);

/// Tells a download that its staging buffer is mapped, or why it never will be.
type Sender = OneshotSender<Result<(), Error>>;

/// A download under way.
struct Download {
    device: GpuDevice,
    staging: wgpu::Buffer,
    mapped: OneshotReceiver<Result<(), Error>>,
    shape: Vec<usize>,
    count: usize,
}

impl Download {
    async fn finish(self) -> Result<Tensor, Error> {
        let failed = |message: String| match self.device.check_lost() {
            Err(lost) => lost,
            Ok(()) => Error::DeviceLost { message },
        };
        match self.mapped.receive().await {
            Some(Ok(())) => {}
            Some(Err(Error::DeviceLost { message })) => return Err(failed(message)),
            Some(Err(error)) => return Err(error),
            None => return Err(failed("the download was abandoned".into())),
        }
        let view = self.staging.get_mapped_range(..).map_err(|error| failed(error.to_string()))?;
        let mut values = vec![0.0_f32; self.count];
        bytemuck::cast_slice_mut::<f32, u8>(&mut values).copy_from_slice(&view[..self.count * 4]);
        drop(view);
        self.staging.unmap();
        Tensor::from_f32(self.shape, values)
    }
}
