use std::sync::Arc;

use futures_intrusive::channel::shared::{OneshotReceiver, OneshotSender, oneshot_channel};

use super::GpuDevice;
use crate::tensor::element_count;
use crate::{Error, StorageType, Tensor};

/// A tensor in the memory of a device.
///
/// ```
/// use gpu_layer_norm::{GpuDevice, GpuTensor, StorageType, Tensor};
///
/// let device = GpuDevice::new()?;
/// let tensor = GpuTensor::zeros_as(&device, [2, 3], StorageType::Bf16)?;
/// tensor.write(&Tensor::from_f32([2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?)?;
/// assert_eq!(*tensor.download()?.values(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
/// # Ok::<(), gpu_layer_norm::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct GpuTensor {
    device: GpuDevice,
    buffer: wgpu::Buffer,
    shape: Vec<usize>,
    storage: StorageType,
}

impl GpuTensor {
    /// A tensor on the device with the values of a host tensor.
    ///
    /// # Errors
    /// [`Error::BufferSize`], [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub fn upload(device: &GpuDevice, tensor: &Tensor) -> Result<Self, Error> {
        let uploaded = Self::zeros_as(device, tensor.shape(), tensor.storage())?;
        uploaded.write(tensor)?;
        Ok(uploaded)
    }

    /// A tensor of f32 zeros.
    ///
    /// # Errors
    /// [`Error::Rank`], [`Error::Size`], and as [`upload`](Self::upload).
    pub fn zeros(device: &GpuDevice, shape: impl Into<Vec<usize>>) -> Result<Self, Error> {
        Self::zeros_as(device, shape, StorageType::F32)
    }

    /// A tensor of zeros of this storage type.
    ///
    /// # Errors
    /// As [`zeros`](Self::zeros).
    pub fn zeros_as(device: &GpuDevice, shape: impl Into<Vec<usize>>, storage: StorageType) -> Result<Self, Error> {
        let shape = shape.into();
        let bytes = element_count(&shape)? as u64 * storage.bytes();
        let buffer = device.create_buffer("tensor", bytes, USAGE)?;
        Ok(Self { device: device.clone(), buffer, shape, storage })
    }

    /// A tensor of this value, 0 or 1.
    pub(crate) fn filled(device: &GpuDevice, shape: &[usize], storage: StorageType, value: f32) -> Result<Self, Error> {
        let tensor = Self::zeros_as(device, shape, storage)?;
        if value != 0.0 {
            let one = Tensor::from_f32([2], [value; 2])?.to_storage(storage);
            let word = &one.bytes()[..4];
            tensor
                .write_words(|_, target| target.chunks_exact_mut(4).for_each(|target| target.copy_from_slice(word)))?;
        }
        Ok(tensor)
    }

    /// Overwrites the values, in every operation that reads this tensor and is submitted after. They are rounded to this
    /// tensor's storage type.
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
        let element = self.storage.bytes() as usize;
        self.write_words(|start, target| tensor.fill(self.storage, start / element, target))
    }

    /// Overwrites the words that the tensor has, in pieces: the byte at which one begins, and where it goes.
    fn write_words(&self, fill: impl FnMut(usize, &mut [u8])) -> Result<(), Error> {
        let bytes = (element_count(&self.shape)? as u64 * self.storage.bytes()).next_multiple_of(4);
        self.device.write("the writing of a tensor", &self.buffer, bytes, fill)
    }

    /// The dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// What an element is.
    pub fn storage(&self) -> StorageType {
        self.storage
    }

    /// The buffer: values in row-major order, usable as storage and for copies.
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
        let bytes = (element_count(&self.shape)? as u64 * self.storage.bytes()).next_multiple_of(4);
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
        Ok((Download { tensor: self.clone(), staging, mapped }, sender))
    }
}

const USAGE: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);

/// Tells a download that its staging buffer is mapped, or why it never will be.
type Sender = OneshotSender<Result<(), Error>>;

/// A download under way.
struct Download {
    tensor: GpuTensor,
    staging: wgpu::Buffer,
    mapped: OneshotReceiver<Result<(), Error>>,
}

impl Download {
    async fn finish(self) -> Result<Tensor, Error> {
        let failed = |message: String| match self.tensor.device.check_lost() {
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
        let tensor = Tensor::from_bytes(self.tensor.shape, self.tensor.storage, &view);
        drop(view);
        self.staging.unmap();
        tensor
    }
}
