//! A few bytes that come from the device while other things go on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::task::{Context, Poll, Waker};

use gpu_layer_norm::{Error, GpuDevice, wgpu};

/// A buffer that the host reads, used again and again.
#[derive(Debug)]
pub(crate) struct Staging {
    buffer: wgpu::Buffer,
}

impl Staging {
    pub(crate) fn new(device: &GpuDevice, bytes: u64) -> Result<Self, Error> {
        let descriptor = wgpu::BufferDescriptor {
            label: Some("sharded layer norm read-back"),
            size: bytes.max(4),
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        };
        let buffer = scoped(device, "the buffer of a read-back", bytes, |device| device.create_buffer(&descriptor))?;
        Ok(Self { buffer })
    }

    /// Submits what `record` records, which copies so many bytes to the beginning of the buffer that it is given, and asks for them. What was
    /// read back before must have been read.
    pub(crate) fn start(
        &self,
        device: &GpuDevice,
        length: u64,
        record: impl FnOnce(&mut wgpu::CommandEncoder, &wgpu::Buffer),
    ) -> Result<Readback, Error> {
        let (sender, mapped) = channel();
        scoped(device, "the submission of a chunk", length, |wgpu_device| {
            let mut encoder = wgpu_device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            record(&mut encoder, &self.buffer);
            device.queue().submit([encoder.finish()]);
            self.buffer.map_async(wgpu::MapMode::Read, ..length, move |result| {
                // Nobody listens any more where a pass has ended early.
                let _ = sender.send(result);
            });
        })?;
        Ok(Readback { buffer: self.buffer.clone(), mapped, length })
    }
}

/// Bytes on their way.
#[derive(Debug)]
pub(crate) struct Readback {
    buffer: wgpu::Buffer,
    mapped: Receiver<Result<(), wgpu::BufferAsyncError>>,
    length: u64,
}

impl Readback {
    /// Hands the bytes to `read` if they are there: whether they were. Does not wait; [`poll`] makes the device go on.
    pub(crate) fn read(&self, read: impl FnOnce(&[u8])) -> Result<bool, Error> {
        match self.mapped.try_recv() {
            Err(TryRecvError::Empty) => return Ok(false),
            Err(TryRecvError::Disconnected) => return Err(lost("the read-back was abandoned")),
            Ok(Err(error)) => return Err(lost(&error.to_string())),
            Ok(Ok(())) => {}
        }
        let view = self.buffer.get_mapped_range(..self.length).map_err(|error| lost(&error.to_string()))?;
        read(&view);
        drop(view);
        self.buffer.unmap();
        Ok(true)
    }
}

/// Looks what the device has done, without waiting for it.
pub(crate) fn poll(device: &GpuDevice) -> Result<(), Error> {
    // wgpu panics where a device is lost meanwhile; that must not end the caller.
    match catch_unwind(AssertUnwindSafe(|| device.device().poll(wgpu::PollType::Poll))) {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(lost(&error.to_string())),
        Err(_) => Err(lost("wgpu gave it up")),
    }
}

/// Runs `work` with every error that wgpu raises in it caught and returned.
pub(crate) fn scoped<T>(
    device: &GpuDevice,
    operation: &'static str,
    bytes: u64,
    work: impl FnOnce(&wgpu::Device) -> T,
) -> Result<T, Error> {
    let device = device.device();
    let filters = [wgpu::ErrorFilter::Validation, wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Internal];
    let [validation, memory, internal] = filters.map(|filter| device.push_error_scope(filter));
    let value = work(device);
    // The last one that was pushed is the first to be popped.
    let errors = [ready(internal.pop()), ready(memory.pop()), ready(validation.pop())];
    match errors.into_iter().flatten().next() {
        None => Ok(value),
        Some(wgpu::Error::OutOfMemory { .. }) => Err(Error::OutOfMemory { operation, bytes }),
        Some(error) => Err(Error::Wgpu { operation, message: error.to_string() }),
    }
}

/// Natively the error of a scope is known at once.
fn ready<T>(future: impl Future<Output = Option<T>>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => None,
    }
}

fn lost(message: &str) -> Error {
    Error::DeviceLost { message: message.into() }
}
